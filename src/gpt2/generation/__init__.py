"""Generation: engines compute next-token logits, sampling turns logits into the next token."""
