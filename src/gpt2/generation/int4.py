"""4-bit weights for LiteRT programs (blockwise quantization).

A weight is a whole number from -8 to 7 times the scale that 32 neighbors in its row of the matrix
share: 4.5 bits per weight. XNNPACK quantizes the activations to 8 bits at run time, one scale for
each row, and multiplies integers.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import numpy as np

from gpt2.errors import UserError
from gpt2.hparams import HParams

BLOCK = 32
# A scale chosen for each block lowers the squared error by a fifth, compared with 7 for all.
LARGEST = (6.5, 7, 7.5, 8, 8.5)  # a block's largest weight, in multiples of the scale
SCALES = 2.0**-24, 65280.0  # the least and largest positive numbers of both float16 and bfloat16
MOST = SCALES[1] * LARGEST[0]  # weights beyond it would be cut off
OLDEST = 2, 1  # version of ai-edge-litert; 2.0 computes nonsense from these programs


def check(hparams: HParams) -> None:
    """Check that a model can have 4-bit weights here.

    Raises:
        UserError: blocks do not divide the hidden size, or the package ai-edge-litert is missing
            or too old, as the copy in TensorFlow may be.
    """
    if hparams.n_embd % BLOCK:
        raise UserError(
            f"quantize int4 needs a hidden size (n_embd) that is a multiple of {BLOCK}, not "
            f"{hparams.n_embd}. Use quantize int8."
        )
    if not _has_package():
        raise UserError(
            "quantize int4 needs the package ai-edge-litert {}.{} or newer. Install it with: "
            "pip install --upgrade ai-edge-litert".format(*OLDEST)
        )


def _has_package() -> bool:
    if importlib.util.find_spec("ai_edge_litert") is None:
        return False
    import ai_edge_litert

    version = re.match(r"(\d+)\.(\d+)", getattr(ai_edge_litert, "__version__", ""))
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST


def quantize_matrices(program: bytes) -> bytes:
    """Return a float32 program with the weights of its fully connected layers in 4 bits."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class Builder(flatbuffers.Builder):
        def StartVector(self, size: int, count: int, alignment: int) -> int:
            return super().StartVector(size, count, max(alignment, 16))  # as the format demands

    model = schema.ModelT.InitFromPackedBuf(program)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            if code == schema.BuiltinOperator.FULLY_CONNECTED:
                _quantize_tensor(schema, model, graph, graph.tensors[operator.inputs[1]])
    builder = Builder(len(program) // 4)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _quantize_tensor(schema: Any, model: Any, graph: Any, tensor: Any) -> None:
    """Replace a float32 matrix of a program by numbers of 4 bits and a tensor of their scales."""
    matrix = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
    numbers, scales = quantize_blocks(matrix.reshape(tensor.shape))
    model.buffers[tensor.buffer].data = pack(numbers)
    tensor.type = schema.TensorType.INT4
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    details = tensor.quantization.details = schema.BlockwiseQuantizationT()
    details.scales, details.zeroPoints, details.blockSize = len(graph.tensors), -1, BLOCK

    added = schema.TensorT()
    added.name, added.type = tensor.name + b"/scales", schema.TensorType.FLOAT16
    added.shape, added.buffer = list(scales.shape), len(model.buffers)
    graph.tensors.append(added)
    buffer = schema.BufferT()
    buffer.data = scales.view(np.uint8).ravel()
    model.buffers.append(buffer)


def quantize_blocks(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whole numbers and scales of least squared error, among `LARGEST`, for each block.

    Args:
        matrix: float32 [rows, columns]; `BLOCK` divides the columns.

    Returns:
        int8 [rows, columns] from -8 to 7, and float16 [rows, columns / BLOCK].
    """
    blocks = matrix.reshape(len(matrix), -1, BLOCK)
    peaks = np.abs(blocks).max(axis=-1, keepdims=True)
    numbers = np.zeros(blocks.shape, np.int8)
    scales = np.zeros(peaks.shape, np.float16)
    least = np.full(peaks.shape, np.inf, np.float32)
    for largest in LARGEST:
        scale = _rounded(peaks / np.float32(largest))
        rounded = np.clip(np.rint(blocks / scale), -8, 7)
        error = np.square(rounded * scale - blocks).sum(axis=-1, keepdims=True)
        better = error < least
        np.copyto(least, error, where=better)
        np.copyto(scales, scale, where=better, casting="same_kind")
        np.copyto(numbers, rounded, where=better, casting="unsafe")
    return numbers.reshape(matrix.shape), scales[..., 0]


def pack(numbers: np.ndarray) -> np.ndarray:
    """Return two numbers of 4 bits in each byte, the first one in the lower half.

    Example:
        >>> pack(np.array([1, -1], np.int8))
        array([241], dtype=uint8)
    """
    halves = numbers.reshape(-1, 2).view(np.uint8) & 15
    return halves[:, 0] | halves[:, 1] << 4


def _rounded(scales: np.ndarray) -> np.ndarray:
    """Round to numbers that are exact in float16, as stored, and bfloat16, as XNNPACK reads."""
    bits = np.clip(scales, *SCALES).astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x8000) & 0xFFFF0000).view(np.float32)
    return np.clip(rounded, *SCALES).astype(np.float16).astype(np.float32)
