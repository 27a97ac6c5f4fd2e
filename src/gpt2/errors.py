"""The one error type for what a user did or has."""

from __future__ import annotations


class UserError(Exception):
    """Something the user did, or a file the user has, that cannot be worked with.

    Its text is one sentence for that user: what happened, where, what to do.
    The commands print it on standard error and exit with code 1; any other
    exception is a bug of ours and keeps its traceback.
    """
