"""nshepperd's module of 2019; it is not here any more, and says what replaces it."""

raise ImportError(
    "load_dataset (src/load_dataset.py of 2019) has been replaced: use "
    "gpt2.data.datasets.read and gpt2.data.samplers.StreamSampler instead of "
    "load_dataset and Sampler; see docs/interop.md."
)
