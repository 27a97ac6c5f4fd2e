"""Reader of PyTorch's files (`pytorch_model.bin`, `ckpt.pt`), which are pickles.

A pickle is a program, and Python's unpickler calls what it names. This reader interprets only the
opcodes that dictionaries, lists, numbers, texts and tensors need; a global is a word that stands
for one of the few things in `_GLOBALS`, never something that is imported or called.

Two formats, both written by `torch.save`:

    zip       NAME/data.pkl, and each storage as NAME/data/KEY, not compressed (since 1.6)
    pre-zip   five pickles (a magic number, the version, facts of the machine, the object, the keys
              of the storages), then for each key the number of elements and the elements

Source: torch/serialization.py, torch/_utils.py and Python's pickletools.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from gpt2.errors import UserError, cannot_read, quoted
from gpt2.interop.stored import Storage, StoredTensor

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
# Bytes; the pickle of the largest GPT-2 with its optimizer's state has less than one megabyte.
_LARGEST_PICKLE = 16 << 20
_STORAGES = {
    "torch DoubleStorage": "float64", "torch FloatStorage": "float32",
    "torch HalfStorage": "float16", "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64", "torch IntStorage": "int32", "torch ShortStorage": "int16",
    "torch CharStorage": "int8", "torch ByteStorage": "uint8", "torch BoolStorage": "bool",
}  # fmt: skip
_REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
_SIZE = "torch Size"
_GLOBALS = {*_STORAGES, *_REBUILD, _PARAMETER, _ORDERED, _SIZE}


def read(path: Path) -> Any:
    """Return what a file holds: dictionaries and lists, numbers and texts, `StoredTensor`s.

    Raises:
        UserError: it is unreadable, cut off, holds anything else, or is not PyTorch's.
    """
    try:
        with open(path, "rb") as file:
            return _read_zip(path) if file.read(2) == b"PK" else _read_pre_zip(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    except _Refused as error:
        raise UserError(f"{path}: {error}. Convert it to safetensors with its program.") from error
    except (
        ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError,
        RuntimeError, struct.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: not a PyTorch checkpoint, or corrupted. Copy or download it again."
        ) from error


def read_pickle(path: Path) -> Any:
    """Return what a plain pickle holds, such as nanoGPT's `meta.pkl`; see `read`."""
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_PICKLE else b""
        return _Interpreter(lambda arguments: None).run(io.BytesIO(content))
    except OSError as error:
        raise cannot_read(path, error) from error
    except (_Refused, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: not a pickle of plain values ({quoted(str(error))}).") from error


class _Refused(Exception):
    """A pickle that asks for more than a state dict needs."""


class _Global(NamedTuple):
    """A name of something outside the pickle."""

    name: str


class _Mark:
    """Where a list or the pairs of a dictionary begin on the stack."""


# --- the two formats ---


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        entries = {entry.filename: entry for entry in archive.infolist()}
        (pickle,) = (name for name in entries if name.endswith("/data.pkl") or name == "data.pkl")
        root = pickle.removesuffix("data.pkl")
        order = root + "byteorder"
        if order in entries and _content(file, entries[order]) != b"little":
            raise _Refused("the numbers are big-endian")

        def place(storage: Storage, key: str) -> None:
            entry = entries[f"{root}data/{key}"]
            if entry.file_size != storage.size:
                raise ValueError("a storage of another size")
            storage.offset = _data_offset(file, entry)

        return _Interpreter(_storages(path, place)).run(io.BytesIO(_content(file, entries[pickle])))


def _content(file: io.BufferedReader, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > _LARGEST_PICKLE:
        raise _Refused(f"{entry.filename} in it has {entry.file_size:,} bytes")
    file.seek(_data_offset(file, entry))
    return file.read(entry.file_size)


def _data_offset(file: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    """Return where the bytes of a file in a zip archive begin."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise _Refused(f"{entry.filename} in it is compressed or encrypted")
    file.seek(entry.header_offset)
    header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    offset = entry.header_offset + 30 + name + extra
    if header[:4] != b"PK\x03\x04" or offset + entry.file_size > file.seek(0, io.SEEK_END):
        raise ValueError("a file beyond the end of the archive")
    return offset


def _read_pre_zip(path: Path) -> Any:
    with open(path, "rb") as file:
        head = io.BytesIO(file.read(_LARGEST_PICKLE))
        pending: dict[str, Storage] = {}
        plain = _Interpreter(lambda arguments: None)
        if (plain.run(head), plain.run(head)) != (_MAGIC, _VERSION):
            raise ValueError("another magic number")
        plain.run(head)  # of the machine: byte order and sizes
        content = _Interpreter(_storages(path, lambda storage, key: _add(pending, storage, key)))
        found = content.run(head)
        keys = plain.run(head)
        offset, size = head.tell(), file.seek(0, io.SEEK_END)
        for key in keys:
            storage = pending.pop(key)
            file.seek(offset)
            if struct.unpack("<q", file.read(8))[0] != storage.elements:
                raise ValueError("a storage of another size")
            storage.offset = offset + 8
            offset = storage.offset + storage.size
            if offset > size:
                raise ValueError("cut off in a storage")
        if pending:
            raise ValueError("a storage without data")
        return found


def _add(pending: dict[str, Storage], storage: Storage, key: str) -> None:
    pending[key] = storage


def _storages(
    path: Path, place: Callable[[Storage, str], None]
) -> Callable[[tuple[Any, ...]], Storage]:
    """Return a function that makes the storage of a persistent id, the same for the same key."""
    known: dict[str, Storage] = {}

    def load(arguments: tuple[Any, ...]) -> Storage:
        kind, storage_type, key, _, elements = arguments[:5]
        if kind != "storage" or any(view is not None for view in arguments[5:]):
            raise _Refused("it refers to something that is not a storage")
        if type(key) is not str or type(elements) is not int or elements < 0:
            raise ValueError("a storage without a key or a size")
        if key not in known:
            storage = Storage(path, _STORAGES[storage_type.name], elements)
            place(storage, key)
            known[key] = storage
        return known[key]

    return load


# --- the pickle ---


class _Interpreter:
    """Interprets the opcodes of plain values and tensors; see pickletools for what each does."""

    def __init__(self, load_storage: Callable[[tuple[Any, ...]], Any]):
        self._load_storage = load_storage

    def run(self, stream: io.BytesIO) -> Any:
        """Return the object of the pickle at the stream's position, which moves behind it."""
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        for opcode, operand, _ in pickletools.genops(stream):
            name, argument = opcode.name, cast(Any, operand)
            if name in ("PROTO", "FRAME"):
                continue
            if name == "STOP":
                return stack.pop()
            if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                stack.append(argument)
            elif name in _EMPTY:
                stack.append(_EMPTY[name]())
            elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if argument is None else argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(_global(argument))
            elif name == "STACK_GLOBAL":
                module, word = _pop(stack, 2)
                stack.append(_global(f"{module} {word}"))
            elif name == "BINPERSID":
                stack.append(self._load_storage(stack.pop()))
            elif name == "REDUCE":
                function, arguments = _pop(stack, 2)
                stack.append(_reduce(function, arguments))
            elif name == "BUILD":
                stack.pop()  # attributes, such as the versions of a state dict's modules
            elif name in _TUPLES:
                stack.append(tuple(_pop(stack, _TUPLES[name])))
            elif name == "TUPLE":
                stack.append(tuple(_pop_to_mark(stack)))
            elif name in ("APPEND", "APPENDS"):
                items = _pop(stack, 1) if name == "APPEND" else _pop_to_mark(stack)
                _check(stack[-1], list).extend(items)
            elif name in ("SETITEM", "SETITEMS"):
                items = _pop(stack, 2) if name == "SETITEM" else _pop_to_mark(stack)
                _set_items(_check(stack[-1], dict), items)
            else:
                raise _Refused(f"its pickle has the opcode {name}, which no state dict needs")
        raise ValueError("a pickle that does not end")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "MARK": _Mark,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _global(name: str) -> _Global:
    if name not in _GLOBALS:
        shown = quoted(name.replace(" ", "."))
        raise _Refused(f"its pickle names {shown}, which no state dict needs; nothing was run")
    return _Global(name)


def _reduce(function: Any, arguments: Any) -> Any:
    """Return what a call of one of `_GLOBALS` stands for."""
    name = _check(function, _Global).name
    arguments = _check(arguments, tuple)
    if name in _REBUILD:
        storage, start, shape, strides = arguments[:4]
        _check(shape, tuple)
        if not all(type(number) is int for number in (start, *_check(strides, tuple))):
            raise ValueError("a tensor with strides that are not numbers")
        return StoredTensor(_check(storage, Storage), shape, strides, start)
    if name == _PARAMETER:
        return _check(arguments[0], StoredTensor)
    if name == _SIZE:
        return tuple(_check(arguments[0], tuple))
    if name == _ORDERED:
        found: dict[Any, Any] = {}
        for pair in arguments[0] if arguments else ():
            _set_items(found, _check(pair, list | tuple))
        return found
    raise _Refused(f"its pickle calls {name.replace(' ', '.')}")


def _check(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError("a value of another kind than the opcode needs")
    return value


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("an empty stack")
    items = stack[-count:]
    del stack[-count:]
    return items


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while not isinstance(stack[-1], _Mark):
        items.append(stack.pop())
    stack.pop()
    return items[::-1]


def _set_items(target: dict[Any, Any], items: Any) -> None:
    keys, values = items[0::2], items[1::2]
    # Only these: the hash of nested tuples may take forever.
    if len(keys) != len(values) or not all(type(key) in (str, int) for key in keys):
        raise ValueError("a dictionary with other keys than texts and numbers")
    target.update(zip(keys, values, strict=True))
