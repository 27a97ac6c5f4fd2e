"""Saves into copies of a run folder and is killed, each time at another point.

    python killed_saves.py FOLDER SEED [RUN STEP]...

copies each RUN to FOLDER/RUN/0, 1, ..., where the k-th save of STEP is killed at its k-th point,
and makes runs FOLDER/0, 1, ..., killed at random times while they save step after step.

A point is before a call that changes the disk. The kill is a real SIGKILL to a real
process: a child per save, since importing TensorFlow takes seconds and forking does not.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from checkpoint_helpers import TINY, random_tensors

from gpt2.checkpoint import bundle
from gpt2.checkpoint.run import RunFolder
from gpt2.checkpoint.state import ResumeState

NEW = 77  # the seed of the tensors whose save is killed; those before have their step for a seed


def state_of(seed: int) -> ResumeState:
    """The state that is saved beside the tensors of a seed."""
    return ResumeState({"seed": seed}, {"adam/steps": np.array(seed, np.int64)})


CHANGES = [
    (os, "replace"),
    (os, "fsync"),  # does nothing here: what is not yet on the disk outlives a kill
    (os, "link"),
    (Path, "unlink"),
    (Path, "write_bytes"),
    (Path, "write_text"),
    (tf.raw_ops, "SaveV2"),
]


def kill_at(fatal: int) -> None:
    """From now on, count the points, and die at this one."""
    points = itertools.count()

    def point() -> None:
        if next(points) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(change):
        def call(*arguments, **named):
            if change is save_v2:  # has written half a file, in its own way
                Path(os.fsdecode(named["prefix"]) + ".data-00000-of-00001.tempstate12").write_bytes(
                    b"half"
                )
            point()
            return change(*arguments, **named)

        return call

    os.fsync = lambda descriptor: None
    save_v2 = tf.raw_ops.SaveV2
    for place, name in CHANGES:
        setattr(place, name, watched(getattr(place, name)))


def kill_at_each_point(run: Path, step: int, copies: Path) -> None:
    for fatal in itertools.count():
        copy = copies / str(fatal)
        shutil.copytree(run, copy)
        child = os.fork()
        if child == 0:
            kill_at(fatal)
            RunFolder(copy, keep=2).save(step, random_tensors(TINY, NEW), TINY, state_of(NEW))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            assert status == 0
            return


def kill_at_random_times(seed: int, folder: Path) -> None:
    moments = random.Random(seed)
    for number in range(10):
        child = os.fork()
        if child == 0:
            for step in itertools.count(1):
                # Each step twice, as a fresh training over a former one does.
                for again in (0, 1000):
                    tensors = random_tensors(TINY, step + again)
                    run = RunFolder(folder / str(number), keep=2)
                    run.save(step, tensors, TINY, state_of(step + again))
        time.sleep(moments.uniform(0.1, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    # Built once here rather than in each child; it starts none of the threads that forking loses.
    bundle._meta_graph(tuple(TINY.tensor_shapes().items()))
    folder, seed, *cases = sys.argv[1:]
    for run, step in zip(cases[::2], cases[1::2], strict=True):
        kill_at_each_point(Path(run), int(step), Path(folder) / Path(run).name)
    kill_at_random_times(int(seed), Path(folder))
