"""Every reader of foreign files: valid files to begin with, and what reading one means."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from gpt2 import files
from gpt2.checkpoint import bundle, folder, index
from gpt2.data import npz
from gpt2.generation.prompts import read_prompts
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer, train_vocabulary
from tests.fuzz import index_files
from tests.fuzz.index_files import Block

TINY = HParams(n_vocab=270, n_ctx=8, n_embd=4, n_head=2, n_layer=1)


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        seeds: contents that it reads.
        read: reads a folder's file; raises UserError, or AssertionError for a wrong result.
        file: what the file is called.
        wraps: what may be done to a mutated content, such as giving it its right checksums.
        made_up: contents of the right form and any meaning.
        beside: other files of the folder.
    """

    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    file: str
    made_up: st.SearchStrategy[bytes]
    wraps: Sequence[Callable[[bytes], bytes]] = (bytes,)
    beside: Sequence[tuple[str, bytes]] = ()


def readers() -> dict[str, Reader]:
    """The readers by name."""
    data, entries = tiny_checkpoint()
    whole_index = index_files.table(entries)
    block = index_files.pairs([(b"", index_files.HEADER), *entries])
    vocabulary, merges = train_vocabulary(["so much text in so few words, so it is " * 9], 270)
    encoder = json.dumps(vocabulary).encode()
    merged = "\n".join(["#version: 0.2", *map(" ".join, merges), ""]).encode()
    state = b'model_checkpoint_path: "model-7"\nall_model_checkpoint_paths: "model-7"\n'
    hparams = json.dumps(vars(TINY)).encode()
    return {
        "index": Reader(
            [whole_index, block], lambda path: index.read(path), "m.index", INDEXES, (bytes, sealed)
        ),
        "index and data": Reader(
            [block],
            _read_tensors,
            "m.index",
            INDEXES,
            (sealed,),
            [("m" + bundle.DATA, data)],
        ),
        "data": Reader(
            [data],
            _read_tensors,
            "m" + bundle.DATA,
            st.binary(max_size=300),
            beside=[("m.index", whole_index)],
        ),
        "checkpoint": Reader(
            [state],
            _read_state,
            "checkpoint",
            STATES,
            beside=[("model-7" + bundle.DATA, data), ("model-7.index", whole_index)],
        ),
        "hparams.json": Reader([hparams], HParams.load, "hparams.json", JSON),
        "encoder.json": Reader(
            [b'{"a": 0, "<|endoftext|>": 1}', encoder],
            _read_vocabulary,
            "encoder.json",
            JSON,
            beside=[("vocab.bpe", merged)],
        ),
        "vocab.bpe": Reader(
            [merged],
            _read_vocabulary,
            "vocab.bpe",
            st.text().map(_utf8),
            beside=[("encoder.json", encoder)],
        ),
        "npz": Reader(_npz_files(), _read_npz, "tokens.npz", NPZS, (bytes, zipped)),
        "prompts": Reader(
            [b"one\ntwo\n", b"a\nb\n---\nc\n", b'{"prompt": "x", "n": 1}\n{"prompt": "y"}\n'],
            _read_prompts,
            "prompts.txt",
            st.lists(JSON, max_size=3).map(b"\n".join),
        ),
    }


# --- reading ---


def _read_tensors(path: Path) -> None:
    for name, array in bundle.read_tensors(path.parent / "m", TINY, Path("hparams.json")):
        assert array.shape == TINY.tensor_shapes()[name]


def _read_state(path: Path) -> None:
    names = folder.listed_checkpoints(path.parent)
    for name in names:
        for part in bundle.parts(path.parent / name):
            assert part.parent == path.parent, f"{name!r} leads to {part}"
    folder.latest_checkpoint(path.parent)


def _read_vocabulary(path: Path) -> None:
    tokenizer = Tokenizer.load(path.parent)
    tokenizer.decode([0, 1, 5, 10**9])
    tokenizer.encode("so few words<|endoftext|>")


def _read_npz(path: Path) -> None:
    for chunk in npz.read(path, 300):
        assert chunk.ndim == 1
        assert chunk.dtype == np.uint16
        assert (chunk < 300).all()


def _read_prompts(path: Path) -> None:
    for prompt in read_prompts(files.read_text(path), path.name):
        if isinstance(prompt, Exception):
            assert "\n" not in str(prompt)
        else:
            assert isinstance(prompt.text, str)


# --- valid contents ---


def tiny_checkpoint() -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The data of a checkpoint of `TINY`, and the keys and values of its index."""
    data, entries = b"", []
    random = np.random.default_rng(3)
    for name, shape in TINY.tensor_shapes().items():
        tensor = random.standard_normal(shape).astype("<f4").tobytes()
        crc = index_files.masked(index_files.crc32c(tensor))
        entries.append((name.encode(), index_files.entry(shape, offset=len(data), crc=crc)))
        data += tensor
    return data, entries


def _npz_files() -> list[bytes]:
    contents = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, np.arange(50), np.arange(299, -1, -1))
        contents.append(file.getvalue())
    file = io.BytesIO()
    np.save(file, np.arange(20))
    return [*contents, file.getvalue()]


# --- contents of the right form ---


def sealed(content: bytes) -> bytes:
    """An index of this block, with the right checksums."""
    return index_files.table(Block(content))


def zipped(content: bytes) -> bytes:
    """An archive of this array, with the right checksum."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", content)
    return file.getvalue()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_numbers = st.one_of(st.integers(0, 300), st.integers(-(2**63), 2**63), st.just(10**12))
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_keys = st.sampled_from([*vars(TINY), "prompt", "<|endoftext|>", "Ġ"]) | st.text(max_size=5)
JSON = (st.dictionaries(_keys, _numbers | _values, max_size=6) | _values).map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)
STATES = st.lists(
    st.tuples(
        st.sampled_from(["model_checkpoint_path", "all_model_checkpoint_paths"]),
        st.lists(st.sampled_from(["..", ".", "/", "\\\\", "etc", "C:", "\\0", "é", "m"])).map(
            "".join
        )
        | st.text(max_size=20),
    ).map(lambda pair: f'{pair[0]}: "{pair[1]}"\n'),
    max_size=4,
).map(lambda lines: _utf8("".join(lines)))
_entries = st.builds(
    index_files.entry,
    st.lists(_numbers, max_size=4),
    dtype=st.integers(0, 25) | _numbers,
    shard=st.integers(0, 2) | _numbers,
    offset=_numbers,
    size=st.none() | _numbers,
)
INDEXES = st.dictionaries(
    st.sampled_from([name.encode() for name in TINY.tensor_shapes()]) | st.binary(max_size=9),
    _entries | st.binary(max_size=20),
    max_size=6,
).map(lambda pairs: index_files.table(sorted(pairs.items())))


def _array_file(descr: str, shape: tuple[int, ...], content: bytes) -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


NPZS = st.builds(
    _array_file,
    st.sampled_from(["<i8", "<u2", ">i4", "|O", "<f8", "|S9", "<U99999", "|V0", "x"]),
    st.lists(_numbers, max_size=3).map(tuple),
    st.binary(max_size=40),
).map(zipped)
