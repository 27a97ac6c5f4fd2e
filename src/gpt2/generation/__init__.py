"""Generation: engines turn tokens into scores, sampling turns scores into the next token."""
