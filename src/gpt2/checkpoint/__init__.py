"""Weights on disk: TensorFlow 1 checkpoints, the folders they lie in, the folder of a run.

`bundle` reads and writes one checkpoint, `folder` finds the one that is meant, `run` saves step
after step. Importing them is quick: TensorFlow is imported when tensors or names are first read.
"""
