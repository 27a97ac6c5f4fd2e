"""Evaluation: perplexity, recipes of the GPT-2 paper, diversity of samples, a bigram baseline."""
