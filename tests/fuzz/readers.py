"""Every reader of untrusted files, with valid files to mutate and a function that reads one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import lzma
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from hypothesis import strategies as st

from gpt2 import files
from gpt2.checkpoint import bundle, folder, index, state
from gpt2.checkpoint.run import RunFolder
from gpt2.commands import conditional
from gpt2.data import npz, shards
from gpt2.data.readers import ReaderSettings, read_pieces
from gpt2.download import transfer
from gpt2.errors import UserError
from gpt2.evaluation.cloze import read_questions
from gpt2.evaluation.grid import Combination, CombinationFile, Origin
from gpt2.evaluation.samples import read_samples
from gpt2.generation.prompts import read_prompts
from gpt2.hparams import HParams
from gpt2.interop import from_huggingface, hub_tokenizer, peft, torch_file
from gpt2.interop.from_huggingface import ReadingOptions
from gpt2.interop.gguf import open_gguf
from gpt2.interop.stored import StoredTensor
from gpt2.interop.tf1 import Tf1Checkpoint, open_tf1
from gpt2.interop.weights import PortableModel
from gpt2.jsonl import RecordFile
from gpt2.tokenizer import Tokenizer, train_vocabulary
from gpt2.training import run_log
from gpt2.training.progress import TrainingProgress
from gpt2.training.run_log import HistoryLogger, read_curves
from tests.fuzz import index_files
from tests.fuzz.index_files import Block
from tests.interop import gguf_files

TINY = HParams(n_vocab=270, n_ctx=8, n_embd=4, n_head=2, n_layer=1)


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        seeds: valid contents.
        read: reads the file in a folder; raises UserError, or AssertionError for a wrong result.
        file: name of the file.
        wraps: applied to mutated contents, for example to add valid checksums.
        generated: contents of a valid form with random values.
        beside: other files of the folder.
        forgives: whether it accepts any content.
    """

    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    file: str
    generated: st.SearchStrategy[bytes]
    wraps: Sequence[Callable[[bytes], bytes]] = (bytes,)
    beside: Sequence[tuple[str, bytes]] = ()
    forgives: bool = False


