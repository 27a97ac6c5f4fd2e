"""Slice sizes of the fast forward pass.

They are separate from `gpt2.forward` because the memory estimate needs them without TensorFlow.
"""

# Queries in one attention product. A smaller slice skips more of the masked keys; below this size
# the products are too small to be fast.
ATTENTION_ROWS = 256
_BAND_STEP = 16  # the matrix products are faster at multiples of this
# Rows (positions) whose logits exist at once in float32, 51 MB for 50,257 tokens; twice as many in
# 16 bits.
LOSS_ROWS = 256


def band_rows(reach: int) -> int | None:
    """Return the rows of the blocks in which packed attention is computed; None for slices.

    A block sees the keys of itself and of the block before, so it has at least `reach` - 1 rows.
    Slices of `ATTENTION_ROWS` queries have fewer keys if the reach is long.

    Args:
        reach: tokens of the longest example.
    """
    rows = -(-max(reach - 1, 1) // _BAND_STEP) * _BAND_STEP
    return rows if 2 * rows <= ATTENTION_ROWS else None
