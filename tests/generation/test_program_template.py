"""Programs with exchanged weights, against those that the converter writes for the same weights."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from gpt2 import model
from gpt2.errors import UserError
from gpt2.generation import int4, litert_conversion
from gpt2.generation.litert_engine import LiteRTEngine
from gpt2.generation.program_template import Template, as_float32, as_int8, recognizable
from gpt2.hparams import HParams

# The converter leaves matrices of fewer than 1,024 numbers in float32: all, some and none.
SIZES = [8, 24, 64]
SMALL = HParams(n_vocab=64, n_ctx=8, n_embd=64, n_head=2, n_layer=2)
CASES = [*itertools.product(["none", "int8"], SIZES), ("int4", 2 * int4.BLOCK)]


def weights_of(hparams: HParams, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape, np.float32)
        for name, shape in hparams.tensor_shapes().items()
    }


@pytest.mark.parametrize(("quantize", "n_embd"), CASES)
def test_programs_are_those_of_the_converter(
    quantize: str, n_embd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert_conversion, "HEAD_ROWS", 45)
    hparams = HParams(n_vocab=100, n_ctx=8, n_embd=n_embd, n_head=2, n_layer=3)
    weights = weights_of(hparams, seed=n_embd)
    weights["model/h1/mlp/c_fc/w"][:, :, 3] = 0
    weights["model/h1/mlp/c_fc/w"][:, :, 4] *= 1e-7
    weights["model/h2/attn/c_attn/b"][:] = 0
    converted: list[object] = []
    convert = litert_conversion._converted
    monkeypatch.setattr(
        litert_conversion, "_converted", lambda *given: converted.append(given) or convert(*given)
    )
    litert_conversion.convert(weights, hparams, tmp_path, quantize)
    assert len(converted) == 5  # first, between, last, and the head's two sizes
    for name, program in litert_conversion._programs(weights, hparams).items():
        kind = "int8" if quantize == "int4" and name.startswith("head") else quantize
        expected = convert(program, program.weights(), hparams, kind)
        assert (tmp_path / name).read_bytes() == bytes(expected), name


def test_a_converter_that_stores_weights_otherwise_converts_each_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hparams = HParams(n_vocab=50, n_ctx=8, n_embd=16, n_head=2, n_layer=3)
    weights = weights_of(hparams, seed=7)
    monkeypatch.setitem(litert_conversion.LAYOUTS, "none", [lambda matrix: [matrix + 1]])
    litert_conversion.convert(weights, hparams, tmp_path, "none")
    tokens = [3, 49, 0, 17]
    expected = model.logits(weights, hparams, np.array([tokens]))[0, -1]
    found = LiteRTEngine(tmp_path, hparams).prefill(0, tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("error:.*encountered:RuntimeWarning")
def test_weights_that_overflow_give_logits_that_are_not_finite_without_a_warning(
    tmp_path: Path,
) -> None:
    weights = {
        name: np.full(shape, 1e38, np.float32) for name, shape in SMALL.tensor_shapes().items()
    }
    litert_conversion.convert(weights, SMALL, tmp_path, "none")
    with np.errstate(all="ignore"):
        assert not np.isfinite(LiteRTEngine(tmp_path, SMALL).prefill(0, [3, 5])).all()


def huge(name: str, number: float) -> dict[str, np.ndarray]:
    """Return weights of which one tensor, or the last of its numbers, is too large."""
    weights = weights_of(SMALL, seed=3)
    weights[name].flat[-1] = number
    return weights


@pytest.mark.filterwarnings("error:.*encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("quantize", "name", "number"),
    [
        ("int8", "model/h1/mlp/c_proj/w", np.inf),
        ("int8", "model/h1/attn/c_attn/w", np.nan),
        ("int8", "model/h0/ln_1/g", 1e38),  # times weights beyond 4
        ("int8", "model/wte", -np.inf),
        ("int4", "model/h1/mlp/c_fc/w", 1e19),
        ("int4", "model/h0/attn/c_proj/w", -5e5),
        ("int4", "model/h1/ln_2/g", 1e30),
        ("int4", "model/h1/attn/c_attn/w", np.nan),
        ("int4", "model/wte", np.nan),  # in int8
    ],
)
def test_weights_without_a_scale_are_refused(
    quantize: str, name: str, number: float, tmp_path: Path
) -> None:
    weights = huge(name, number)
    weights["model/h0/attn/c_attn/w"][:] = 4
    with pytest.raises(UserError, match=r"too large for quantize int[48].* Use quantize none\."):
        litert_conversion.convert(weights, SMALL, tmp_path, quantize)


@pytest.mark.parametrize(
    ("quantize", "number"), [("int8", 3e38), ("int4", 4.2e5), ("int4", -4.2e5)]
)
def test_the_largest_weights_that_have_a_scale_are_loaded(
    quantize: str, number: float, tmp_path: Path
) -> None:
    weights = huge("model/h1/mlp/c_proj/w", number)
    litert_conversion.convert(weights, SMALL, tmp_path, quantize)
    with np.errstate(all="ignore"):
        LiteRTEngine(tmp_path, SMALL).prefill(0, [3, 5])


@pytest.mark.parametrize(
    ("row", "numbers", "scale"),
    [
        ([127, 64, -1, 0], [127, 64, -1, 0], 1),
        ([254, 1, -1, 3], [127, 1, -1, 2], 2),  # halves are rounded away from zero
        ([-0.5, 0.25, 0.125, 0], [-127, 64, 32, 0], 0.5 / 127),
        ([0, 0, 0, 0], [0, 0, 0, 0], 5e-7 / 127),
        ([1e-7, -5e-8, 0, 1e-30], [25, -13, 0, 0], 5e-7 / 127),
    ],
)
def test_rows_become_whole_numbers_up_to_127(
    row: list[float], numbers: list[int], scale: float
) -> None:
    found, scales = as_int8(np.array([row], np.float32))
    assert found.dtype == np.int8
    assert found[0].tolist() == numbers
    np.testing.assert_allclose(scales, [[scale]], rtol=1e-6)


def test_weights_are_exchanged_at_their_places_only() -> None:
    shapes = {"w": (1, 3, 4), "b": (4,)}
    marks = recognizable(shapes)
    content = [b"head", marks["b"].tobytes(), b"between", marks["w"][0].T.tobytes(), b"end"]
    template = Template.of(b"".join(content), marks, [as_int8, as_float32])
    matrix, bias = np.arange(12, dtype=np.float32).reshape(1, 3, 4), np.ones(4, np.float32)
    content[1], content[3] = bias.tobytes(), matrix[0].T.tobytes()
    assert template.filled({"w": matrix, "b": bias}) == b"".join(content)
    assert template.filled(marks) == template.program
