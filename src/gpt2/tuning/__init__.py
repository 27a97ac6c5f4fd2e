"""Hyperparameter tuning: search space, trials as runs of `train`, and the study that holds them."""
