"""GGUF, the format of llama.cpp, Ollama and LM Studio.

A file has a header of keys and values (sizes and vocabulary), a list of the tensors (name, shape,
type, offset), and their values. Files are written by the `gguf` package. They are read here without
it, since a file may come from anybody: no memory is allocated from a number in the file, and every
fault ends as one `UserError`.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names of the tensors:
llama.cpp's architecture "gpt2".
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2 import files
from gpt2.checkpoint.bundle import from_bfloat16
from gpt2.errors import UserError, cannot_read, in_short, quoted
from gpt2.hparams import HParams
from gpt2.interop.hub_config import EPSILON
from gpt2.interop.weights import PortableModel
from gpt2.tokenizer import ENDOFTEXT
from gpt2.tokenizer.vocabulary import special_tokens, spelled

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURE = "gpt2"
TOKENIZER, PRE_TOKENIZER = "gpt2", "gpt-2"
TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")

# OpenAI's names and llama.cpp's; the weights of a layer are below h0/ and blk.0.
_TENSORS = {
    "wte": "token_embd.weight",
    "wpe": "position_embd.weight",
    "ln_f/g": "output_norm.weight",
    "ln_f/b": "output_norm.bias",
}
_LAYER = {
    "ln_1": "attn_norm",
    "attn/c_attn": "attn_qkv",
    "attn/c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp/c_fc": "ffn_up",
    "mlp/c_proj": "ffn_down",
}
_ENDINGS = {"w": "weight", "g": "weight", "b": "bias"}
_OUTPUT = "output.weight"  # old files repeat the token embedding as the output matrix


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a tensor.

    Example:
        >>> gguf_name("model/h3/attn/c_attn/w")
        'blk.3.attn_qkv.weight'
    """
    name = name.removeprefix("model/")
    if name in _TENSORS:
        return _TENSORS[name]
    layer, rest = name.split("/", 1)
    part, _, ending = rest.rpartition("/")
    return f"blk.{layer[1:]}.{_LAYER[part]}.{_ENDINGS[ending]}"


# --- writing ---


def load_package() -> None:
    """Import the package gguf.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise UserError(
            "GGUF files need the package gguf, which is not installed. Install it with: "
            "pip install gguf"
        ) from error


def write_gguf(
    path: Path,
    model: PortableModel,
    type_: str,
    name: str,
    progress: Callable[[int], object] = lambda tensors: None,
) -> None:
    """Write a model as one GGUF file, atomically, with one tensor in memory at a time.

    Matrices and the token embedding get the type; biases, gains and position embeddings stay
    float32, as llama.cpp needs them. Rows that a quantized type cannot divide into its blocks, and
    with q4_0 the token embedding, which is also the output matrix, get more precise types.

    Args:
        type_: one of `TYPES`.
        name: of the model, which programs show.
        progress: called with the number of tensors written since the last call.

    Raises:
        UserError: the file cannot be written, the vocabulary has no merges, a weight is too large
            for the type, or the package gguf is missing.
    """
    load_package()
    import gguf

    model.check_vocabulary()
    if not model.merges:
        raise UserError(
            "The vocabulary has no merges, without which llama.cpp does not load a model. Use a "
            "model with a larger vocabulary."
        )
    shapes = model.hparams.tensor_shapes()
    plan = {gguf_name(key): (key, _planned(key, shape, type_)) for key, shape in shapes.items()}
    with (
        files.atomic_write(path) as file,
        contextlib.closing(gguf.GGUFWriter(file.name, ARCHITECTURE)) as writer,
    ):
        _add_header(writer, model, type_, name)
        for tensor, (key, kind) in plan.items():
            shape = _stored_shape(shapes[key])
            quantized = gguf.GGMLQuantizationType[kind]
            size = math.prod(gguf.quant_shape_to_byte_shape(shape, quantized))
            writer.add_tensor_info(tensor, shape, np.dtype(np.float32), size, quantized)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for key, kind in plan.values():
            values = model.read(key)
            values = values[0].T if values.ndim == 3 else values  # [1, in, out] -> [out, in]
            _check_range(values, kind, key)
            quantized = gguf.GGMLQuantizationType[kind]
            writer.write_tensor_data(gguf.quantize(np.ascontiguousarray(values), quantized))
            progress(1)


# Largest absolute value of each type; the scale of a block is float16.
_LARGEST = {"F16": 65504.0, "BF16": 3.38e38, "Q8_0": 127 * 65504.0, "Q4_0": 8 * 65504.0}


def _check_range(values: np.ndarray, kind: str, name: str) -> None:
    """Raise `UserError` if a value would become infinite."""
    largest = np.abs(values).max()
    if largest > _LARGEST.get(kind, math.inf):
        raise UserError(
            f"Tensor {name} has values up to {largest:g}, too large for {kind.lower()}. Use f32."
        )


def _planned(name: str, shape: tuple[int, ...], type_: str) -> str:
    """Return the type of one tensor, as the gguf package names it."""
    if len(shape) == 1 or name == "model/wpe":
        return "F32"
    row = _stored_shape(shape)[-1]
    if type_ in ("q8_0", "q4_0") and row % _BLOCK:
        return "F16"
    if type_ == "q4_0" and name == "model/wte":
        return "Q8_0"
    return type_.upper()


def _stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in the file: matrices are transposed and have two dimensions."""
    return (shape[2], shape[1]) if len(shape) == 3 else shape


