"""`config.json` of transformers' GPT-2, and what in it OpenAI's format can express."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2.checks import is_count, is_finite
from gpt2.errors import UserError, quoted
from gpt2.hparams import HParams

CONFIG = "config.json"
GENERATION = "generation_config.json"
EPSILON = 1e-5

# The tanh form of GELU under the names that transformers gives it.
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
EXACT_GELU = "gelu"


def config(hparams: HParams, endoftext: int | None, dtype: str) -> dict[str, Any]:
    """Return the `config.json` of a model.

    Args:
        endoftext: id of the token that ends a text, None without one.
        dtype: type of the stored weights, such as float32.
    """
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": hparams.n_vocab,
        "n_positions": hparams.n_ctx,
        "n_ctx": hparams.n_ctx,
        "n_embd": hparams.n_embd,
        "n_head": hparams.n_head,
        "n_layer": hparams.n_layer,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": EPSILON,
        "initializer_range": 0.02,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "tie_word_embeddings": True,
        "bos_token_id": endoftext,
        "eos_token_id": endoftext,
        "torch_dtype": dtype,
    }


def generation_config(endoftext: int | None) -> dict[str, Any]:
    """Return the `generation_config.json` of a model."""
    return {"bos_token_id": endoftext, "eos_token_id": endoftext, "pad_token_id": endoftext}


def check_family(path: Path, content: Mapping[str, Any]) -> None:
    """Check that a `config.json` is a GPT-2's.

    Raises:
        UserError: it names another kind of model.
    """
    kind = content.get("model_type", "gpt2")
    if kind != "gpt2":
        raise UserError(f"{path}: the model is {quoted(kind)}, not GPT-2. Only GPT-2 can be used.")


def check_sizes(path: Path, content: Mapping[str, Any], hparams: HParams) -> None:
    """Check the sizes in a `config.json` against those of the weights.

    Raises:
        UserError: they differ; the message names the tensor and both sizes.
    """
    places = {
        "n_embd": ("n_embd", "wte"),
        "n_layer": ("n_layer", "h.*"),
        "vocab_size": ("n_vocab", "wte"),
        "n_positions": ("n_ctx", "wpe"),
    }
    for name, (size, tensor) in places.items():
        given = content.get(name)
        if given is not None and given != getattr(hparams, size):
            raise UserError(
                f"{path}: {name} is {quoted(given)}, but the tensor {tensor} has "
                f"{getattr(hparams, size)}. Use the config.json and the weights of one model."
            )
    inner = content.get("n_inner")
    if inner is not None and inner != 4 * hparams.n_embd:
        raise _cannot(path, f"n_inner is {quoted(inner)}, not 4 n_embd")


def check_computation(path: Path, content: Mapping[str, Any], approximate: bool) -> None:
    """Check that OpenAI's GPT-2 can compute what this model does.

    Args:
        approximate: accept exact GELU in the place of its tanh form.

    Raises:
        UserError: it cannot; the message names the difference.
    """
    activation = content.get("activation_function", "gelu_new")
    if activation == EXACT_GELU and not approximate:
        raise exact_gelu(path)
    if activation not in (*_TANH_GELU, EXACT_GELU):
        raise _cannot(path, f"the activation function is {quoted(activation)}, not GELU")
    epsilon = content.get("layer_norm_epsilon", EPSILON)
    if not is_finite(epsilon) or epsilon != EPSILON:
        raise _cannot(path, f"layer_norm_epsilon is {quoted(epsilon)}, not {EPSILON:g}")
    for name in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx"):
        if type(content.get(name, True)) is not bool:
            raise UserError(f"{path}: {name} is {quoted(content[name])}; expected true or false.")
    for name in ("add_cross_attention", "quantization_config"):
        if content.get(name):
            raise _cannot(path, f"the model has {name}")


def exact_gelu(path: Path) -> UserError:
    """Return the error for a model with another form of GELU."""
    return UserError(
        f"{path}: the model computes exact GELU; OpenAI's GPT-2 has the tanh form, which differs "
        "by up to 0.0005 per activation. Set approximate_gelu to allow the approximation."
    )


def query_scale(content: Mapping[str, Any], hparams: HParams, layer: int) -> float:
    """Return what a layer's queries must be multiplied by for attention as OpenAI computes it.

    OpenAI's GPT-2 divides the scores by the square root of the head size. A model that does not, or
    that also divides by the number of the layer, is the same with other queries.
    """
    scale = 1.0
    if not content.get("scale_attn_weights", True):
        scale *= (hparams.n_embd // hparams.n_head) ** 0.5
    if content.get("scale_attn_by_inverse_layer_idx", False):
        scale /= layer + 1
    return scale


def heads(path: Path, content: Mapping[str, Any]) -> int | None:
    """Return the number of attention heads in a `config.json`, None if it does not say.

    Raises:
        UserError: it is not a number of heads.
    """
    number = content.get("n_head")
    if number is None or (is_count(number) and number > 0):
        return number
    raise UserError(f"{path}: n_head is {quoted(number)}; expected a whole number above 0.")


def _cannot(path: Path, difference: str) -> UserError:
    return UserError(f"{path}: {difference}, which OpenAI's format cannot express.")