def readers() -> dict[str, Reader]:
    """Return the readers by name."""
    data, entries = tiny_checkpoint()
    whole_index = index_files.table(entries)
    block = index_files.pairs([(b"", index_files.HEADER), *entries])
    vocabulary, merges = train_vocabulary(["so much text in so few words, so it is " * 9], 270)
    encoder = json.dumps(vocabulary).encode()
    merged = "\n".join(["#version: 0.2", *map(" ".join, merges), ""]).encode()
    named = b'model_checkpoint_path: "model-7"\nall_model_checkpoint_paths: "model-7"\n'
    hparams = json.dumps(vars(TINY)).encode()
    checkpoint = [("model-7" + bundle.DATA, data), ("model-7.index", whole_index)]
    state_tensors = [("state-7" + bundle.DATA, data), ("state-7.index", whole_index)]
    identity = hashlib.sha256(whole_index).hexdigest().encode()

    def belonging(facts: bytes) -> bytes:
        """Return a state file with these facts for the tensors beside it."""
        return b'{"weights": "%b", "tensors": "%b", "facts": %b}' % (identity, identity, facts)

    return {
        **_interop_readers(encoder, merged),
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
        "foreign checkpoint": Reader(
            [block],
            lambda path: _read_weights(open_tf1(path, n_head=2)),
            "m.index",
            INDEXES,
            (sealed,),
            [("m" + bundle.DATA, data)],
        ),
        "gguf": Reader(
            [gguf_files.small(gguf_files.Q8_0), gguf_files.small(gguf_files.BF16)],
            lambda path: _read_weights(open_gguf(path)),
            "m.gguf",
            GGUFS,
        ),
        "checkpoint": Reader(
            [named],
            _read_names,
            "checkpoint",
            STATES,
            beside=checkpoint,
        ),
        "state": Reader(
            [json.dumps(TrainingProgress(3, 1.5, 0.5, 7).facts()).encode()],
            _read_state,
            "state-7.json",
            json_with(*vars(TrainingProgress(0))),
            (belonging, bytes, belonging),
            [*checkpoint, *state_tensors],
        ),
        "state's tensors": Reader(
            [block],
            lambda path: bundle.read_all(path.parent / "state-7"),
            "state-7.index",
            INDEXES,
            (sealed,),
            state_tensors,
        ),
        "counter": Reader(
            [b"7\n"], _read_counter, "counter", st.integers().map(lambda n: str(n).encode())
        ),
        "history": Reader(
            [
                b'{"step": 1, "loss": 3.5}\n{"step": 2, "val_loss": 3.25}\n{"step": 9}\n',
            ],
            _read_history,
            "history.jsonl",
            _lines_of(json_with("step", "loss", "val_loss")),
            forgives=True,
        ),
        "history's curves": Reader(
            [b'{"step": 1, "loss": 3.5}\n{"step": 2, "val_loss": 3.25}\n'],
            read_curves,
            "history.jsonl",
            _lines_of(json_with("step", "loss", "average", "val_loss")),
        ),
        "config's calls": Reader(
            [b'{"calls": [{"seed": 3}]}'],
            lambda path: run_log.read_calls(path.parent),
            "config.json",
            json_with("calls"),
        ),
        "config": Reader(
            [b'{"calls": [{"seed": 3}]}'],
            _read_config,
            "config.json",
            json_with("calls"),
            forgives=True,
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
        "shards' index": Reader(
            [SHARDS],
            lambda path: shards.read(path.parent, 300),
            "shards.json",
            json_with("version", "type", "n_vocab", "chunk_lengths"),
            beside=[("shard-00000.npy", _array_file("<u2", (6,), bytes(range(12))))],
        ),
        "shard": Reader(
            [*_npz_files(), _array_file("<u2", (6,), bytes(range(12)))],
            lambda path: shards.read(path.parent, 300),
            "shard-00000.npy",
            ARRAYS,
            beside=[("shards.json", SHARDS)],
        ),
        "table": Reader(
            [b"a,b\n1,2\n", b'id,text\n1,"so, \n so"\n2,x\n'],
            _read_text,
            "text.csv",
            st.lists(st.lists(st.text(max_size=5), max_size=3).map(",".join)).map(
                lambda rows: _utf8("\n".join(rows))
            ),
        ),
        "JSON lines": Reader(
            [b'{"text": "a"}\n"b"\nnull\n'], _read_text, "text.jsonl", _lines_of(json_with("text"))
        ),
        "JSON": Reader(
            [b'[{"text": "a"}, "b"]', b'"a" {"text": null}'],
            _read_text,
            "text.json",
            json_with("text"),
        ),
        "zip": Reader(
            _packed_files("zip"), _read_text, "text.zip", st.text(max_size=9).map(_named_in_zip)
        ),
        "tar": Reader(
            [gzip.decompress(_packed_files("tar.gz")[0])],
            _read_text,
            "text.tar",
            st.text(max_size=9).map(_named_in_tar),
        ),
        "gzip": Reader(
            [*_packed_files("tar.gz"), gzip.decompress(_packed_files("tar.gz")[0])],
            _read_text,
            "text.tar.gz",
            st.binary(max_size=200).map(gzip.compress),
            (bytes, gzip.compress),
        ),
        "xz": Reader(
            [lzma.compress(b"some text, and more")],
            _read_text,
            "text.xz",
            st.binary(max_size=200).map(lzma.compress),
        ),
        "download's note": Reader(
            [b'{"url": "http://a/b", "version": "\\"1\\"", "size": 9}'],
            _read_note,
            "file.partial.json",
            json_with("url", "version", "size"),
            forgives=True,
        ),
        "samples": Reader(
            [
                b'{"number": 1, "sample": 0, "prompt": "A", "text": "B", "seed": 3, "settings": {}}'
                b"\n" * 2
            ],
            _read_samples,
            "samples.jsonl",
            _lines_of(
                st.fixed_dictionaries(
                    {
                        "number": _numbers | _values,
                        "sample": _values,
                        "prompt": st.just("A") | _values,
                        "text": st.just("B") | _values,
                        "settings": st.just({}),
                        "seed": _numbers | _values,
                    }
                ).map(_json_bytes)
            ),
        ),
        "samples of any form": Reader(
            [
                b'{"text": "a"}\n{"text": "b"}\n',
                b"======== SAMPLE 1 ========\na\n" * 2,
                b"a\n" + b"=" * 20 + b"\nb\n",
            ],
            _read_any_samples,
            "samples-7",
            _lines_of(json_with("text")) | st.text().map(_utf8),
        ),
        "grid": Reader(
            [_grid_line(number=0) + _grid_line(number=1)],
            _read_grid,
            f"{_GRID.name}.jsonl",
            _lines_of(
                st.fixed_dictionaries(
                    {},
                    optional=dict.fromkeys(
                        ("number", "text", "tokens", "finish_reason", "logprob"), _numbers | _values
                    ),
                ).map(lambda values: _grid_line(**values)[:-1])
            ),
        ),
        "cloze": Reader(
            [b"1 So he went .\n2 He took the XXXXX .\tkey\t\tbox|key\n"],
            lambda path: list(read_questions(str(path))),
            "cloze.txt",
            st.lists(st.sampled_from(["1 ", "a XXXXX", "\t", "a", "|", "\n"])).map(
                lambda parts: "".join(parts).encode()
            ),
        ),
        "prompts": Reader(
            [b"one\ntwo\n", b"a\nb\n---\nc\n", b'{"prompt": "x", "n": 1}\n{"prompt": "y"}\n'],
            _read_prompts,
            "prompts.txt",
            st.lists(JSON, max_size=3).map(b"\n".join),
        ),
    }


def wrong_words(sentence: str) -> str | None:
    """Return what is wrong with an error message, or None."""
    if "\n" in sentence or "\r" in sentence:
        return f"more than one line: {sentence!r}"
    if len(sentence) > 2000:
        return f"a sentence of {len(sentence)} characters"
    if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", sentence):
        return f"control characters: {sentence!r}"
    return None


INTEROP = Path(__file__).resolve().parent.parent / "golden" / "interop"


def _interop_readers(encoder: bytes, merged: bytes) -> dict[str, Reader]:
    """Readers of the files of PyTorch and transformers, from files that they wrote."""
    folder = INTEROP / "transformers"
    weights = (folder / "model.safetensors").read_bytes()
    config = (folder / "config.json").read_bytes()
    tokenizer = (folder / "tokenizer.json").read_bytes()
    torch_files = [(INTEROP / n).read_bytes() for n in ("half.bin", "old.bin", "nanogpt.pt")]
    with zipfile.ZipFile(INTEROP / "half.bin") as archive:
        (inner,) = (archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
    whole = [
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("model.safetensors", weights),
    ]

    def beside(name: str) -> list[tuple[str, bytes]]:
        return [pair for pair in whole if pair[0] != name]

    adapter = INTEROP.with_name("peft") / "plain"
    adapter_config = (adapter / peft.CONFIG).read_bytes()
    adapter_weights = (adapter / peft.WEIGHTS).read_bytes()
    return {
        "adapter_config.json": Reader(
            [adapter_config],
            _read_adapter,
            peft.CONFIG,
            json_with("peft_type", *json.loads(adapter_config)),
            beside=[(peft.WEIGHTS, adapter_weights)],
        ),
        "adapter": Reader(
            [_safetensors(b"{}"), adapter_weights],
            _read_adapter,
            peft.WEIGHTS,
            json_with("dtype", "shape", "data_offsets", "__metadata__").map(_safetensors),
            beside=[(peft.CONFIG, adapter_config)],
        ),
        "safetensors": Reader(
            [*map(_safetensors, (b"{}", b'{"a":{"dtype":"F32"}}')), weights],
            _read_hub_model,
            "model.safetensors",
            json_with("dtype", "shape", "data_offsets", "wte.weight", "__metadata__").map(
                _safetensors
            ),
            beside=beside("model.safetensors"),
        ),
        "PyTorch file": Reader(
            torch_files, _read_torch, "pytorch_model.bin", st.binary(max_size=300)
        ),
        "PyTorch pickle": Reader(
            [inner, *map(pickle.dumps, ({"a": [1, 2.5]}, {"b": (1, 2), 3: None}))],
            _read_torch,
            "pytorch_model.bin",
            st.binary(max_size=60),
            (_zipped_pickle, _pre_zip),
        ),
        "config.json": Reader(
            [config],
            _read_hub_model,
            "config.json",
            json_with(*json.loads(config)),
            beside=beside("config.json"),
        ),
        "tokenizer.json": Reader(
            [tokenizer],
            _read_hub_model,
            "tokenizer.json",
            json_with("model", "vocab", "merges", "added_tokens", "pre_tokenizer"),
            beside=beside("tokenizer.json"),
        ),
        "merges.txt": Reader(
            [merged],
            lambda path: hub_tokenizer.find(path.parent)(),
            "merges.txt",
            st.text(max_size=60).map(_utf8),
            beside=[("vocab.json", encoder)],
        ),
        "safetensors index": Reader(
            [(INTEROP / "sharded" / "model.safetensors.index.json").read_bytes()],
            _read_hub_model,
            "model.safetensors.index.json",
            json_with("weight_map", "metadata"),
            beside=[
                *beside("model.safetensors"),
                *(
                    (path.name, path.read_bytes())
                    for path in (INTEROP / "sharded").glob("*.safetensors")
                ),
            ],
        ),
    }


def _safetensors(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(64)


def _zipped_pickle(content: bytes) -> bytes:
    """A zip file of torch.save with this pickle and the storages of `half.bin`."""
    written = io.BytesIO()
    with (
        zipfile.ZipFile(INTEROP / "half.bin") as source,
        zipfile.ZipFile(written, "w") as archive,
    ):
        for entry in source.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            archive.writestr(entry.filename, content if is_pickle else source.read(entry))
    return written.getvalue()


def _pre_zip(content: bytes) -> bytes:
    """A file of the old torch.save with this pickle and without storages."""
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    return b"".join([*head, content, pickle.dumps([], 2)])


# --- reading ---


def _read_hub_model(path: Path) -> None:
    model = from_huggingface.open_model(path.parent, ReadingOptions())
    for name, values in model.tensors():
        assert values.shape == model.hparams.tensor_shapes()[name]
        assert np.isfinite(values).all()


@functools.cache
def _base_model() -> PortableModel:
    """The golden model, in memory, as only the adapter is under test."""
    base = from_huggingface.open_model(INTEROP / "transformers", ReadingOptions())
    return dataclasses.replace(base, read=dict(base.tensors()).__getitem__)


def _read_adapter(path: Path) -> None:
    base = _base_model()
    _read_weights(peft.open_adapter(path.parent, base.hparams).apply(base))


def _read_torch(path: Path) -> None:
    waiting = [torch_file.read(path)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            assert all(type(key) in (str, int) for key in value)
            waiting += value.values()
        elif isinstance(value, StoredTensor):
            with contextlib.suppress(UserError):  # a type that is no weight's
                assert value.read("t").shape == value.shape


def _read_tensors(path: Path) -> None:
    for name, array in bundle.Tensors(path.parent / "m", TINY, Path("hparams.json")).items():
        assert array.shape == TINY.tensor_shapes()[name]


def _read_weights(model: PortableModel | Tf1Checkpoint) -> None:
    for name, shape in model.hparams.tensor_shapes().items():
        values = model.read(name)
        assert (values.dtype, values.shape) == (np.float32, shape)
        assert np.isfinite(values).all()


def _read_names(path: Path) -> None:
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


def _read_state(path: Path) -> None:
    run = RunFolder(path.parent)
    prefix = path.parent / "model-7"
    facts = state.read_facts(run.state_of(prefix), prefix)
    progress = TrainingProgress.from_facts(facts)
    assert TrainingProgress.from_facts(json.loads(json.dumps(progress.facts()))) == progress


def _read_counter(path: Path) -> None:
    assert 0 <= RunFolder(path.parent).step_of(path.parent / "model.ckpt") < 10**18


def _read_history(path: Path) -> None:
    history = HistoryLogger(path, done=3)
    history.log_metrics(4, loss=2.5)
    history.close()
    *lines, last = path.read_bytes().decode().split("\n")
    assert last == ""
    assert json.loads(lines[-1]) == {"step": 4, "loss": 2.5}
    assert all(json.loads(line)["step"] <= 3 for line in lines[:-1])


def _read_config(path: Path) -> None:
    run_log.add_call(path.parent, seed=7)
    assert json.loads(path.read_text())["calls"][-1]["seed"] == 7


def _read_text(path: Path) -> None:
    said: list[str] = []
    for piece in read_pieces(path, ReaderSettings(), notice=said.append):
        assert isinstance(piece.text, str)
    for sentence in said:
        if wrong := wrong_words(sentence):
            raise AssertionError(wrong)


def _read_note(path: Path) -> None:
    url, version, size = transfer.read_note(path)
    headers = {"If-Range": version} if version else {}
    requests.Request("GET", "http://localhost/", headers=headers).prepare()
    assert url is None or isinstance(url, str)
    assert size is None or size >= 0


def _read_samples(path: Path) -> None:
    seed = conditional.earlier_seed(path)
    assert seed is None or isinstance(seed, int)
    with RecordFile(path, {}, conditional.sample_of) as file:
        assert all(isinstance(sample.number, int) for sample in file.records)


def _read_any_samples(path: Path) -> None:
    assert all(isinstance(sample, str) for sample in read_samples(path))


_ORIGIN = Origin("model", "none", "", 3)
_GRID = Combination(1.0, 0, 1.0, 1.0, 5)


def _read_grid(path: Path) -> None:
    found = CombinationFile(path.parent, _GRID, _ORIGIN)
    count = 2 if not found.missing(2) else 0
    assert len(found.texts(count)) == count
    assert found.perplexity(count) is None or found.perplexity(count) >= 0


# --- valid contents ---


def tiny_checkpoint() -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the data of a checkpoint of `TINY`, and the keys and values of its index."""
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


def _packed_files(ending: str) -> list[bytes]:
    file = io.BytesIO()
    texts = {"a.txt": b"one\n", "b/c.csv": b"text\nx\n", "d.jsonl.gz": gzip.compress(b'"x"\n')}
    if ending == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in texts.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
    return [file.getvalue()]


def _grid_line(**values: object) -> bytes:
    """Return a line of a grid's samples with some values replaced."""
    line = {"number": 0, "text": "a", "tokens": 1, "finish_reason": "length", "logprob": -1.5}
    return _json_bytes({**line, "origin": dataclasses.asdict(_ORIGIN), **values}) + b"\n"


SHARDS = b'{"version": 1, "type": "uint16", "n_vocab": 300, "chunk_lengths": [[2, 4]]}'


# --- contents of a valid form ---


def _named_in_zip(name: str) -> bytes:
    """Return an archive of a file with this name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", b"text")
    return file.getvalue().replace(b"x", _utf8(name)[:1] or b"x")


def _named_in_tar(name: str) -> bytes:
    """Return an archive of a file with this name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(name + ".jsonl")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"text"))
    return file.getvalue()


def sealed(content: bytes) -> bytes:
    """Return an index file of this block with valid checksums."""
    return index_files.table(Block(content))


def zipped(content: bytes) -> bytes:
    """Return an archive of this array with a valid checksum."""
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


def _json_bytes(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def json_with(*keys: str) -> st.SearchStrategy[bytes]:
    """Generate JSON of any kind that often has these keys."""
    names = st.sampled_from(keys) | st.text(max_size=5)
    return (st.dictionaries(names, _numbers | _values, max_size=6) | _values).map(_json_bytes)


def _lines_of(lines: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(lines, max_size=3).map(lambda some: b"".join(line + b"\n" for line in some))


JSON = json_with(*vars(TINY), "prompt", "<|endoftext|>", "Ġ")
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

_gguf_values = st.one_of(
    st.builds(gguf_files.value, st.just(gguf_files.U32), st.integers(0, 2**32 - 1)),
    st.builds(gguf_files.value, st.just(gguf_files.STRING), st.text(max_size=9).map(_utf8)),
    st.builds(gguf_files.value, st.just(gguf_files.ARRAY), st.lists(st.just("a"), max_size=9)),
    st.binary(max_size=20),
)
_gguf_tensors = st.builds(
    gguf_files.Tensor,
    st.sampled_from([0, 1, 2, 8, 30, 77]),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 32), max_size=6).map(tuple),
    st.binary(max_size=40),
    st.none() | st.integers(0, 2**64 - 1),
)
GGUFS = st.builds(
    gguf_files.gguf,
    st.dictionaries(
        st.sampled_from([*gguf_files.small_values(), "general.alignment"]), _gguf_values
    ).map(lambda changes: gguf_files.small_values() | changes),
    st.dictionaries(st.sampled_from([*gguf_files.SHAPES, "output.weight"]), _gguf_tensors).map(
        lambda changes: gguf_files.small_tensors(gguf_files.Q8_0) | changes
    ),
    st.sampled_from([1, 2, 3, 3 << 24]),
    st.none() | st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
)


def _array_file(descr: str, shape: tuple[int, ...], content: bytes) -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


ARRAYS = st.builds(
    _array_file,
    st.sampled_from(["<i8", "<u2", ">i4", "|O", "<f8", "|S9", "<U99999", "|V0", "x"]),
    st.lists(_numbers, max_size=3).map(tuple),
    st.binary(max_size=40),
)
NPZS = ARRAYS.map(zipped)