def _add_header(writer: GGUFWriter, model: PortableModel, type_: str, name: str) -> None:
    import gguf

    hparams = model.hparams
    kinds = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    }
    writer.add_name(name)
    writer.add_block_count(hparams.n_layer)
    writer.add_context_length(hparams.n_ctx)
    writer.add_embedding_length(hparams.n_embd)
    writer.add_feed_forward_length(4 * hparams.n_embd)
    writer.add_head_count(hparams.n_head)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_file_type(kinds[type_])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    tokens, types = _tokens(model)
    writer.add_tokenizer_model(TOKENIZER)
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in model.merges])
    endoftext = model.vocabulary.get(spelled(ENDOFTEXT))
    if endoftext is not None:
        writer.add_bos_token_id(endoftext)
        writer.add_eos_token_id(endoftext)
        writer.add_unk_token_id(endoftext)
    writer.add_add_bos_token(False)


_NORMAL, _CONTROL, _UNUSED = 1, 3, 5  # kinds of tokens in llama.cpp


def _tokens(model: PortableModel) -> tuple[list[str], list[int]]:
    """Return the token of each id, and its kind; an id without a token gets a placeholder."""
    tokens = [f"[PAD{number}]" for number in range(model.hparams.n_vocab)]
    kinds = [_UNUSED] * len(tokens)
    for token, number in model.vocabulary.items():
        tokens[number], kinds[number] = token, _NORMAL
    for number in special_tokens(model.vocabulary).values():
        kinds[number] = _CONTROL
    return tokens, kinds


# --- reading ---

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_BLOCK = 32  # numbers that share a scale in q8_0 and q4_0
# ggml's number of each type that can be read, and bytes of a block of so many values.
_READABLE = {
    0: ("f32", 4, 1),
    1: ("f16", 2, 1),
    8: ("q8_0", 34, _BLOCK),
    30: ("bf16", 2, 1),
}
# Limits against malicious files; a GPT-2 needs a tenth of them at most.
_MOST_HEADER = 64 << 20
_MOST_KEYS, _MOST_TENSORS, _LONGEST_KEY = 4096, 16384, 4096
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


@dataclasses.dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]  # the last dimension is contiguous, as in NumPy
    kind: int
    offset: int  # from the start of the file

    @property
    def size(self) -> int:
        """Bytes in the file, for a readable type."""
        _, width, block = _READABLE[self.kind]
        return math.prod(self.shape) // block * width


