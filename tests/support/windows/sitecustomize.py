"""Makes this Linux process look like Windows to the toolkit, as far as that goes in Python.

Python imports this module at the start of every process that has its folder in PYTHONPATH.

- The toolkit's modules see `sys.platform`, `os.name` and the attributes of `os`, `signal`, `time`
  and `socket` as they are on Windows, find `msvcrt`, and cannot import the modules of POSIX.
- For everybody, a file that is open in this process cannot be deleted, renamed or replaced, an
  existing file is not replaced by `os.rename`, names that Windows refuses cannot be created, and
  text files without an encoding are cp1252, with \\r\\n where no line ends are given.

Paths stay those of Linux: pathlib cannot be switched. Nothing that C++ code does is changed.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

POSIX_MODULES = (
    *("fcntl", "termios", "tty", "pty", "pwd", "grp", "resource", "readline", "syslog", "curses"),
    *("posix", "posixpath", "_posixsubprocess", "crypt", "nis", "spwd"),
)
POSIX_ATTRIBUTES = {
    "os": (
        *("fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "getgroups", "setsid"),
        *("setpgid", "getpgid", "getpgrp", "killpg", "uname", "sched_getaffinity", "getloadavg"),
        *("sysconf", "confstr", "chown", "fchown", "lchown", "fchmod", "mkfifo", "mknod", "wait"),
        *("pread", "pwrite", "posix_fadvise", "posix_fallocate", "sendfile", "statvfs", "fstatvfs"),
        *("fdatasync", "sync", "ttyname", "openpty", "nice", "register_at_fork", "WNOHANG"),
        *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_SYNC", "tcgetpgrp"),
        *("getpriority", "chroot", "fchdir", "ctermid", "memfd_create", "eventfd", "pipe2"),
    ),
    "signal": (
        *("SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD"),
        *("SIGTSTP", "SIGCONT", "SIGWINCH", "pthread_kill", "pthread_sigmask", "pause", "alarm"),
        *("setitimer", "sigwait", "siginterrupt"),
    ),
    "time": ("tzset", "pthread_getcpuclockid", "clock_gettime", "CLOCK_MONOTONIC"),
    "socket": ("AF_UNIX", "socketpair_unix", "SO_REUSEPORT"),
    "select": ("poll", "epoll", "kqueue"),
}
_BAD_NAME = re.compile(r'.*[<>:"|?*\x00-\x1f].*|.*[ .]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?', re.I)


class _Disguise(types.ModuleType):
    """A module without some attributes and with others; the rest are those of the real one."""

    def __init__(self, real: types.ModuleType, hidden: tuple[str, ...], **changed: Any):
        super().__init__(real.__name__)
        vars(self).update(_real=real, _hidden=hidden, _changed=changed)

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(f"module {self._real.__name__!r} has no attribute {name!r}")
        return self._changed[name] if name in self._changed else getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


# --- what the toolkit sees ---


def _open_descriptor(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
    return os.open(path, flags, mode, **options)


def _popen(*arguments: Any, creationflags: int = 0, **options: Any) -> subprocess.Popen:
    assert "start_new_session" not in options, "Windows has no sessions"
    return subprocess.Popen(*arguments, start_new_session=bool(creationflags), **options)


class _Msvcrt(types.ModuleType):
    LK_NBLCK = 2

    @staticmethod
    def locking(descriptor: int, mode: int, size: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_CHANGED: dict[str, dict[str, Any]] = {
    "os": {"name": "nt", "open": _open_descriptor},
    "sys": {"platform": "win32"},
    "signal": {"SIGBREAK": signal.SIGUSR1, "CTRL_BREAK_EVENT": signal.SIGUSR1},
    "subprocess": {"CREATE_NEW_PROCESS_GROUP": 512, "Popen": _popen},
}
_disguises: dict[str, types.ModuleType] = {"msvcrt": _Msvcrt("msvcrt")}
_import = builtins.__import__


def _import_as_on_windows(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> types.ModuleType:
    importer = (globals or {}).get("__name__", "")
    if importer != "gpt2" and not importer.startswith("gpt2."):
        return _import(name, globals, locals, fromlist, level)
    if name in POSIX_MODULES:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if name in POSIX_ATTRIBUTES or name in _CHANGED or name in _disguises:
        if name not in _disguises:
            hidden = POSIX_ATTRIBUTES.get(name, ())
            real = _import(name)
            _disguises[name] = _Disguise(real, hidden, **_CHANGED.get(name, {}))
        return _disguises[name]
    return _import(name, globals, locals, fromlist, level)


# --- what everybody gets ---


def _full(path: Any, folder: int | None = None) -> str:
    path = os.fsdecode(path)
    if folder is not None:
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))


def _open_files() -> set[str]:
    found = set()
    for descriptor in _listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # that of the listing itself
            continue
    with _open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        found |= {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/" in line}
    return found


def _refuse_open(path: str) -> None:
    # A folder with an open file in it cannot be renamed, either.
    if any(name == path or name.startswith(path + "/") for name in _open_files()):
        raise PermissionError(errno.EACCES, "The file is being used by another process", path)


def _refuse_name(path: Any) -> None:
    if isinstance(path, int):
        return
    name = os.path.basename(os.fsdecode(path))
    if name and not str(path).startswith(("/proc", "/dev")) and _BAD_NAME.fullmatch(name):
        raise OSError(errno.EINVAL, "Invalid argument", os.fsdecode(path))


def _removing(real: Callable) -> Callable:
    def remove(path: Any, *, dir_fd: int | None = None) -> None:
        _refuse_open(_full(path, dir_fd))
        real(path, dir_fd=dir_fd)

    return remove


def _renaming(real: Callable, replaces: bool) -> Callable:
    def rename(source: Any, target: Any, **options: Any) -> None:
        _refuse_name(target)
        for path in (source, target):
            _refuse_open(_full(path))
        if not replaces and os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "The file exists", os.fsdecode(target))
        real(source, target, **options)

    return rename


def _make_folder(path: Any, *arguments: Any, **options: Any) -> None:
    if os.path.basename(os.fsdecode(path)) != "..":
        _refuse_name(path)
    _mkdir(path, *arguments, **options)


def _open_file(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *more: Any,
    **options: Any,
) -> Any:
    writes = set(mode) & set("wax+")
    if writes:
        _refuse_name(file)
    if "b" not in mode:
        encoding = "cp1252" if encoding in (None, "locale") else encoding
        newline = "\r\n" if newline is None and writes and "+" not in mode else newline
    return _open(file, mode, buffering, encoding, errors, newline, *more, **options)


_open, _mkdir, _listdir = open, os.mkdir, os.listdir

builtins.__import__ = _import_as_on_windows
builtins.open = io.open = _open_file
os.mkdir = _make_folder
os.unlink = _removing(os.unlink)
os.remove = os.unlink
os.rename = _renaming(os.rename, replaces=False)
os.replace = _renaming(os.replace, replaces=True)
assert sys.platform.startswith("linux"), Path.cwd()
