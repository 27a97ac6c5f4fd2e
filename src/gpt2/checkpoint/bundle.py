"""One checkpoint on disk: TensorFlow 1's bundle of tensors found by name.

A checkpoint is known by its prefix, say `models/117M/model.ckpt`, and consists of three files:

    PREFIX.data-00000-of-00001   the numbers, one tensor after the other
    PREFIX.index                 name, type, shape, place and crc32c of each tensor
    PREFIX.meta                  a graph for `tf.compat.v1.train.import_meta_graph`

OpenAI's files hold the 4 + 12 L tensors of `HParams.tensor_shapes` and nothing else, and old
readers depend on that; so do ours. Where an `.index` is, the checkpoint is whole: it comes last
when writing and goes first when removing. The `.meta` is written for old programs, never read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import files
from gpt2.checkpoint import index
from gpt2.checkpoint.crc32c import crc32c, masked
from gpt2.checkpoint.index import Entry
from gpt2.errors import UserError, cannot_write
from gpt2.hparams import RELEASED, HParams

if TYPE_CHECKING:
    import tensorflow as tf

INDEX = ".index"
META = ".meta"
DATA = ".data-00000-of-00001"
WEIGHTS = "model/"


def with_ending(prefix: Path, ending: str) -> Path:
    """The file of a checkpoint that has this ending."""
    return prefix.with_name(prefix.name + ending)


def data_files(prefix: Path) -> list[Path]:
    """The files that hold the numbers: one, unless a program of old spread them over several."""
    pattern = re.compile(re.escape(prefix.name) + r"\.data-\d{5}-of-\d{5}")
    if not prefix.parent.is_dir():
        return []
    return sorted(path for path in prefix.parent.iterdir() if pattern.fullmatch(path.name))


def parts(prefix: Path) -> list[Path]:
    """The files of a checkpoint, the index first, whether they are there or not."""
    return [with_ending(prefix, INDEX), *data_files(prefix), with_ending(prefix, META)]


def fingerprint(prefix: Path) -> str:
    """The sha256 of the `.index`: that of the tensors too, whose names and crc32c are in it.

    Raises:
        UserError: it cannot be read.
    """
    path = with_ending(prefix, INDEX)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


# --- reading ---


def read_index(prefix: Path) -> dict[str, Entry]:
    """Name, shape, type and place of every tensor in a checkpoint, in the order of the names.

    Raises:
        UserError: the `.index` is missing, damaged or of another kind.
    """
    return _index(prefix).entries


def check_index(prefix: Path, hparams: HParams, hparams_path: Path | None = None) -> None:
    """Hold the names, shapes and types in a checkpoint's index against the model's.

    Tensors outside `model/` (a step counter) and an optimizer's beside a weight are let be.

    Raises:
        UserError: they do not agree; `hparams_path` is named as the source of `hparams`.
    """
    _check_entries(prefix, read_index(prefix), hparams, hparams_path)


def check_against(prefix: Path, hparams: HParams, hparams_path: Path | None = None) -> None:
    """Find out whether a checkpoint is whole and fits the model, without loading a tensor.

    Raises:
        UserError: see `check_index`; or the data are missing, or shorter than the index says.
    """
    index_ = _index(prefix)
    _check_entries(prefix, index_.entries, hparams, hparams_path)
    _check_data(prefix, index_)


def read_tensors(
    prefix: Path, hparams: HParams, hparams_path: Path | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Check a checkpoint at once, then load its tensors one by one, in the order of the names.

    Yields names and float32 arrays, the matrices with their leading 1; `dict` gathers them.

    Raises:
        UserError: see `check_against`; while loading: a tensor is not what its crc32c says.
    """
    index_ = _index(prefix)
    _check_entries(prefix, index_.entries, hparams, hparams_path)
    _check_data(prefix, index_)
    return _load(prefix, index_, hparams.tensor_shapes())


