"""OpenAI's module of 2019; it is not here any more, and says what replaces it."""

raise ImportError(
    "model (src/model.py of 2019) has been replaced: use gpt2.load('117M').logits(tokens), or "
    "gpt2.model.logits(weights, hparams, tokens); see docs/interop.md."
)
