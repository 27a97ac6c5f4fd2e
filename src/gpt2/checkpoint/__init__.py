"""Weights on disk: TensorFlow 1 checkpoints, model folders and run folders.

`bundle` reads and writes one checkpoint, whose `index` says where its tensors lie; `folder` finds
the checkpoint of a folder, `resolve` the model of a name; `run` saves the checkpoints of a training
run. Reading needs no TensorFlow; it is imported only for writing.
"""
