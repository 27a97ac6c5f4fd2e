"""Slice sizes of the fast forward pass.

They are separate from `gpt2.forward` because the memory estimate needs them without TensorFlow.
"""

# Queries in one attention product. A smaller slice skips more of the masked keys; below this size
# the products are too small to be fast.
ATTENTION_ROWS = 256
# Rows (positions) whose logits exist at once in float32, 51 MB for 50,257 tokens; twice as many in
# 16 bits.
LOSS_ROWS = 256
