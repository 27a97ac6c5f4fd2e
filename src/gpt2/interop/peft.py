"""LoRA adapters in the files of PEFT: the low-rank updates of a model, without the model.

    adapter_config.json          rank, alpha, names of the adapted modules
    adapter_model.safetensors    base_model.model.transformer.h.0.attn.c_attn.lora_A.weight [r, in]
                                 base_model.model.transformer.h.0.attn.c_attn.lora_B.weight [out, r]

An adapted matrix [in, out] is W + scale (B A)^T, where scale is alpha / r, or alpha / sqrt(r) with
rsLoRA (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732).

Source: `peft.LoraConfig` and `peft.utils.save_and_load` of PEFT 0.21.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2 import files
from gpt2.checkpoint import bundle, state
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import BEST, RunFolder
from gpt2.checks import is_count, is_finite
from gpt2.errors import UserError, quoted
from gpt2.hparams import HParams
from gpt2.interop import safetensors_file
from gpt2.interop.from_huggingface import torch_name
from gpt2.interop.stored import StoredTensor
from gpt2.interop.weights import PortableModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (CONFIG, WEIGHTS)  # what `write` writes and may replace

_TENSOR = re.compile(r"base_model\.model\.(?:transformer\.)?(.+)\.lora_([AB])\.weight")
# Fields of adapter_config.json that leave the computation of the tensors as it is. Any other field
# that is set is refused, so that a feature of a later PEFT is never ignored.
_HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
    "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
})  # fmt: skip
# Initializations that leave the base model's weights as they are; others subtract from them.
_INITIALIZATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Low-rank updates of a model's matrices.

    Attributes:
        path: where it comes from, for messages.
        scale: of the product of the factors.
        factors: by name of the matrix, such as `model/h0/attn/c_attn/w`: a [in, r], b [r, out].
    """

    path: Path
    scale: float
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def apply(self, base: PortableModel) -> PortableModel:
        """Return the base model with the updates added, which are computed when read.

        Raises:
            UserError: while reading: a value is beyond float32.
        """

        def read(name: str) -> np.ndarray:
            values = base.read(name)
            if name not in self.factors:
                return values
            a, b = self.factors[name]
            with np.errstate(over="ignore", invalid="ignore"):
                adapted = values + (np.float32(self.scale) * (a @ b)).reshape(values.shape)
            if not np.isfinite(adapted).all():
                raise UserError(
                    f"{self.path}: its update of {name} is beyond float32. Copy the adapter again."
                )
            return adapted

        return dataclasses.replace(base, read=read)


# --- reading ---


def base_name(folder: Path) -> str | None:
    """Return the name of the base model in `adapter_config.json`, None if it does not say.

    Raises:
        UserError: the file is missing or not a JSON object.
    """
    name = _read_config(folder).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def open_adapter(folder: Path, hparams: HParams) -> Adapter:
    """Return the adapter of a folder that PEFT wrote.

    Args:
        hparams: sizes of the base model.

    Raises:
        UserError: a file is missing or invalid, the adapter belongs to a model of another size, or
            it does what OpenAI's format cannot express; the message names the difference.
    """
    config_path, path = folder / CONFIG, folder / WEIGHTS
    config = _read_config(folder)
    scale = _scale(config_path, config)
    if not path.is_file():
        raise UserError(f"{path} is missing. Copy it from the folder that PEFT wrote.")
    shapes = {
        torch_name(name).removesuffix(".weight"): (name, shape[1:])
        for name, shape in hparams.tensor_shapes().items()
        if name.endswith("/w")
    }
    found: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in safetensors_file.read(path).items():
        parts = _TENSOR.fullmatch(name)
        if not parts:
            raise UserError(
                f"{path}: tensor {quoted(name, 120)} is not a LoRA factor of a matrix. Only LoRA "
                "of c_attn, c_proj and c_fc can be read."
            )
        if parts[1] not in shapes:
            raise UserError(
                f"{path}: the base model has no matrix {quoted(parts[1])}. Only LoRA of c_attn, "
                "c_proj and c_fc in its layers can be read."
            )
        found.setdefault(parts[1], {})[parts[2]] = tensor
    _check_complete(folder, config, found, shapes)
    factors = {
        shapes[module][0]: _factors(path, config["r"], module, pair, shapes[module][1])
        for module, pair in found.items()
    }
    return Adapter(folder, scale, factors)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    if not path.is_file():
        raise UserError(f"{path} is missing. Give the folder of an adapter that PEFT wrote.")
    return files.read_json_object(path)


def _scale(path: Path, config: Mapping[str, Any]) -> float:
    """Return the scale of the updates, after checking that the adapter is plain LoRA."""
    if (kind := config.get("peft_type")) != "LORA":
        raise UserError(f"{path}: peft_type is {quoted(kind)}. Only LORA can be read.")
    if (bias := config.get("bias", "none")) != "none":
        raise UserError(f"{path}: bias is {quoted(bias)}. Only 'none' can be read.")
    if (start := config.get("init_lora_weights")) not in _INITIALIZATIONS:
        raise UserError(
            f"{path}: init_lora_weights is {quoted(start)}, which changes the base model's "
            "weights. Convert the adapter to plain LoRA with PEFT's save_pretrained("
            "path_initial_model_for_weight_conversion=...)."
        )
    for name, value in config.items():
        if value and name not in _HARMLESS:
            raise UserError(
                f"{path}: {quoted(name)} is set ({quoted(value)}). Only plain LoRA can be read; "
                "merge the adapter with PEFT's merge_and_unload and convert the model with from_hf."
            )
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    if not is_count(rank) or rank < 1:
        raise UserError(f"{path}: r is {quoted(rank)}; expected a whole number above 0.")
    if not is_finite(alpha) or abs(alpha) > 1e30:
        raise UserError(f"{path}: lora_alpha is {quoted(alpha)}; expected a number.")
    if type(rslora := config.get("use_rslora", False)) is not bool:
        raise UserError(f"{path}: use_rslora is {quoted(rslora)}; expected true or false.")
    return float(alpha / (rank**0.5 if rslora else rank))


