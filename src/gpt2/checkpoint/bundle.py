"""One checkpoint on disk: a TensorFlow 1 bundle of named tensors.

A checkpoint is identified by its prefix, such as `models/117M/model.ckpt`, and has three files:

    PREFIX.data-00000-of-00001   the values, one tensor after the other
    PREFIX.index                 name, type, shape, offset and crc32c of each tensor
    PREFIX.meta                  a graph for `tf.compat.v1.train.import_meta_graph`

OpenAI's files hold the 4 + 12 L tensors of `HParams.tensor_shapes` and nothing else, which old
readers depend on, so ours hold the same. A checkpoint with an `.index` is complete, as the index is
written last and removed first. The `.meta` is written for old programs and never read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import files
from gpt2.checkpoint import index
from gpt2.checkpoint.crc32c import crc32c, masked
from gpt2.checkpoint.index import Entry
from gpt2.errors import UserError, cannot_read, cannot_write
from gpt2.hparams import RELEASED, HParams

if TYPE_CHECKING:
    import tensorflow as tf

INDEX = ".index"
META = ".meta"
DATA = ".data-00000-of-00001"
WEIGHTS = "model/"


def with_ending(prefix: Path, ending: str) -> Path:
    """Return the path of the file of a checkpoint that has this ending."""
    return prefix.with_name(prefix.name + ending)


def data_files(prefix: Path) -> list[Path]:
    """Return the files that hold the values: one, or several if an old program sharded them."""
    pattern = re.compile(re.escape(prefix.name) + r"\.data-\d{5}-of-\d{5}")
    if not prefix.parent.is_dir():
        return []
    return sorted(path for path in prefix.parent.iterdir() if pattern.fullmatch(path.name))


def parts(prefix: Path) -> list[Path]:
    """Return the paths of a checkpoint's files, the index first; they need not exist."""
    return [with_ending(prefix, INDEX), *data_files(prefix), with_ending(prefix, META)]


def fingerprint(prefix: Path) -> str:
    """Return the sha256 of the `.index`, which holds the name and crc32c of every tensor.

    Raises:
        UserError: the `.index` cannot be read.
    """
    path = with_ending(prefix, INDEX)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error


# --- reading ---


def read_index(prefix: Path) -> dict[str, Entry]:
    """Return shape, type and offset of every tensor in a checkpoint, sorted by name.

    Raises:
        UserError: the `.index` is missing, corrupted or another kind of file.
    """
    return _index(prefix).entries


def check_index(prefix: Path, hparams: HParams, hparams_path: Path | None = None) -> None:
    """Check the names, shapes and types in a checkpoint's index against the model's.

    Tensors outside `model/` (a step counter) and optimizer slots beside a weight are ignored.

    Raises:
        UserError: they differ; the message names `hparams_path` as the source of `hparams`.
    """
    _check_entries(prefix, read_index(prefix), hparams, hparams_path)


def check_against(prefix: Path, hparams: HParams, hparams_path: Path | None = None) -> None:
    """Check that a checkpoint is complete and fits the model, without loading a tensor.

    Raises:
        UserError: see `check_index`; or a data file is missing or shorter than the index says.
    """
    index_ = _index(prefix)
    _check_entries(prefix, index_.entries, hparams, hparams_path)
    _check_data(prefix, index_)


