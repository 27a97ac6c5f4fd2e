"""How a command ends: its exit code, and one sentence on standard error when something is wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from gpt2.commands import signals, streams
from gpt2.errors import UserError, escaped

OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED = signals.INTERRUPTED


class UsageError(Exception):
    """The command line itself is wrong. The sentence has no period; a hint at --help follows."""


def run(command: Callable[[], None], program: str) -> NoReturn:
    """Run a command and exit: 0 on success, 1 if the user must act, 2 for a wrong command line.

    Args:
        program: how the command was called, for the sentence on wrong usage.
    """
    streams.prepare()
    signals.end_on_termination()
    code = OK
    try:
        _check_current_folder()
        try:
            command()
        except SystemExit as ended:  # help was shown, or some of the prompts were invalid
            code = ended.code if isinstance(ended.code, int) else OK
        streams.finish()
    except UsageError as error:
        fail(f"{program}: {error}; see {program} --help.", USAGE)
    except (UserError, streams.OutputError) as error:
        fail(str(error))
    except KeyboardInterrupt as interrupt:
        print(f"\n{escaped(str(interrupt)) or 'interrupted'}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(FAILED)  # the reader of our output (head, less) is gone
    except OSError as error:
        # A path that the system refuses for a reason of its own: too long a name, no permission.
        if error.filename is None:
            _check_current_folder()  # it may have been deleted meanwhile
            report_bug()
        fail(f"{os.fsdecode(error.filename)}: {error.strerror}. Check the path.")
    except Exception:
        report_bug()
    sys.exit(code)


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        fail("The current folder: it has been deleted. Change to another folder.")


def fail(sentence: str, code: int = FAILED) -> NoReturn:
    """Print one sentence on standard error, with control characters escaped, and exit."""
    print(escaped(sentence), file=sys.stderr)
    sys.exit(code)


def report_bug() -> NoReturn:
    """Print the current exception as a bug report and exit with code 1."""
    lines = traceback.format_exc().splitlines()
    print(
        "Internal error. This is a bug in retrain-gpt2; please report it with the command and the "
        "lines below.",
        *map(escaped, lines),
        sep="\n",
        file=sys.stderr,
    )
    sys.exit(FAILED)
