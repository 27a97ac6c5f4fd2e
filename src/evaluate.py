#!/usr/bin/env python3
"""Measure how well a model predicts a text.

python src/evaluate.py bigram --model_name run1 --dataset train.txt --held_out test.txt
"""

from fire.decorators import SetParseFns
from tqdm import tqdm

from command_line import load_tensorflow, run_fire
from gpt2.checkpoint.folder import ModelFolder
from gpt2.data import text
from gpt2.data.documents import Reading
from gpt2.errors import UserError
from gpt2.workspace import Workspace


@SetParseFns(model_name=str, dataset=str, held_out=str, models_dir=str, encoding=str)
def bigram(dataset, held_out, model_name="124M", models_dir="models", encoding="utf-8"):
    """Compare a model with a bigram model of the same tokens, in bits per byte of a held-out text.

    Args:
        dataset: what the bigram model counts its pairs in: file, folder or pattern, text or .npz
        held_out: text that neither has seen: file, folder or pattern
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        models_dir: the folder that holds the models
        encoding: of text files
    """
    load_tensorflow()
    import numpy as np

    from gpt2.evaluation.bigram import BigramModel
    from gpt2.evaluation.perplexity import bits_per_byte, negative_log_likelihood

    model = ModelFolder(Workspace.find(models_dir, model_name).model_folder(model_name))
    hparams, tokenizer = model.hparams, model.tokenizer()

    def read(path: str) -> np.ndarray:
        files = text.find_files(path)
        chunks = list(
            text.read_chunks(files, tokenizer, hparams.n_vocab, reading=Reading(encoding))
        )
        if not chunks:
            raise UserError(f"{path} holds no text.")
        start = [] if tokenizer.endoftext is None else [tokenizer.endoftext]
        return np.concatenate([start, *chunks]).astype(np.int32)

    training, tokens = read(dataset), read(held_out)
    size = len(tokenizer.decode_bytes(tokens[tokens != tokenizer.endoftext].tolist()))
    pairs = BigramModel(training, hparams.n_vocab)
    nats = {
        "bigram": pairs.negative_log_likelihood(tokens),
        model_name: negative_log_likelihood(model.weights(), hparams, tokens, progress=tqdm),
    }
    print(f"{held_out}: {size:,} bytes, {len(tokens) - 1:,} tokens")
    for name, value in nats.items():
        print(f"{bits_per_byte(value, size):.3f} bits per byte  {name}")


if __name__ == "__main__":
    run_fire({"bigram": bigram})