def tensor_reader(
    prefix: Path, hparams: HParams, hparams_path: Path | None = None
) -> Callable[[str], np.ndarray]:
    """Check a checkpoint, then return a function that loads a tensor by its name.

    Raises:
        UserError: see `check_against`; while loading: a tensor does not match its crc32c, or
            contains NaN or infinite values.
    """
    index_ = _index(prefix)
    _check_entries(prefix, index_.entries, hparams, hparams_path)
    _check_data(prefix, index_)

    def read(name: str) -> np.ndarray:
        return _finite(prefix, name, _load(prefix, index_, name))

    return read


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint by name, sorted; each is read when it is asked for.

    They are float32 arrays, matrices with their leading dimension of 1. Only the last one is kept,
    for models that are as large as the memory; `dict` reads all.
    """

    def __init__(self, prefix: Path, hparams: HParams, hparams_path: Path | None = None):
        """Check the checkpoint; errors are those of `tensor_reader`, also when reading."""
        self._read = functools.lru_cache(maxsize=1)(tensor_reader(prefix, hparams, hparams_path))
        self._names = list(hparams.tensor_shapes())  # checked against the index

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _finite(prefix: Path, name: str, tensor: np.ndarray) -> np.ndarray:
    """Return a tensor after checking that it has no NaN and no infinite value."""
    values = tensor.reshape(-1)
    # A dot product is the fastest way to look at every value; large finite ones overflow it.
    with np.errstate(over="ignore", invalid="ignore"):
        overflows = not np.isfinite(np.dot(values, values))
    if overflows and not np.isfinite(values).all():
        raise UserError(
            f"{prefix}: tensor {name} contains NaN or infinite values, as after a training that "
            "diverged. Use an earlier checkpoint."
        )
    return tensor


def read_all(prefix: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a checkpoint by name; see `any_tensor_reader`."""
    entries, read = any_tensor_reader(prefix)
    return {name: read(name) for name in entries}


def any_tensor_reader(prefix: Path) -> tuple[dict[str, Entry], Callable[[str], np.ndarray]]:
    """Return the entries of a checkpoint of any model, and a function that loads a tensor by name.

    Tensors keep their shape and numeric type, but bfloat16 becomes float32.

    Raises:
        UserError: it is incomplete or corrupted; while loading: a tensor is not numeric, is stored
            in slices, or does not match its crc32c.
    """
    index_ = _index(prefix)
    _check_data(prefix, index_)
    return index_.entries, lambda name: _load(prefix, index_, name)


def tensor_bytes(path: Path, name: str, entry: Entry) -> np.ndarray:
    """Return the bytes of one tensor in a data file after verifying its crc32c.

    Raises:
        UserError: the file cannot be read, or the bytes do not match the checksum.
    """
    try:
        content = np.fromfile(path, np.uint8, entry.size, offset=entry.offset)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(content) != entry.size or masked(crc32c(content)) != entry.crc32c:
        raise UserError(
            f"{path}: the tensor {name} is damaged (it does not match its checksum in the {INDEX} "
            "file). Copy or download the checkpoint again."
        )
    return content


def _index(prefix: Path) -> index.Index:
    path = with_ending(prefix, INDEX)
    if not path.is_file():
        raise UserError(f"{path} is missing; there is no checkpoint {prefix}.")
    return index.read(path)


def _check_entries(
    prefix: Path, entries: dict[str, Entry], hparams: HParams, hparams_path: Path | None
) -> None:
    hparams_path = hparams_path or prefix.parent / "hparams.json"
    if not any(name.startswith(WEIGHTS) for name in entries):
        raise UserError(
            f"{prefix}: not an OpenAI-format GPT-2 checkpoint (missing tensor model/wte). Use a "
            "checkpoint written by this toolkit or another one based on OpenAI's code."
        )
    for name in ("model/wpe", "model/wte"):
        if name not in entries:
            raise _missing_tensor(prefix, name)
        if len(entries[name].shape) != 2:
            raise UserError(
                f"{prefix}: not a GPT-2 checkpoint (tensor {name} has shape "
                f"{list(entries[name].shape)}; expected two dimensions)."
            )
    # Compare the sizes before anything is built from a number in hparams.json.
    layers = {name.split("/")[1] for name in entries if re.match(r"model/h\d+/", name)}
    n_ctx, n_embd = entries["model/wpe"].shape
    n_vocab = entries["model/wte"].shape[0]
    found = {"n_layer": len(layers), "n_embd": n_embd, "n_vocab": n_vocab, "n_ctx": n_ctx}
    wrong = [name for name, size in found.items() if size != getattr(hparams, name)]
    if wrong:
        known = RELEASED.get((len(layers), n_embd))
        raise UserError(
            f"{prefix}: {known + ' ' if known else ''}checkpoint with "
            f"{', '.join(f'{name} {found[name]}' for name in wrong)}, but {hparams_path} says "
            f"{', '.join(f'{name} {getattr(hparams, name)}' for name in wrong)}. "
            "Use the checkpoint and the hparams.json of one model."
        )
    expected = hparams.tensor_shapes()
    for name, shape in expected.items():
        if name not in entries:
            raise _missing_tensor(prefix, name)
        if entries[name].shape != shape:
            raise UserError(
                f"{prefix}: tensor {name} has shape {list(entries[name].shape)}; expected "
                f"{list(shape)} according to {hparams_path}. This is a checkpoint of another model."
            )
        if entries[name].dtype != "float32":
            raise UserError(
                f"{prefix}: tensor {name} is {entries[name].dtype}; expected float32. Convert it "
                "with the program that wrote it."
            )
        if entries[name].size != 4 * math.prod(shape):
            raise UserError(
                f"{prefix}: tensor {name} is stored in several slices. Save the checkpoint again "
                "without partitioned variables."
            )
    for name in entries:
        if name.startswith(WEIGHTS) and name not in expected and not _is_slot(name, expected):
            raise UserError(
                f"{prefix}: unexpected tensor {name}, which GPT-2 does not have. This is a "
                "checkpoint of another model."
            )


