"""Signals at the worst moments: between any two lines of the toolkit, or inside a system call."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import gpt2

SOURCES = gpt2.__path__[0]


def interrupted(enter: Callable[[], AbstractContextManager]) -> Iterator[int]:
    """Enter a context again and again, interrupted at each line before its block begins.

    Yields the number of the line after each interruption.
    """
    for number in itertools.count(1):
        left = number

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(SOURCES):
                return None
            left -= event == "line"
            if not left:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        try:
            sys.settrace(trace)
            with enter():
                sys.settrace(None)
                return
        except KeyboardInterrupt:
            yield number
        finally:
            sys.settrace(None)


def failing_after(function: Callable[..., Any], matches: Callable[[str], bool]) -> Callable:
    """Return a function that works, and is then interrupted the first time a path matches."""
    waiting = [KeyboardInterrupt]

    def interrupted_call(path: Any, *arguments: Any, **options: Any) -> Any:
        result = function(path, *arguments, **options)
        if waiting and matches(str(path)):
            raise waiting.pop()
        return result

    return interrupted_call