def open_gguf(path: Path) -> PortableModel:
    """Return the GPT-2 in a GGUF file of f32, f16, bf16 or q8_0 tensors, without its weights.

    Raises:
        UserError: the file is unreadable, corrupted, of another architecture or of another type; or
            it has a difference from OpenAI's GPT-2 that a model folder cannot express.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            header = _Header(file.read(min(size, _MOST_HEADER)))
        values, tensors = header.parse()
        _check_places(tensors, size)
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValueError, struct.error) as error:
        raise UserError(
            f"{path}: not a GGUF file, or corrupted ({in_short(error)}). Copy or download it again."
        ) from error
    hparams = _hparams(path, values)
    vocabulary, merges = _vocabulary(path, values, hparams)
    _check_tensors(path, tensors, hparams)
    _check_output(path, tensors)
    shapes = hparams.tensor_shapes()

    def read(name: str) -> np.ndarray:
        numbers = _numbers(path, tensors[gguf_name(name)], gguf_name(name))
        shape = shapes[name]
        return np.ascontiguousarray(numbers.T).reshape(shape) if len(shape) == 3 else numbers

    return PortableModel(hparams, vocabulary, merges, read)


class _Header:
    """A parser of everything before the values; raises ValueError or struct.error."""

    def __init__(self, content: bytes):
        self._content = content
        self._place = 0

    def parse(self) -> tuple[dict[str, Any], dict[str, _Tensor]]:
        """Return the keys and values, and the tensors by name."""
        if self._take(4) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._scalar("<I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version}; supported: 2 and 3, little-endian")
        count, keys = self._scalar("<Q"), self._scalar("<Q")
        if count > _MOST_TENSORS or keys > _MOST_KEYS:
            raise ValueError(f"{count} tensors and {keys} keys are too many")
        values: dict[str, Any] = {}
        for _ in range(keys):
            key = self._name()
            if key in values:
                raise ValueError(f"the key {key} occurs twice")
            values[key] = self._value(self._scalar("<I"))
        found: dict[str, _Tensor] = {}
        for _ in range(count):
            name = self._name()
            if name in found:
                raise ValueError(f"the tensor {name} occurs twice")
            found[name] = self._tensor()
        alignment = values.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            raise ValueError("an impossible alignment")
        start = -(-self._place // alignment) * alignment
        placed = {
            name: dataclasses.replace(tensor, offset=start + tensor.offset)
            for name, tensor in found.items()
        }
        return values, placed

    def _take(self, size: int) -> bytes:
        end = self._place + size
        if end > len(self._content):
            raise ValueError("a length beyond the end of the header")
        part = self._content[self._place : end]
        self._place = end
        return part

    def _scalar(self, code: str) -> Any:
        return struct.unpack(code, self._take(struct.calcsize(code)))[0]

    def _text(self) -> str:
        return self._take(self._scalar("<Q")).decode("utf-8")

    def _name(self) -> str:
        name = self._text()
        if len(name) > _LONGEST_KEY or not name.isprintable():
            raise ValueError("an impossible name")
        return name

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise ValueError(f"a value of the unknown kind {kind}")
        inner, length = self._scalar("<I"), self._scalar("<Q")
        if inner in _SCALARS:  # as an array, which takes no more memory than the file
            dtype = np.dtype(_SCALARS[inner])
            return np.frombuffer(self._take(length * dtype.itemsize), dtype)
        if inner != _STRING:
            raise ValueError(f"an array of the unknown kind {inner}")
        if length > len(self._content) - self._place:  # a string has at least eight bytes
            raise ValueError("a length beyond the end of the header")
        return [self._text() for _ in range(length)]

    def _tensor(self) -> _Tensor:
        dimensions = self._scalar("<I")
        if dimensions > 4:
            raise ValueError("a tensor of more than four dimensions")
        shape = tuple(self._scalar("<Q") for _ in range(dimensions))
        return _Tensor(shape[::-1], self._scalar("<I"), self._scalar("<Q"))


def _check_places(tensors: Mapping[str, _Tensor], size: int) -> None:
    """Check that the tensors lie in the file one behind the other; of unreadable types, starts."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        length = tensor.size if tensor.kind in _READABLE else 0
        if tensor.offset < end:
            raise ValueError(f"the tensor {name} overlaps another")
        end = tensor.offset + length
        if end > size:
            raise ValueError(f"the file ends in the tensor {name}")


def _hparams(path: Path, values: Mapping[str, Any]) -> HParams:
    """Return the sizes in the header."""
    architecture = values.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise UserError(
            f"{path}: a model of the architecture {quoted(architecture)}, not {ARCHITECTURE!r}. "
            "Only a GPT-2 can be converted."
        )
    tokens = values.get("tokenizer.ggml.tokens")
    names = {
        "n_ctx": "context_length",
        "n_embd": "embedding_length",
        "n_head": "attention.head_count",
        "n_layer": "block_count",
    }
    sizes: dict[str, Any] = {
        field: values.get(f"{ARCHITECTURE}.{key}") for field, key in names.items()
    }
    for field, key in names.items():
        if type(sizes[field]) is not int:
            raise UserError(f"{path}: the key {ARCHITECTURE}.{key} is missing or not a number.")
    if not isinstance(tokens, list):
        raise UserError(f"{path}: has no vocabulary (tokenizer.ggml.tokens). Use another file.")
    hparams = HParams(n_vocab=len(tokens), **sizes)
    try:
        hparams.check()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    differences = {
        "feed_forward_length": 4 * hparams.n_embd,
        "attention.head_count_kv": hparams.n_head,
    }
    for key, expected in differences.items():
        found = values.get(f"{ARCHITECTURE}.{key}", expected)
        if found != expected:
            raise UserError(
                f"{path}: {key} is {quoted(found)}, but {expected} in every GPT-2 of this size. "
                "It cannot be converted."
            )
    epsilon = values.get(f"{ARCHITECTURE}.attention.layer_norm_epsilon", EPSILON)
    if not isinstance(epsilon, float) or not math.isclose(epsilon, EPSILON, rel_tol=1e-3):
        raise UserError(
            f"{path}: layer_norm_epsilon is {quoted(epsilon)}, but {EPSILON} in "
            "OpenAI's GPT-2. It cannot be converted."
        )
    return hparams