def _is_slot(name: str, weights: Mapping[str, object]) -> bool:
    """Return whether a tensor is an optimizer slot, such as model/wte/Adam."""
    return name.rpartition("/")[0] in weights


def _missing_tensor(prefix: Path, name: str) -> UserError:
    return UserError(
        f"{prefix}: missing tensor {name}; the checkpoint is incomplete. Copy or download it again."
    )


def _check_data(prefix: Path, index_: index.Index) -> None:
    ends: dict[Path, list[tuple[int, str]]] = defaultdict(list)  # of the tensors, by data file
    for name, entry in index_.entries.items():
        path = _data_file(prefix, entry.shard, index_.shards)
        ends[path].append((entry.offset + entry.size, name))
    for path, tensors in ends.items():
        if not path.is_file():
            raise UserError(f"{path} is missing; {prefix}{INDEX} needs it. Copy or download it.")
        present = path.stat().st_size
        claimed, _ = max(tensors)
        if present < claimed:
            _, cut = min(tensor for tensor in tensors if tensor[0] > present)
            raise UserError(
                f"{path} is cut off after {present:,} of {claimed:,} bytes, in the tensor {cut}. "
                "Copy or download it again."
            )


def _data_file(prefix: Path, shard: int, shards: int) -> Path:
    return with_ending(prefix, f".data-{shard:05}-of-{shards:05}")


def _load(prefix: Path, index_: index.Index, name: str) -> np.ndarray:
    entry = index_.entries[name]
    path = _data_file(prefix, entry.shard, index_.shards)
    if not entry.size and 0 not in entry.shape:
        raise UserError(
            f"{prefix}: tensor {name} is stored in several slices. Save the checkpoint again "
            "without partitioned variables."
        )
    content = tensor_bytes(path, name, entry)
    if entry.dtype == "bfloat16":
        return from_bfloat16(content.view("<u2")).reshape(entry.shape)
    try:
        return content.view(np.dtype(entry.dtype).newbyteorder("<")).reshape(entry.shape)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{prefix}{INDEX}: tensor {name} has the unsupported type {entry.dtype}."
        ) from error


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers, given as uint16, as float32: their bits are its upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


# --- writing ---


def write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray | tf.Variable]) -> None:
    """Write these tensors as float32, and nothing else, to the checkpoint `prefix`.

    An existing checkpoint at `prefix` is replaced once the new files are complete.

    Raises:
        UserError: they cannot be written; no partial file is left.
    """
    with staged(prefix, tensors) as partial:
        place(partial, prefix)


def write_streamed(
    prefix: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray]
) -> None:
    """Write a new checkpoint with one tensor in memory at a time, for use in an atomic folder.

    It needs no TensorFlow; `write_meta` adds the third file. All are the same, byte for byte, as
    `write_bundle` makes of the same tensors.

    Args:
        shapes: shape of each tensor by name.
        read: returns a tensor by its name, converted to float32 here.

    Raises:
        UserError: they cannot be written.
    """
    shapes = dict(sorted(shapes.items()))
    entries = {}
    try:
        with open(with_ending(prefix, DATA), "wb") as file:
            for name, shape in shapes.items():
                values = np.ascontiguousarray(read(name), "<f4").reshape(shape)
                checksum = masked(crc32c(values))
                entries[name] = Entry(shape, "float32", 0, file.tell(), values.nbytes, checksum)
                file.write(values.data if values.nbytes else b"")
        with_ending(prefix, INDEX).write_bytes(index.table(entries))
    except OSError as error:
        raise cannot_write(prefix, error) from error


