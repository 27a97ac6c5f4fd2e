"""The other side of tools/interop_matrix.py: programs that read and write a GPT-2 themselves.

It runs in an environment of its own, where this project is not installed:

    python tools/interop_peers.py read PEER PATH REQUEST.json RESULT.npz
    python tools/interop_peers.py write FORMAT PATH REQUEST.json RESULT.npz

`read` lets a peer load the model at PATH; `write` lets transformers make a random model there. Both
then answer the request (prompt, number of tokens, texts) with logits [T, V], the tokens of greedy
decoding, and the ids of the texts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIZES = {"vocab_size": 400, "n_positions": 96, "n_embd": 64, "n_head": 4, "n_layer": 3}


class Answer(NamedTuple):
    """What a peer computes."""

    version: str
    logits: np.ndarray  # [T, V]
    greedy: list[int]
    ids: list[list[int]]


def _transformers(path: Path, request: dict) -> Answer:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    prompt = torch.tensor([request["prompt"]])
    with torch.no_grad():
        logits = model(prompt).logits[0].numpy()
        tokens = prompt
        for _ in range(request["length"]):
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], 1)
    greedy = tokens[0, prompt.shape[1] :].tolist()
    ids = [tokenizer(text)["input_ids"] for text in request["texts"]]
    return Answer(f"transformers {transformers.__version__}", logits, greedy, ids)


def _ctranslate2(path: Path, request: dict) -> Answer:
    import ctranslate2
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    with tempfile.TemporaryDirectory() as folder:
        converted = str(Path(folder) / "model")
        ctranslate2.converters.TransformersConverter(str(path)).convert(converted)
        generator = ctranslate2.Generator(converted)
        prompt = tokenizer.convert_ids_to_tokens(request["prompt"])
        logits = np.array(generator.forward_batch([prompt]))[0]
        (result,) = generator.generate_batch(
            [prompt],
            max_length=request["length"],
            include_prompt_in_result=False,
            end_token=[],
            sampling_topk=1,
        )
    ids = [tokenizer(text)["input_ids"] for text in request["texts"]]
    version = f"CTranslate2 {ctranslate2.__version__}"
    return Answer(version, logits, result.sequences_ids[0], ids)


READ: dict[str, Callable[[Path, dict], Answer]] = {
    "transformers": _transformers,
    "CTranslate2": _ctranslate2,
}


def _write(kind: str, path: Path, request: dict) -> Answer:
    """Write a random model and a tokenizer learned from a text; `kind` is a row of the matrix."""
    import torch
    import transformers
    from tokenizers import AddedToken, ByteLevelBPETokenizer

    torch.manual_seed(20190214)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    learned = ByteLevelBPETokenizer()
    size = SIZES["vocab_size"] - 1
    learned.train_from_iterator(request["texts"] * 20, size, 1, show_progress=False)
    learned.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    path.mkdir()
    learned.save(str(path / "tokenizer.json"))
    shard = {"max_shard_size": "150KB"} if kind == "sharded" else {}
    model.save_pretrained(path, **shard)
    if kind.startswith("bin"):
        (path / "model.safetensors").unlink()
        torch.save(
            model.state_dict(),
            path / "pytorch_model.bin",
            _use_new_zipfile_serialization=kind == "bin",
        )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=learned._tokenizer)
        tokenizer.save_pretrained(folder)
        return _transformers(Path(folder), request)


def main() -> None:
    direction, name, path, request, result = sys.argv[1:]
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    answer = READ[name] if direction == "read" else lambda *rest: _write(name, *rest)
    found = answer(Path(path), asked)
    np.savez(
        result,
        version=found.version,
        logits=found.logits,
        greedy=found.greedy,
        ids=json.dumps(found.ids),
    )


if __name__ == "__main__":
    main()