def _vocabulary(
    path: Path, values: Mapping[str, Any], hparams: HParams
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges in the header."""
    kind, pre = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre", PRE_TOKENIZER)
    if kind != TOKENIZER or pre != PRE_TOKENIZER:
        raise UserError(
            f"{path}: the tokenizer {quoted(kind)} with pre-tokenizer {quoted(pre)} is not "
            "GPT-2's. It cannot be converted."
        )
    tokens, lines = values["tokenizer.ggml.tokens"], values.get("tokenizer.ggml.merges", [])
    kinds = values.get("tokenizer.ggml.token_type", np.full(len(tokens), _NORMAL))
    merges = []
    if not isinstance(lines, list) or np.shape(kinds) != (len(tokens),):
        raise UserError(f"{path}: the vocabulary is corrupted. Copy or download the file again.")
    for line in lines:
        first, _, second = line.partition(" ")
        if not first or not second or " " in second:
            raise UserError(
                f"{path}: the merge {quoted(line)} is not two tokens. Copy or download the file "
                "again."
            )
        merges.append((first, second))
    vocabulary: dict[str, int] = {}
    for number, (token, token_kind) in enumerate(zip(tokens, kinds, strict=True)):
        if token_kind == _UNUSED:
            continue
        if not token or token in vocabulary:
            raise UserError(
                f"{path}: token {number} ({quoted(token)}) is empty or occurs twice. Copy or "
                "download the file again."
            )
        vocabulary[token] = number
    if not vocabulary:
        raise UserError(f"{path}: the vocabulary is empty. Use another file.")
    return vocabulary, merges


def _check_tensors(path: Path, tensors: Mapping[str, _Tensor], hparams: HParams) -> None:
    """Check names, shapes and types against the sizes."""
    expected = {gguf_name(name): shape for name, shape in hparams.tensor_shapes().items()}
    for name, shape in expected.items():
        if name not in tensors:
            raise UserError(f"{path}: missing tensor {name}; the file is not a whole GPT-2.")
        if tensors[name].shape != _stored_shape(shape):
            raise UserError(
                f"{path}: tensor {name} has shape {list(tensors[name].shape)}; expected "
                f"{list(_stored_shape(shape))} according to its header."
            )
        if tensors[name].kind not in _READABLE:
            raise UserError(
                f"{path}: tensor {name} has a quantized type (number {tensors[name].kind}) that "
                "cannot be converted. Use a file of type F32, F16, BF16 or Q8_0."
            )
    for name in tensors:
        if name not in expected and name != _OUTPUT:
            raise UserError(
                f"{path}: unexpected tensor {name}, which GPT-2 does not have. It cannot be "
                "converted."
            )


def _check_output(path: Path, tensors: Mapping[str, _Tensor]) -> None:
    """Check that an output matrix of its own, which old files have, is the token embedding."""
    embedding = _TENSORS["wte"]
    if _OUTPUT not in tensors:
        return
    output = tensors[_OUTPUT]
    if output.kind not in _READABLE or output.shape != tensors[embedding].shape:
        same = False
    else:
        same = np.array_equal(
            _numbers(path, output, _OUTPUT), _numbers(path, tensors[embedding], embedding)
        )
    if not same:
        raise UserError(
            f"{path}: the output matrix ({_OUTPUT}) differs from the token embedding, which is the "
            "output matrix in OpenAI's format. It cannot be converted."
        )


def _numbers(path: Path, tensor: _Tensor, name: str) -> np.ndarray:
    """Return the values of a tensor as float32, in its own shape."""
    kind, width, _ = _READABLE[tensor.kind]
    try:
        content = np.fromfile(path, np.uint8, tensor.size, offset=tensor.offset)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(content) != tensor.size:
        raise UserError(f"{path}: the file ends in the tensor {name}. Copy or download it again.")
    if kind == "q8_0":
        blocks = content.reshape(-1, width)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # [blocks, 1]
        with np.errstate(invalid="ignore"):  # 0 times an infinite scale, which is refused below
            numbers = blocks[:, 2:].view(np.int8) * scales  # [blocks, 32]
    elif kind == "bf16":
        numbers = from_bfloat16(content.view("<u2"))
    else:
        numbers = content.view("<f4" if kind == "f32" else "<f2").astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UserError(f"{path}: tensor {name} contains NaN or infinite values. Use another file.")
    return numbers.reshape(tensor.shape)
