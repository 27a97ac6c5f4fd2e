"""GGUF, against files written by the specification and against the reader of the package gguf."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.interop.gguf import TYPES, gguf_name, open_gguf, write_gguf
from gpt2.interop.weights import PortableModel, write_model
from tests.interop.gguf_files import (
    ARRAY,
    BF16,
    F16,
    F32,
    FLOAT,
    I32,
    Q4_0,
    Q8_0,
    SHAPES,
    STRING,
    TOKENS,
    U32,
    Tensor,
    gguf,
    small,
    small_numbers,
    small_tensors,
    small_values,
    text,
    value,
)

HUGE = 10**12


def _portable(n_embd: int = 32) -> PortableModel:
    hparams = HParams(n_vocab=6, n_ctx=8, n_embd=n_embd, n_head=2, n_layer=1)
    random = np.random.default_rng(2)
    tensors = {
        name: random.standard_normal(shape, np.float32)
        for name, shape in hparams.tensor_shapes().items()
    }
    vocabulary = {token: number for number, token in enumerate(TOKENS[:5])}
    return PortableModel(hparams, vocabulary, [("a", "b")], tensors.__getitem__)


@pytest.mark.parametrize(("kind", "error"), [(F32, 0), (F16, 0), (BF16, 0), (Q8_0, 1 / 127)])
def test_a_file_is_read_as_the_specification_says(tmp_path: Path, kind: int, error: float) -> None:
    """The values are multiples of 1/64 up to 1, which f16 and bf16 hold exactly."""
    path = tmp_path / "small.gguf"
    path.write_bytes(small(kind))
    model = open_gguf(path)
    assert model.hparams == HParams(n_vocab=6, n_ctx=8, n_embd=32, n_head=2, n_layer=1)
    assert model.vocabulary == {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "<|endoftext|>": 4}
    assert model.merges == [("a", "b")]
    numbers = small_numbers()
    for name, shape in model.hparams.tensor_shapes().items():
        values = model.read(name)
        assert (values.dtype, values.shape) == (np.float32, shape)
        expected = numbers[gguf_name(name)]
        if len(shape) == 3:  # OpenAI's matrices are [in, out], llama.cpp's [out, in]
            expected = expected.T[None]
        assert np.abs(values - expected).max() <= error * 0.51 + 1e-3 * error


@pytest.mark.parametrize("type_", TYPES)
def test_a_written_file_is_what_the_reference_reader_expects(tmp_path: Path, type_: str) -> None:
    reference = pytest.importorskip("gguf")
    model = _portable()
    write_gguf(tmp_path / "out.gguf", model, type_, "small")
    reader = reference.GGUFReader(tmp_path / "out.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "gpt2"
    assert fields["gpt2.block_count"] == 1
    assert fields["gpt2.context_length"] == 8
    assert fields["gpt2.embedding_length"] == 32
    assert fields["gpt2.feed_forward_length"] == 128
    assert fields["gpt2.attention.head_count"] == 2
    assert fields["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert fields["tokenizer.ggml.tokens"] == TOKENS
    assert fields["tokenizer.ggml.token_type"] == [1, 1, 1, 1, 3, 5]
    assert fields["tokenizer.ggml.merges"] == ["a b"]
    assert fields["tokenizer.ggml.eos_token_id"] == 4
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert {tensor.name for tensor in reader.tensors} == set(SHAPES)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    for name in model.hparams.tensor_shapes():
        tensor = stored[gguf_name(name)]
        expected = model.read(name)
        expected = expected[0].T if expected.ndim == 3 else expected
        found = reference.dequantize(tensor.data, tensor.tensor_type)
        assert found.shape == expected.shape
        precision = {"F32": 0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 1e-2, "Q4_0": 0.15}
        most = np.abs(expected).max() * precision[tensor.tensor_type.name]
        assert np.abs(found - expected).max() <= most
    matrix, embedding = stored["blk.0.ffn_up.weight"], stored["token_embd.weight"]
    assert matrix.tensor_type.name == type_.upper()
    assert embedding.tensor_type.name == ("Q8_0" if type_ == "q4_0" else type_.upper())
    assert stored["position_embd.weight"].tensor_type.name == "F32"


def test_f32_comes_back_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    model = _portable(n_embd=6)  # rows that are no multiple of the alignment
    write_gguf(tmp_path / "out.gguf", model, "f32", "small")
    again = open_gguf(tmp_path / "out.gguf")
    assert (again.hparams, again.vocabulary, again.merges) == (
        model.hparams,
        model.vocabulary,
        model.merges,
    )
    for name, values in model.tensors():
        assert np.array_equal(again.read(name), values)


def test_rows_that_have_no_whole_blocks_are_not_quantized(tmp_path: Path) -> None:
    reference = pytest.importorskip("gguf")
    write_gguf(tmp_path / "out.gguf", _portable(n_embd=40), "q4_0", "small")
    kinds = {
        tensor.name: tensor.tensor_type.name
        for tensor in reference.GGUFReader(tmp_path / "out.gguf").tensors
    }
    assert kinds["blk.0.attn_qkv.weight"] == "F16"  # rows of 40
    assert kinds["blk.0.ffn_down.weight"] == "Q4_0"  # rows of 160


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("gguf")

    def read(name: str) -> np.ndarray:
        if name.endswith("wte"):
            raise UserError("m: the tensor model/wte is damaged.")
        return _portable().read(name)

    with pytest.raises(UserError, match="damaged"):
        write_gguf(tmp_path / "o.gguf", dataclasses.replace(_portable(), read=read), "f32", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (dataclasses.replace(_portable(), merges=[]), "no merges"),
        (dataclasses.replace(_portable(), vocabulary={"a": 6}), "'a' with id 6.*6 embeddings"),
    ],
)
def test_a_vocabulary_that_llama_cpp_cannot_use_is_refused(
    tmp_path: Path, model: PortableModel, sentence: str
) -> None:
    pytest.importorskip("gguf")
    with pytest.raises(UserError, match=sentence):
        write_gguf(tmp_path / "out.gguf", model, "f32", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_model_folder_has_no_vocabulary_beyond_its_embeddings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'a' with id 6.*6 embeddings"):
        write_model(tmp_path / "m", dataclasses.replace(_portable(), vocabulary={"a": 6}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "largest"),
    [("f16", 65504.0), ("q8_0", 127 * 65504.0), ("q4_0", 127 * 65504.0), ("bf16", 3e38)],
)
def test_a_weight_too_large_for_the_type_is_refused(
    tmp_path: Path, kind: str, largest: float
) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "out.gguf"
    factor = 1.0

    def read(name: str) -> np.ndarray:
        values = _portable().read(name)
        if name == "model/wte":
            values[0, 0] = largest * factor
        return values

    model = dataclasses.replace(_portable(), read=read)
    write_gguf(path, model, kind, "x")
    if kind != "q4_0":  # which is not read
        assert np.isfinite(open_gguf(path).read("model/wte")).all()
    factor = 1.13
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"Tensor model/wte has values up to .*Use f32"):
        write_gguf(path, model, kind, "x")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


OUTPUT = small_tensors()["token_embd.weight"]
REFUSED = {
    "llama": (gguf(small_values(general__architecture=value(STRING, "llama")), {}), "'llama'"),
    "no architecture": (gguf({}, {}), "architecture None"),
    "no context length": (
        gguf(small_values(gpt2__context_length=None), small_tensors()),
        "gpt2.context_length is missing",
    ),
    "heads that do not divide": (
        gguf(small_values(gpt2__attention__head_count=value(U32, 3)), small_tensors()),
        "n_embd .32. must be divisible by n_head .3.",
    ),
    "another inner size": (
        gguf(small_values(gpt2__feed_forward_length=value(U32, 64)), small_tensors()),
        "feed_forward_length is 64, but 128",
    ),
    "another epsilon": (
        gguf(small_values(gpt2__attention__layer_norm_epsilon=value(FLOAT, 1e-6)), small_tensors()),
        "layer_norm_epsilon",
    ),
    "another tokenizer": (
        gguf(small_values(tokenizer__ggml__model=value(STRING, "llama")), small_tensors()),
        "tokenizer 'llama'",
    ),
    "another pre-tokenizer": (
        gguf(small_values(tokenizer__ggml__pre=value(STRING, "llama-bpe")), small_tensors()),
        "'llama-bpe'",
    ),
    "no vocabulary": (
        gguf(small_values(tokenizer__ggml__tokens=None), small_tensors()),
        "no vocabulary",
    ),
    "tokens that are numbers": (
        gguf(small_values(tokenizer__ggml__tokens=value(ARRAY, [1] * 6, I32)), small_tensors()),
        "no vocabulary",
    ),
    "a token twice": (
        gguf(
            small_values(tokenizer__ggml__tokens=value(ARRAY, ["a", "a", "c", "d", "e", "f"])),
            small_tensors(),
        ),
        "token 1 .'a'. is empty or occurs twice",
    ),
    "a merge of one": (
        gguf(small_values(tokenizer__ggml__merges=value(ARRAY, ["ab"])), small_tensors()),
        "merge 'ab'",
    ),
    "another vocabulary size": (
        gguf(
            small_values(
                tokenizer__ggml__tokens=value(ARRAY, ["a", "b"]), tokenizer__ggml__token_type=None
            ),
            small_tensors(),
        ),
        r"token_embd.weight has shape \[6, 32\]; expected \[2, 32\]",
    ),
    "a missing tensor": (
        gguf(
            small_values(),
            {name: t for name, t in small_tensors().items() if "ffn_up.bias" not in name},
        ),
        "missing tensor blk.0.ffn_up.bias",
    ),
    "one more tensor": (
        gguf(small_values(), small_tensors() | {"rope_freqs.weight": Tensor.of(np.ones(3))}),
        "unexpected tensor rope_freqs.weight",
    ),
    "a type that is not read": (
        gguf(
            small_values(),
            small_tensors() | {"token_embd.weight": Tensor(Q4_0, (32, 6), bytes(18 * 6))},
        ),
        "token_embd.weight has a quantized type .number 2.*F32, F16, BF16 or Q8_0",
    ),
    "an output matrix of its own": (
        gguf(small_values(), small_tensors() | {"output.weight": Tensor.of(np.ones((6, 32)))}),
        "output.weight. differs from the token embedding",
    ),
    # Files that are corrupted or hostile.
    "text": (b"# a model\n", "does not begin with GGUF"),
    "empty": (b"", "beyond the end"),
    "version 1": (gguf(small_values(), small_tensors(), version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
    "many tensors": (gguf({}, {}, counts=(HUGE, 0)), "too many"),
    "many keys": (gguf({}, {}, counts=(0, HUGE)), "too many"),
    "a long string": (
        gguf({"a": struct.pack("<IQ", STRING, HUGE)}, {}),
        "beyond the end of the header",
    ),
    "a long array of numbers": (
        gguf({"a": struct.pack("<IIQ", ARRAY, I32, HUGE)}, {}),
        "beyond the end of the header",
    ),
    "a long array of strings": (
        gguf({"a": struct.pack("<IIQ", ARRAY, STRING, HUGE)}, {}),
        "beyond the end of the header",
    ),
    "an array of arrays": (gguf({"a": struct.pack("<IIQ", ARRAY, ARRAY, 1)}, {}), "kind 9"),
    "an unknown type": (gguf({"a": struct.pack("<I", 77)}, {}), "kind 77"),
    "a key that is not text": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"\xff") + value(U32, 1),
        "corrupted",
    ),
    "a key twice": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + (text("a") + value(U32, 1)) * 2,
        "'?a'? occurs twice",
    ),
    "an impossible alignment": (gguf({"general.alignment": value(U32, 0)}, {}), "alignment"),
    "a huge tensor": (
        gguf(small_values(), {"token_embd.weight": Tensor(F32, (HUGE, HUGE), b"")}),
        "the file ends in the tensor token_embd.weight",
    ),
    "many dimensions": (
        gguf(small_values(), {"token_embd.weight": Tensor(F32, (1,) * 5, b"")}),
        "more than four dimensions",
    ),
    "overlapping tensors": (
        gguf(
            small_values(),
            small_tensors() | {"output_norm.bias": Tensor(F32, (32,), bytes(128), offset=64)},
        ),
        "overlaps another",
    ),
    "cut off": (small()[:-1], "the file ends in the tensor output_norm.bias"),
    "a tensor of infinities": (
        gguf(
            small_values(),
            small_tensors() | {"output_norm.bias": Tensor.of(np.full(32, np.inf))},
        ),
        "output_norm.bias contains NaN or infinite",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_gpt2_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, sentence = REFUSED[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=sentence) as error:
        dict(open_gguf(path).tensors())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 << 20
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_an_old_file_that_repeats_the_embedding_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.gguf"
    path.write_bytes(gguf(small_values(), small_tensors() | {"output.weight": OUTPUT}))
    assert open_gguf(path).hparams.n_vocab == 6


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.gguf cannot be read"):
        open_gguf(tmp_path / "none.gguf")
