"""Text files and `.npz` files to documents, tokens, datasets and training batches."""
