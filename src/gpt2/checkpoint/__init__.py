"""Weights on disk: TensorFlow 1 checkpoints, the folders they lie in, the folder of a run.

`bundle` reads and writes one checkpoint, whose `index` says where its tensors lie; `folder` finds
the one that is meant, `run` saves step after step. Importing them is quick, and reading needs no
TensorFlow; it is imported for writing.
"""
