"""Writes GGUF files of any content by the specification, without the package gguf."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

F32, F16, Q4_0, Q8_0, BF16 = 0, 1, 2, 8, 30
U32, I32, FLOAT, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
_CODES = {U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?", U64: "<Q"}


@dataclasses.dataclass
class Tensor:
    """A tensor with the type, the dimensions (contiguous one first) and the bytes to write."""

    kind: int
    dimensions: tuple[int, ...]
    content: bytes
    offset: int | None = None  # instead of the right one

    @classmethod
    def of(cls, values: np.ndarray, kind: int = F32) -> Tensor:
        """A tensor of these values; q8_0 rounds to blocks of 32 with scale max/127."""
        values = np.ascontiguousarray(values, "<f4")
        if kind == F32:
            content = values.tobytes()
        elif kind == F16:
            content = values.astype("<f2").tobytes()
        elif kind == BF16:
            content = (values.view("<u4") >> 16).astype("<u2").tobytes()
        else:
            content = b""
            for block in values.reshape(-1, 32):
                scale = np.float16(np.abs(block).max() / 127)
                numbers = np.round(block / np.float32(scale)) if scale else np.zeros(32)
                content += scale.tobytes() + numbers.clip(-127, 127).astype(np.int8).tobytes()
        return cls(kind, values.shape[::-1], content)


def text(value: str | bytes) -> bytes:
    """A string with its length."""
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def value(kind: int, content: Any, inner: int = STRING) -> bytes:
    """A value behind its type."""
    if kind == ARRAY:
        items = b"".join(value(inner, item)[4:] for item in content)
        return struct.pack("<IIQ", ARRAY, inner, len(content)) + items
    if kind == STRING:
        return struct.pack("<I", STRING) + text(content)
    return struct.pack("<I", kind) + struct.pack(_CODES[kind], content)


def gguf(
    values: Mapping[str, bytes],
    tensors: Mapping[str, Tensor],
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file.

    Args:
        values: see `value`.
        counts: of tensors and keys, instead of the right ones.
    """
    counts = counts or (len(tensors), len(values))
    header = b"GGUF" + struct.pack("<IQQ", version, *counts)
    header += b"".join(text(key) + content for key, content in values.items())
    data = b""
    for name, tensor in tensors.items():
        data += bytes(-len(data) % 32)
        offset = len(data) if tensor.offset is None else tensor.offset
        header += text(name) + struct.pack("<I", len(tensor.dimensions))
        header += struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions)
        header += struct.pack("<IQ", tensor.kind, offset)
        data += tensor.content
    return header + bytes(-len(header) % 32) + data


TOKENS = ["a", "b", "Ġ", "ab", "<|endoftext|>", "[PAD5]"]
LAYER = {
    "attn_norm.weight": (32,), "attn_norm.bias": (32,),
    "attn_qkv.weight": (96, 32), "attn_qkv.bias": (96,),
    "attn_output.weight": (32, 32), "attn_output.bias": (32,),
    "ffn_norm.weight": (32,), "ffn_norm.bias": (32,),
    "ffn_up.weight": (128, 32), "ffn_up.bias": (128,),
    "ffn_down.weight": (32, 128), "ffn_down.bias": (32,),
}  # fmt: skip
SHAPES = {
    "token_embd.weight": (6, 32),
    "position_embd.weight": (8, 32),
    **{f"blk.0.{name}": shape for name, shape in LAYER.items()},
    "output_norm.weight": (32,),
    "output_norm.bias": (32,),
}


def small_values(**changes: bytes | None) -> dict[str, bytes]:
    """The keys of a GPT-2 of one layer, hidden size 32 and six tokens; None leaves one out.

    Args:
        changes: by key, with double underscores for dots.
    """
    values: dict[str, bytes | None] = {
        "general.architecture": value(STRING, "gpt2"),
        "gpt2.context_length": value(U32, 8),
        "gpt2.embedding_length": value(U32, 32),
        "gpt2.block_count": value(U32, 1),
        "gpt2.feed_forward_length": value(U32, 128),
        "gpt2.attention.head_count": value(U32, 2),
        "gpt2.attention.layer_norm_epsilon": value(FLOAT, 1e-5),
        "tokenizer.ggml.model": value(STRING, "gpt2"),
        "tokenizer.ggml.pre": value(STRING, "gpt-2"),
        "tokenizer.ggml.tokens": value(ARRAY, TOKENS),
        "tokenizer.ggml.token_type": value(ARRAY, [1, 1, 1, 1, 3, 5], I32),
        "tokenizer.ggml.merges": value(ARRAY, ["a b"]),
    }
    values |= {key.replace("__", "."): content for key, content in changes.items()}
    return {key: content for key, content in values.items() if content is not None}


def small_numbers() -> dict[str, np.ndarray]:
    """Values of its tensors, in the shapes of llama.cpp."""
    random = np.random.default_rng(1)
    return {
        name: (random.integers(-64, 65, shape) / 64).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def small_tensors(kind: int = F32) -> dict[str, Tensor]:
    """These tensors, the matrices of this type."""
    return {
        name: Tensor.of(values, kind if values.ndim == 2 and name[0] != "p" else F32)
        for name, values in small_numbers().items()
    }


def small(kind: int = F32) -> bytes:
    """The file of that GPT-2."""
    return gguf(small_values(), small_tensors(kind))
