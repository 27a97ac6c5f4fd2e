"""Suppress the log lines of TensorFlow's C++ code."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Capture standard error within the block, and print it only if the block fails.

    C++ code does not use Python's `sys.stderr`, so file descriptor 2 is redirected.
    """
    try:
        standard_error = os.dup(2)
    except OSError:  # closed, as in a program without a console
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(standard_error, 2)
            notes.seek(0)
            with contextlib.suppress(OSError), open(2, "wb", closefd=False) as screen:
                shutil.copyfileobj(notes, screen)
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


def import_tensorflow(find_devices: bool = True) -> None:
    """Import TensorFlow without its start-up log lines.

    To see them, set the environment variable TF_CPP_MIN_LOG_LEVEL to 0 or 1.

    Args:
        find_devices: find GPUs, which writes more such lines. A cluster has to be formed before.
    """
    # A cluster's library writes pages when a worker is lost, which the error says in a sentence.
    default = "2" if find_devices else "3"
    level = os.environ["TF_CPP_MIN_LOG_LEVEL"] = os.environ.get("TF_CPP_MIN_LOG_LEVEL") or default
    # Some lines are written before that variable is read.
    with contextlib.nullcontext() if level in ("0", "1") else quiet():
        import tensorflow as tf

        if level not in ("0", "1"):  # its Python code warns of a compilation for each training
            tf.get_logger().setLevel("ERROR")
        if find_devices:
            tf.config.list_logical_devices()
            _start_xla()


@functools.cache
def _start_xla() -> None:
    """Compile a function, at the first of which XLA of TensorFlow 2.16 and 2.18 writes lines."""
    import tensorflow as tf

    tf.function(lambda: tf.constant(0), jit_compile=True, autograph=False)()
