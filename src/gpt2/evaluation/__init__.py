"""How well a model predicts a text, and what a far simpler model would do."""
