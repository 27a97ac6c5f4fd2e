"""Plots of training runs and of model predictions: data in, a matplotlib figure or HTML out."""
