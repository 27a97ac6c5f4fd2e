"""From text files and `.npz` files to batches of tokens."""