def write_meta(prefix: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the `.meta` of a checkpoint of such tensors, as old programs expect; see `staged`.

    Raises:
        UserError: it cannot be written.
    """
    meta = _meta_graph(tuple(sorted(shapes.items())))
    try:
        with_ending(prefix, META).write_bytes(meta)
    except OSError as error:
        raise cannot_write(prefix, error) from error


@contextlib.contextmanager
def staged(
    prefix: Path, tensors: Mapping[str, np.ndarray | tf.Variable], legacy: bool = True
) -> Iterator[Path]:
    """Write a checkpoint under a temporary prefix beside `prefix`, flushed to the disk.

    Yields the temporary prefix; `place` renames it. At the end of the block, files that were not
    placed are deleted.

    Args:
        legacy: convert every tensor to float32 and write a `.meta`, as old programs expect;
            otherwise each tensor keeps its type and there is no `.meta`.

    Raises:
        UserError: it cannot be written.
    """
    import tensorflow as tf

    partial = files.partial_path(prefix)
    names = sorted(tensors)
    try:
        try:
            with tf.device("/CPU:0"):
                dtype = tf.float32 if legacy else None
                values = [tf.convert_to_tensor(tensors[name], dtype) for name in names]
                tf.raw_ops.SaveV2(
                    prefix=os.fsencode(partial),
                    tensor_names=names,
                    shape_and_slices=[""] * len(names),
                    tensors=values,
                )
            shapes = tuple((n, tuple(v.shape)) for n, v in zip(names, values, strict=True))
            del values
            if legacy:
                with_ending(partial, META).write_bytes(_meta_graph(shapes))
            for path in parts(partial):
                if path.is_file():
                    files.sync(path)
        except tf.errors.OpError as error:
            # "[function] file; reason [operation]"
            reason = re.sub(r" \[Op:\w+\]$", "", error.message.rpartition("; ")[2])
            raise cannot_write(prefix, OSError(reason)) from error
        except OSError as error:
            raise cannot_write(prefix, error) from error
        yield partial
    finally:
        for path in prefix.parent.glob(f"*{files.PARTIAL}.*"):
            if path.name.startswith(partial.name):
                with contextlib.suppress(OSError):
                    path.unlink()


def place(partial: Path, prefix: Path) -> None:
    """Rename a staged checkpoint to its final prefix.

    An existing checkpoint is removed first, so that files of two checkpoints are never mixed.

    Raises:
        UserError: the file system refuses; then nothing is left at `prefix`.
    """
    with replacing(prefix, remove):
        for ending in (DATA, META, INDEX):
            if with_ending(partial, ending).is_file():
                files.move_into_place(with_ending(partial, ending), with_ending(prefix, ending))


@contextlib.contextmanager
def replacing(prefix: Path, remove: Callable[[Path], None]) -> Iterator[None]:
    """Remove what is at `prefix` before the block, and again if the block fails.

    Raises:
        UserError: the file system refuses.
    """
    try:
        remove(prefix)
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(prefix)
        if isinstance(error, OSError):
            raise cannot_write(prefix, error) from error
        raise


def remove(prefix: Path) -> None:
    """Delete the files of a checkpoint, the index first; missing files are ignored."""
    for path in parts(prefix):
        path.unlink(missing_ok=True)


@functools.lru_cache(maxsize=2)
def _meta_graph(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> bytes:
    """Return a serialized MetaGraphDef of these variables and a saver that restores them."""
    import tensorflow as tf

    with tf.Graph().as_default():
        for name, shape in shapes:
            # Reference variables, since TensorFlow 1 reads this graph.
            tf.compat.v1.get_variable(
                name, shape, initializer=tf.compat.v1.zeros_initializer(), use_resource=False
            )
        saver = tf.compat.v1.train.Saver()
        return saver.export_meta_graph(strip_default_attrs=True).SerializeToString(
            deterministic=True
        )
