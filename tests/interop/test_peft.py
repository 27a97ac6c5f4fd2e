"""LoRA adapters that PEFT wrote are read, or refused by what makes them differ.

The adapters and their logits in tests/golden/peft come from make_peft.py beside it.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.interop import from_huggingface, model_card, peft, safetensors_file
from gpt2.interop.from_huggingface import ReadingOptions
from gpt2.interop.weights import PortableModel

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
PEFT = GOLDEN / "peft"


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Tokens [1, 12], and the logits of the base model with each adapter."""
    with np.load(PEFT / "logits.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def base() -> PortableModel:
    return from_huggingface.open_model(GOLDEN / "interop" / "transformers", ReadingOptions())


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A copy of an adapter, to be changed."""
    return Path(shutil.copytree(PEFT / "plain", tmp_path / "plain"))


def logits(model: PortableModel, tokens: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    from gpt2 import model as reference

    weights = {name: tf.constant(values) for name, values in model.tensors()}
    return reference.logits(weights, model.hparams, tf.constant(tokens, tf.int32)).numpy()


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / peft.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder: Path, **changes: np.ndarray | None) -> None:
    """Replace tensors of a file, add them, or leave them out (None), by the end of their names."""
    path = folder / peft.WEIGHTS
    found = safetensors_file.read(path)
    tensors = {name: tensor.read(name) for name, tensor in found.items()}
    for ending, values in changes.items():
        names = [name for name in tensors if name.endswith(ending)] or [ending]
        for name in names:
            if values is None:
                del tensors[name]
            else:
                tensors[name] = values
    shapes = {name: values.shape for name, values in tensors.items()}
    safetensors_file.write(path, shapes, "float32", tensors.__getitem__)


@pytest.mark.parametrize("name", ["plain", "rslora", "one_layer"])
def test_the_logits_are_those_of_peft(
    name: str, base: PortableModel, arrays: dict[str, np.ndarray]
) -> None:
    adapted = peft.open_adapter(PEFT / name, base.hparams).apply(base)
    found = logits(adapted, arrays["tokens"])
    np.testing.assert_allclose(found, arrays[f"logits_{name}"], atol=1e-4)
    assert np.abs(found - logits(base, arrays["tokens"])).max() > 0.1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dora", "use_dora"),
        ("embedding", "wte.lora_embedding_A"),
        ("biases", "bias is 'all'"),
        ("ranks", "rank_pattern"),
        ("saved_module", "modules_to_save"),
        ("pissa", "init_lora_weights is 'pissa'"),
    ],
)
def test_what_openai_cannot_express_is_refused_by_its_name(
    name: str, sentence: str, base: PortableModel
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        peft.open_adapter(PEFT / name, base.hparams)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"r": 0}, "r is 0"),
        ({"r": 2}, "has shape [3, 8]; expected [2, 8]"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
        ({"lora_alpha": 1e400}, "lora_alpha is inf"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
        ({"alpha_pattern": {"c_fc": 3}}, "alpha_pattern"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"of_a_later_version": 1}, "of_a_later_version"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"init_lora_weights": []}, "init_lora_weights is []"),
    ],
)
def test_a_config_that_changes_the_result_is_refused(
    changes: dict[str, Any], sentence: str, base: PortableModel, plain: Path
) -> None:
    change_config(plain, **changes)
    with pytest.raises(UserError, match=re.escape(sentence)):
        peft.open_adapter(plain, base.hparams)


def test_a_factor_that_is_missing_is_named(base: PortableModel, plain: Path) -> None:
    change_tensors(plain, **{"h.1.mlp.c_fc.lora_B.weight": None})
    with pytest.raises(UserError, match=r"h\.1\.mlp\.c_fc\.lora_B is missing"):
        peft.open_adapter(plain, base.hparams)


def test_a_module_that_is_missing_is_named(base: PortableModel, plain: Path) -> None:
    change_tensors(plain, **{f"h.1.mlp.c_fc.lora_{letter}.weight": None for letter in "AB"})
    with pytest.raises(UserError, match=r"h\.1\.mlp\.c_fc\.lora_A is missing"):
        peft.open_adapter(plain, base.hparams)


def test_an_adapter_of_fewer_layers_is_refused(base: PortableModel) -> None:
    sizes = vars(base.hparams) | {"n_layer": 3}
    with pytest.raises(UserError, match=r"h\.2\.\S+ is missing.*base model"):
        peft.open_adapter(PEFT / "plain", HParams(**sizes))


def test_an_adapter_of_more_layers_is_refused(base: PortableModel) -> None:
    sizes = vars(base.hparams) | {"n_layer": 1}
    with pytest.raises(UserError, match=r"no matrix 'h\.1\."):
        peft.open_adapter(PEFT / "plain", HParams(**sizes))


def test_an_adapter_of_another_width_is_refused(base: PortableModel) -> None:
    sizes = vars(base.hparams) | {"n_embd": 16}
    with pytest.raises(UserError, match=r"shape \[3, 8\]; expected \[3, 16\]"):
        peft.open_adapter(PEFT / "plain", HParams(**sizes))


def test_a_value_that_is_not_finite_is_refused(base: PortableModel, plain: Path) -> None:
    change_tensors(plain, **{"h.0.attn.c_attn.lora_A.weight": np.full((3, 8), np.nan, np.float32)})
    with pytest.raises(UserError, match=r"h\.0\.attn\.c_attn\.lora_A contains NaN"):
        peft.open_adapter(plain, base.hparams)


def test_an_update_beyond_float32_is_refused(base: PortableModel, plain: Path) -> None:
    huge = {"A": np.full((3, 8), 1e30, np.float32), "B": np.full((24, 3), 1e30, np.float32)}
    for letter, values in huge.items():
        change_tensors(plain, **{f"h.0.attn.c_attn.lora_{letter}.weight": values})
    adapted = peft.open_adapter(plain, base.hparams).apply(base)
    with pytest.raises(UserError, match=r"model/h0/attn/c_attn/w is beyond float32"):
        dict(adapted.tensors())


def test_files_that_are_missing_or_cut_off_are_refused(base: PortableModel, plain: Path) -> None:
    weights = plain / peft.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a valid safetensors file"):
        peft.open_adapter(plain, base.hparams)
    weights.unlink()
    with pytest.raises(UserError, match=rf"{peft.WEIGHTS} is missing"):
        peft.open_adapter(plain, base.hparams)
    (plain / peft.CONFIG).unlink()
    with pytest.raises(UserError, match=rf"{peft.CONFIG} is missing"):
        peft.open_adapter(plain, base.hparams)
    with pytest.raises(UserError, match="no such folder"):
        peft.open_adapter(plain / "nothing", base.hparams)


@pytest.mark.parametrize("name", ["plain", "one_layer"])
def test_a_written_adapter_has_the_tensors_that_peft_writes(
    name: str, base: PortableModel, tmp_path: Path
) -> None:
    peft.write(tmp_path / "out", peft.open_adapter(PEFT / name, base.hparams), "someone/small")
    written, expected = (
        {name: tensor.read(name) for name, tensor in safetensors_file.read(path).items()}
        for path in (tmp_path / "out" / peft.WEIGHTS, PEFT / name / peft.WEIGHTS)
    )
    assert list(written) == sorted(written)
    assert sorted(written) == sorted(expected)
    for tensor, values in expected.items():
        np.testing.assert_array_equal(written[tensor], values)
    config, reference = (
        json.loads((path / peft.CONFIG).read_text()) for path in (tmp_path / "out", PEFT / name)
    )
    same = set(config) - {"target_modules"}
    assert {key: config[key] for key in same} == {key: reference[key] for key in same}
    assert peft.base_name(tmp_path / "out") == "someone/small"
    peft.open_adapter(tmp_path / "out", base.hparams)


def test_released_models_have_names_on_the_hub() -> None:
    for name in ("124M", "117M", "1558M"):
        hub = model_card.hub_name(name)
        assert hub
        assert model_card.hub_name(str(model_card.released_name(hub))) == hub
    assert model_card.released_name("gpt2-medium") == "355M"
    assert model_card.released_name("someone/gpt2") is None
    assert model_card.hub_name("run1") is None