def _check_complete(
    folder: Path,
    config: Mapping[str, Any],
    found: Mapping[str, Mapping[str, object]],
    modules: Collection[str],
) -> None:
    """Check that each adapted module has both factors, and that no module is missing."""
    path = folder / WEIGHTS
    expected = set(found)
    targets = config.get("target_modules")
    narrowed = config.get("layers_to_transform") is not None or config.get("exclude_modules")
    if isinstance(targets, list) and not narrowed:
        endings = tuple("." + str(target) for target in targets)
        expected |= {name for name in modules if f".transformer.{name}".endswith(endings)}
    for module in sorted(expected):
        for letter in "AB":
            if letter not in found.get(module, {}):
                raise UserError(
                    f"{path}: the factor {module}.lora_{letter} is missing. Copy the file again, "
                    "or name the base model that the adapter was trained for."
                )
    if not found:
        raise UserError(f"{path}: there is no tensor in it. Copy the file again.")


def _factors(
    path: Path,
    rank: int,
    module: str,
    pair: Mapping[str, StoredTensor],
    shape: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Return a [in, r] and b [r, out] of a module whose matrix is [in, out]."""
    inputs, outputs = shape
    for letter, expected in (("A", (rank, inputs)), ("B", (outputs, rank))):
        if (found := pair[letter].shape) != expected:
            raise UserError(
                f"{path}: {module}.lora_{letter} has shape {list(found)}; expected "
                f"{list(expected)}. Name the base model that the adapter was trained for."
            )
    a, b = (pair[letter].read(f"{module}.lora_{letter}").T for letter in "AB")
    return a, b


# --- writing ---


def trained_adapter(model: ModelFolder) -> Adapter:
    """Return the LoRA updates of a run's checkpoint, from the resume state saved beside it.

    Raises:
        UserError: the run was trained without LoRA, or the state is missing or damaged.
    """
    checkpoint = model.checkpoint
    run = RunFolder(model.path.parent if model.path.name == BEST else model.path)
    prefix = run.state_of(checkpoint)
    if state.read_facts(prefix, checkpoint) is None:
        raise UserError(
            f"{checkpoint}: there is no resume state {prefix.name} beside it, which has the LoRA "
            "updates. A run keeps those of its newest two checkpoints; resume it for one step."
        )
    tensors = state.read_tensors(prefix)
    if "lora/scale" not in tensors:
        raise UserError(
            f"{checkpoint}: trained without LoRA, so there is no adapter. Train with lora_rank, or "
            "convert the model with to_hf."
        )
    for name, values in tensors.items():
        if name.startswith("lora/") and not np.isfinite(values).all():
            raise UserError(f"{prefix}: {name} contains NaN or infinite values.")
    names = [name.removeprefix("lora/a/") for name in tensors if name.startswith("lora/a/")]
    factors = {name: (tensors[f"lora/a/{name}"], tensors[f"lora/b/{name}"]) for name in names}
    return Adapter(checkpoint, float(tensors["lora/scale"]), factors)


def check_base(adapter: Adapter, base: ModelFolder, adapted: ModelFolder) -> None:
    """Check that a base model with the adapter is the adapted model, up to rounding.

    Raises:
        UserError: the sizes or a tensor differ.
    """
    if base.hparams != adapted.hparams:
        raise UserError(
            f"{base.path} has other sizes in hparams.json than {adapted.path}. Set base to the "
            "model that the run was trained from."
        )
    read = bundle.tensor_reader(adapted.checkpoint, adapted.hparams)
    base_read = bundle.tensor_reader(base.checkpoint, base.hparams)
    merged = adapter.apply(PortableModel(base.hparams, {}, [], base_read))
    for name, values in merged.tensors():
        if not np.allclose(values, read(name), rtol=1e-5, atol=1e-6):
            raise UserError(
                f"{base.checkpoint} is not the model that {adapted.checkpoint} was trained from "
                f"({name} differs). Set base to that model."
            )


def write(path: Path, adapter: Adapter, hub_name: str | None, overwrite: bool = False) -> None:
    """Write the two files of an adapter, atomically.

    Args:
        hub_name: name of the base model on the Hugging Face hub, None if it is not there.
        overwrite: replace a folder of these files.

    Raises:
        UserError: the folder exists or cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    modules = []
    for name, (a, b) in adapter.factors.items():
        module = "transformer." + torch_name(name).removesuffix(".weight")
        modules.append(module)
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b.T)
    rank = next(iter(adapter.factors.values()))[0].shape[1]
    alpha = float(f"{adapter.scale * rank:.6g}")  # the scale is stored in float32
    config = {
        "base_model_name_or_path": hub_name,
        "bias": "none",
        "fan_in_fan_out": True,  # Conv1D keeps its matrix as [in, out]
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    shapes = {name: values.shape for name, values in tensors.items()}
    with files.atomic_folder(path, FILES if overwrite else ()) as folder:
        safetensors_file.write(folder / WEIGHTS, shapes, "float32", tensors.__getitem__)
        files.write_json(folder / CONFIG, config)
