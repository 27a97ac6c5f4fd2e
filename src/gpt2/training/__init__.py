"""Training: the loss, the optimizers, one step, and the loop around it."""