def read_all(prefix: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint by name, whatever it belongs to.

    Raises:
        UserError: it is incomplete or damaged, or a tensor is not of numbers.
    """
    index_ = _index(prefix)
    _check_data(prefix, index_)
    return dict(_load(prefix, index_, index_.entries))


def tensor_bytes(path: Path, name: str, entry: Entry) -> np.ndarray:
    """The bytes of one tensor in a data file, held against its crc32c.

    Raises:
        UserError: the file cannot be read, or is not what the index says.
    """
    try:
        content = np.fromfile(path, np.uint8, entry.size, offset=entry.offset)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) != entry.size or masked(crc32c(content)) != entry.crc32c:
        raise UserError(
            f"{path}: the tensor {name} is damaged, its data do not agree with the checksum in "
            f"the {INDEX} file; copy or fetch the checkpoint again."
        )
    return content


def _index(prefix: Path) -> index.Index:
    path = with_ending(prefix, INDEX)
    if not path.is_file():
        raise UserError(f"{path} is missing, so there is no checkpoint {prefix}.")
    return index.read(path)


def _check_entries(
    prefix: Path, entries: dict[str, Entry], hparams: HParams, hparams_path: Path | None
) -> None:
    hparams_path = hparams_path or prefix.parent / "hparams.json"
    if not any(name.startswith(WEIGHTS) for name in entries):
        raise UserError(
            f"{prefix} holds no GPT-2 in OpenAI's form: none of its {len(entries)} tensors is "
            f"named {WEIGHTS}...; give a checkpoint written by this toolkit or one of its kin."
        )
    for name in ("model/wpe", "model/wte"):
        if name not in entries:
            raise _missing_tensor(prefix, name)
        if len(entries[name].shape) != 2:
            raise UserError(
                f"{prefix}: {name} has the shape {list(entries[name].shape)}, which is no table "
                "of positions or tokens; this is not GPT-2."
            )
    # The layers are compared before anything is built from a number in hparams.json.
    layers = {name.split("/")[1] for name in entries if re.match(r"model/h\d+/", name)}
    window, width = entries["model/wpe"].shape
    vocabulary = entries["model/wte"].shape[0]
    held = _in_words(len(layers), width, vocabulary, window)
    told = _in_words(hparams.n_layer, hparams.n_embd, hparams.n_vocab, hparams.n_ctx)
    if held != told:
        known = RELEASED.get((len(layers), width))
        differing = [pair for pair in zip(held, told, strict=True) if pair[0] != pair[1]]
        raise UserError(
            f"{prefix}: this is a {known + ' ' if known else ''}checkpoint "
            f"({', '.join(words for words, _ in differing)}); {hparams_path} says "
            f"{', '.join(words for _, words in differing)}; "
            "bring together the checkpoint and the hparams.json that belong to one model."
        )
    expected = hparams.tensor_shapes()
    for name, shape in expected.items():
        if name not in entries:
            raise _missing_tensor(prefix, name)
        if entries[name].shape != shape:
            raise UserError(
                f"{prefix}: {name} has the shape {list(entries[name].shape)}, where a GPT-2 as "
                f"in {hparams_path} has {list(shape)}; this is a checkpoint of another model."
            )
        if entries[name].dtype != "float32":
            raise UserError(
                f"{prefix}: {name} is of type {entries[name].dtype}, where GPT-2's checkpoints "
                "hold float32; convert it with the program that wrote it."
            )
        if entries[name].size != 4 * math.prod(shape):
            raise UserError(
                f"{prefix}: {name} is stored in several slices; save the checkpoint again with "
                "variables that are not partitioned."
            )
    for name in entries:
        if name.startswith(WEIGHTS) and name not in expected and not _is_slot(name, expected):
            raise UserError(
                f"{prefix} holds {name}, which GPT-2 does not have; this is a checkpoint of "
                "another model."
            )


def _in_words(layers: int, width: int, vocabulary: int, window: int) -> list[str]:
    return [
        f"{layers} layer{'s' if layers != 1 else ''}, width {width}",
        f"vocabulary {vocabulary}",
        f"window {window}",
    ]


def _is_slot(name: str, weights: Mapping[str, object]) -> bool:
    """Whether it is an optimizer's, such as model/wte/Adam."""
    return name.rpartition("/")[0] in weights


def _missing_tensor(prefix: Path, name: str) -> UserError:
    return UserError(
        f"{prefix} lacks the tensor {name}; it is not a whole GPT-2, so copy or fetch it again."
    )


def _check_data(prefix: Path, index_: index.Index) -> None:
    ends: dict[Path, list[tuple[int, str]]] = defaultdict(list)  # of the tensors in each data file
    for name, entry in index_.entries.items():
        path = _data_file(prefix, entry.shard, index_.shards)
        ends[path].append((entry.offset + entry.size, name))
    for path, tensors in ends.items():
        if not path.is_file():
            raise UserError(
                f"{path} is missing, without which {prefix}{INDEX} is of no use; copy or fetch it "
                "too."
            )
        present = path.stat().st_size
        claimed, _ = max(tensors)
        if present < claimed:
            _, cut = min(tensor for tensor in tensors if tensor[0] > present)
            raise UserError(
                f"{path} is cut off after {present:,} of {claimed:,} bytes, in the tensor {cut}; "
                "copy or fetch it again."
            )


def _data_file(prefix: Path, shard: int, shards: int) -> Path:
    return with_ending(prefix, f".data-{shard:05}-of-{shards:05}")


def _load(
    prefix: Path, index_: index.Index, names: Iterable[str]
) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        entry = index_.entries[name]
        path = _data_file(prefix, entry.shard, index_.shards)
        content = tensor_bytes(path, name, entry)
        try:
            yield name, content.view(np.dtype(entry.dtype).newbyteorder("<")).reshape(entry.shape)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{prefix}{INDEX}: the tensor {name} is of type {entry.dtype}, which is not read "
                "here; take the checkpoint it was made from."
            ) from error


