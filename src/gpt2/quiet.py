"""Keeps the notes of TensorFlow's C++ code off the screen."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to standard error within the block; show it if the block fails.

    Those notes pass Python by, so the very channel of the process is turned aside.
    """
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(standard_error, 2)
            notes.seek(0)
            with open(2, "wb", closefd=False) as screen:
                shutil.copyfileobj(notes, screen)
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
