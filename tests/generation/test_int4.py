"""4-bit weights: the numbers are near the weights, LiteRT multiplies by them, misuse is refused."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gpt2 import model
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.errors import UserError
from gpt2.generation import int4, litert_conversion
from gpt2.generation.int4 import BLOCK
from gpt2.generation.litert_engine import LiteRTEngine, Program
from gpt2.generation.loading import open_model
from gpt2.hparams import HParams
from gpt2.tokenizer import train_vocabulary
from tests.generation.model_folders import TEXT, write_small_model

pytestmark = pytest.mark.slow

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed"
)
HPARAMS = HParams(n_vocab=270, n_ctx=16, n_embd=64, n_head=2, n_layer=3)


def weights() -> dict[str, np.ndarray]:
    return model.initial_weights(HPARAMS, 3)


def dequantized(matrix: np.ndarray) -> np.ndarray:
    numbers, scales = int4.quantize_blocks(matrix)
    assert (numbers.dtype, scales.dtype) == (np.int8, np.float16)
    assert numbers.shape == matrix.shape
    assert scales.shape == (len(matrix), matrix.shape[1] // BLOCK)
    assert numbers.min() >= -8
    assert numbers.max() <= 7
    assert (scales > 0).all()  # XNNPACK takes no others
    assert np.isfinite(scales).all()
    as_bits = scales.astype(np.float32).view(np.uint32)
    assert not (as_bits & 0xFFFF).any()  # exact in bfloat16, in which XNNPACK reads them
    return numbers * scales.astype(np.float32).repeat(BLOCK, axis=1)


@pytest.mark.parametrize("size", [1e-3, 0.02, 1, 1e4])
def test_numbers_are_nearer_to_the_weights_than_plain_rounding(size: float) -> None:
    matrix = np.random.default_rng(1).standard_normal((24, 5 * BLOCK), np.float32) * size
    matrix = matrix.astype(np.float32)
    blocks = matrix.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 7
    plain = (np.rint(blocks / scale) * scale).reshape(matrix.shape)
    error = np.square(dequantized(matrix) - matrix).sum()
    assert error < 0.9 * np.square(plain - matrix).sum()


@pytest.mark.parametrize("value", [0, 1e-30, 1e-7, 0.02, -0.02, 3e5, -3e5])
def test_equal_weights_of_any_size_are_kept(value: float) -> None:
    matrix = np.full((2, 2 * BLOCK), value, np.float32)
    np.testing.assert_allclose(dequantized(matrix), matrix, rtol=0.02, atol=2.0**-24)


def test_every_number_of_four_bits_is_packed() -> None:
    numbers = np.arange(-8, 8, dtype=np.int8)
    packed = int4.pack(numbers)
    halves = np.stack([packed & 15, packed >> 4], axis=1).ravel().astype(np.int8)
    np.testing.assert_array_equal(np.where(halves > 7, halves - 16, halves), numbers)


@needs_package
@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_litert_multiplies_by_the_dequantized_weights(tmp_path: Path, rows: int) -> None:
    """Up to the quantization of the activations to 8 bits."""
    random = np.random.default_rng(rows)
    matrix = random.standard_normal((3 * BLOCK, 70), np.float32)  # [inputs, outputs]

    hparams = HParams(n_vocab=270, n_ctx=16, n_embd=len(matrix), n_head=2, n_layer=3)
    program = litert_conversion._Program(lambda weights, x: x @ weights["w"], 1, dict)
    content = litert_conversion._converted(program, {"w": matrix}, hparams, "int4")
    (tmp_path / "program").write_bytes(content)
    x = random.standard_normal((rows, len(matrix)), np.float32)
    (found,) = Program(tmp_path / "program", threads=1)(x)
    expected = x @ dequantized(np.ascontiguousarray(matrix.T)).T
    assert np.linalg.norm(found - expected) < 0.015 * np.linalg.norm(expected)
    assert np.linalg.norm(found - x @ matrix) < 0.15 * np.linalg.norm(expected)


@needs_package
def test_logits_are_near_those_of_float32_and_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    litert_conversion.convert(weights(), HPARAMS, tmp_path, "int4")
    assert {path.name for path in tmp_path.iterdir()} == litert_conversion.program_files(HPARAMS)
    engine = LiteRTEngine(tmp_path, HPARAMS, threads=2)
    random = np.random.default_rng(5)
    prompts = [random.integers(0, HPARAMS.n_vocab, n).tolist() for n in (1, 9, 4, 12, 4)]
    following = random.integers(0, HPARAMS.n_vocab, (3, len(prompts)))

    def decode(slots: list[int]) -> np.ndarray:
        engine.reset(len(slots))
        first = np.stack([engine.prefill(slot, prompts[n]) for slot, n in enumerate(slots)])
        return np.stack([first, *(engine.decode(tokens[slots]) for tokens in following)])

    together = decode(list(range(len(prompts))))  # [steps, B, V]
    for number, prompt in enumerate(prompts):
        np.testing.assert_array_equal(together[:, number], decode([number])[:, 0])
        text = [[*prompt, *following[:, number]]]
        exact = model.logits(weights(), HPARAMS, np.array(text))[0, len(prompt) - 1 :].numpy()
        difference = np.linalg.norm(together[:, number] - exact, axis=-1)
        assert (difference < 0.15 * np.linalg.norm(exact, axis=-1)).all()


@needs_package
def test_a_model_opens_with_int4_and_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2_CACHE_DIR", str(tmp_path / "cache"))
    vocabulary, merges = train_vocabulary([TEXT], HPARAMS.n_vocab)
    write_model_folder(tmp_path / "model", HPARAMS, vocabulary, merges, weights())
    events: list[object] = []
    for engine in ("auto", "litert"):
        opened = open_model(ModelFolder(tmp_path / "model"), engine, "int4", events.append)
        assert "litert int4" in repr(opened)
        assert len(events) == 2 + 3 + litert_conversion.head_parts(HPARAMS)
    assert [path.name[:8] for path in (tmp_path / "cache/litert").glob("int*")] == [
        f"int4-v{litert_conversion.VERSION}-"
    ]


def test_a_hidden_size_that_blocks_do_not_divide_is_refused(tmp_path: Path) -> None:
    folder = ModelFolder(write_small_model(tmp_path / "small"))
    for engine in ("auto", "litert"):
        with pytest.raises(UserError, match=r"int4 .*n_embd.* 32, not 8\. Use quantize int8\."):
            open_model(folder, engine=engine, quantize="int4")


@pytest.mark.parametrize("n_embd", [1, 31, 33, 48, 770])
def test_only_multiples_of_the_block_are_taken(n_embd: int) -> None:
    with pytest.raises(UserError, match=f"not {n_embd}"):
        int4.check(HParams(n_embd=n_embd, n_head=1))


def test_without_the_package_int4_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --upgrade ai-edge-litert"):
        int4.check(HPARAMS)


@needs_package
@pytest.mark.parametrize(
    ("version", "is_new"),
    [
        *[(version, False) for version in ("1.4.0", "2.0.3", "2.0", "", "unknown")],
        *[(version, True) for version in ("2.1.0", "2.10.0", "2.4.0.dev20261026", "10.0")],
    ],
)
def test_a_package_that_is_too_old_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, is_new: bool
) -> None:
    import ai_edge_litert

    monkeypatch.setattr(ai_edge_litert, "__version__", version)
    refused = pytest.raises(UserError, match=r"ai-edge-litert 2\.1 or newer\. .*pip install")
    with contextlib.nullcontext() if is_new else refused:
        int4.check(HPARAMS)


@pytest.mark.parametrize("engine", ["tensorflow", "numpy"])
def test_other_engines_have_no_int4(tmp_path: Path, engine: str) -> None:
    folder = ModelFolder(write_small_model(tmp_path / "small"))
    with pytest.raises(UserError, match=f"int4 is not available with engine {engine}"):
        open_model(folder, engine=engine, quantize="int4")
