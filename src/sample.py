"""OpenAI's module of 2019; it is not here any more, and says what replaces it."""

raise ImportError(
    "sample (src/sample.py of 2019) has been replaced: use "
    "gpt2.load('117M').generate(prompt, length=100, top_k=40) instead of sample_sequence; see "
    "docs/interop.md."
)