# --- writing ---


def write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray | tf.Variable]) -> None:
    """Write these tensors as float32, and nothing else, to the checkpoint `prefix`.

    What was at `prefix` before is gone once the new files are complete and get their names.

    Raises:
        UserError: they cannot be written; no part of them is left.
    """
    with staged(prefix, tensors) as partial:
        place(partial, prefix)


@contextlib.contextmanager
def staged(
    prefix: Path, tensors: Mapping[str, np.ndarray | tf.Variable], legacy: bool = True
) -> Iterator[Path]:
    """Write a checkpoint beside `prefix`, flushed to the disk, for `place` to put into place.

    Yields the prefix that it lies at until the block ends, when what is not placed is deleted.

    Args:
        legacy: for old programs, everything is float32 and there is a `.meta`; otherwise each
            tensor keeps its type and there is none.

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
                    prefix=str(partial),
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
    """Give a staged checkpoint its name.

    What was at `prefix` goes first, so that at no instant files of two checkpoints are a pair.

    Raises:
        UserError: the file system refuses; nothing is left at `prefix` then.
    """
    with replacing(prefix, remove):
        for ending in (DATA, META, INDEX):
            if with_ending(partial, ending).is_file():
                files.move_into_place(with_ending(partial, ending), with_ending(prefix, ending))


@contextlib.contextmanager
def replacing(prefix: Path, remove: Callable[[Path], None]) -> Iterator[None]:
    """Remove what is at `prefix`, and again what the block has put there if it fails.

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
    """Delete the files of a checkpoint, the index first; those not there are no error."""
    for path in parts(prefix):
        path.unlink(missing_ok=True)


@functools.lru_cache(maxsize=2)
def _meta_graph(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> bytes:
    """A serialised MetaGraphDef of these variables and a saver that restores them."""
    import tensorflow as tf

    with tf.Graph().as_default():
        for name, shape in shapes:
            # Variables of the old kind, since TensorFlow 1 is what reads this.
            tf.compat.v1.get_variable(
                name, shape, initializer=tf.compat.v1.zeros_initializer(), use_resource=False
            )
        saver = tf.compat.v1.train.Saver()
        return saver.export_meta_graph(strip_default_attrs=True).SerializeToString(
            deterministic=True
        )
