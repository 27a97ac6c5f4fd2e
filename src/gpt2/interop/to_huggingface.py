"""Write a model folder that transformers loads with `AutoModelForCausalLM` and `AutoTokenizer`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt2 import files
from gpt2.interop import hub_config, hub_tokenizer, safetensors_file
from gpt2.interop.from_huggingface import torch_name
from gpt2.interop.weights import PortableModel
from gpt2.tokenizer import ENDOFTEXT
from gpt2.tokenizer.vocabulary import special_tokens

WEIGHTS = "model.safetensors"
CARD = "README.md"
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# What `write` writes and may replace.
FILES = (WEIGHTS, hub_config.CONFIG, hub_config.GENERATION, CARD, *hub_tokenizer.TOKENIZER_FILES)


def write(
    path: Path, model: PortableModel, card: str, dtype: str = "fp32", overwrite: bool = False
) -> None:
    """Write the folder, atomically.

    Args:
        card: the model card, Markdown with YAML front matter.
        dtype: a key of `DTYPES`.
        overwrite: replace a folder of these files.

    Raises:
        UserError: the folder exists or cannot be written, transformers cannot load the vocabulary,
            or a weight is too large for the type.
    """
    hparams = model.hparams
    model.check_vocabulary()
    hub_tokenizer.check(model.vocabulary, model.merges)
    # transformers has the prefix; the head is the token embedding, which is stored once.
    names = {"transformer." + torch_name(name): name for name in hparams.tensor_shapes()}
    shapes = hparams.tensor_shapes()
    layout = {name: _plain_shape(shapes[source]) for name, source in names.items()}

    def read(name: str) -> np.ndarray:
        return model.read(names[name]).reshape(layout[name])

    endoftext = special_tokens(model.vocabulary).get(ENDOFTEXT)
    with files.atomic_folder(path, FILES if overwrite else ()) as folder:
        safetensors_file.write(folder / WEIGHTS, layout, DTYPES[dtype], read)
        config = hub_config.config(hparams, endoftext, DTYPES[dtype])
        files.write_json(folder / hub_config.CONFIG, config)
        files.write_json(folder / hub_config.GENERATION, hub_config.generation_config(endoftext))
        hub_tokenizer.write(folder, model.vocabulary, model.merges, hparams.n_ctx)
        files.write_text(folder / CARD, card)


def _plain_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a tensor without the leading 1 of OpenAI's matrices."""
    return shape[1:] if len(shape) == 3 else shape
