"""evaluate.py grid: samples under every combination of some settings, and how varied they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from text_flags import TextFlags, note_window
from tqdm import tqdm

from command_line import StopSignal, model_folder, shown
from evaluate_commands.diversity import measured, show_rows
from evaluate_commands.shared import check_json, with_reading_flags, write_json
from gpt2 import files, randomness
from gpt2.checkpoint import bundle
from gpt2.checks import check_count
from gpt2.data.tokenization import find_files
from gpt2.evaluation.grid import CombinationFile, Origin, combinations
from gpt2.generation.loading import check_engine
from gpt2.workspace import Workspace


@with_reading_flags
def grid(
    *,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    repetition_penalty=1.0,
    length=100,
    model_name="124M",
    prompt="",
    nsamples=10,
    seed=1,
    batch_size=10,
    dataset="",
    out="",
    json="",
    models_dir="models",
    engine="auto",
    quantize="none",
    reading,
):
    """Write samples under every combination of these settings, and measure how varied they are.

    Several values of a setting are separated by commas: --temperature 0.7,1.0 --top_k 10,40.
    After Ctrl+C it measures what is there; called again it goes on with it.

    Args:
        temperature: below 1 keeps closer to likely words, above 1 strays; 0 always takes the likeliest
        top_k: draw each token among the k likeliest; 0 for all
        top_p: draw among the likeliest that together reach this probability; 0 and 1 for all
        repetition_penalty: above 1 makes tokens rarer that prompt or text hold already
        length: tokens in each sample
        model_name: a model under models/, a run under checkpoint/, or a folder's path
        prompt: what the samples go on from (default: nothing)
        nsamples: samples of each combination
        seed: a whole number; the same random numbers serve every combination
        batch_size: samples written at once; changes speed and memory, not the texts
        dataset: the text that was trained on, to find what is copied from it: file, folder or pattern, text or .npz
        out: the folder of the samples (default: samples/grid-MODEL)
        json: a file for the result
        models_dir: the folder that holds the models
        engine: auto, tensorflow (any device) or litert (processors; converts the model once)
        quantize: none, or int8: faster and a quarter of the memory, a little less exact
    """
    check_json(json)
    check_count("nsamples", nsamples, least=1)
    check_count("batch_size", batch_size, least=1)
    check_engine(engine, quantize)
    if dataset:
        find_files(dataset)  # to find out before all samples are written whether there are any
    varied = combinations(
        temperature=values(temperature),
        top_k=values(top_k),
        top_p=values(top_p),
        repetition_penalty=values(repetition_penalty),
        length=values(length),
    )
    seed = randomness.check_seed(seed)
    model = model_folder(model_name, models_dir)
    for combination in varied:
        combination.settings(seed).sampling.check_vocabulary(model.hparams.n_vocab)
    checkpoint = bundle.fingerprint(model.checkpoint)
    folder = Path(out) if out else samples_folder(model_name, models_dir)
    files.make_folder(folder)
    origin = Origin(checkpoint, quantize, prompt, seed)
    kept = [CombinationFile(folder, combination, origin) for combination in varied]
    flags = TextFlags(
        model_name,
        batch_size=batch_size,
        models_dir=models_dir,
        engine=engine,
        quantize=quantize,
    )
    write_missing(kept, nsamples, flags, folder)
    missing = sum(len(file.missing(nsamples)) for file in kept)

    found = measured([file.texts(nsamples) for file in kept], dataset, model, reading)
    rows = [
        {
            "settings": asdict(file.combination),
            "metrics": asdict(metrics) | {"perplexity": file.perplexity(nsamples)},
        }
        for file, metrics in zip(kept, found, strict=True)
    ]
    columns = {
        name: name for name in rows[0]["settings"] if len({r["settings"][name] for r in rows}) > 1
    }
    show_rows(columns or {"temperature": "temperature"}, rows, bool(dataset), perplexity=True)
    if missing:
        total = len(kept) * nsamples
        raise KeyboardInterrupt(
            f"interrupted; {total - missing:,} of {total:,} samples are there: the same command goes "
            "on with them."
        )
    described = {"model": model_name, "checkpoint": checkpoint, "prompt": prompt, "seed": seed}
    write_json(json, described | {"dataset": dataset or None, "rows": rows})


def values(given: Any) -> Sequence[Any]:
    """One value, or several."""
    return given if isinstance(given, (list, tuple)) else [given]


def samples_folder(model_name: str, models_dir: str) -> Path:
    """Where the samples go if no folder is named."""
    workspace = Workspace.find(models_dir, model_name)
    return workspace.samples / f"grid-{workspace.model_folder(model_name).resolve().name}"


def write_missing(
    kept: Sequence[CombinationFile], nsamples: int, flags: TextFlags, folder: Path
) -> None:
    """Write the samples that are not there yet, with a bar of their tokens, until Ctrl+C."""
    missing = [len(file.missing(nsamples)) for file in kept]
    lengths = [file.combination.length for file in kept]
    there = len(kept) * nsamples - sum(missing)
    note = "after an interruption the same command goes on with them"
    if there:
        note = f"{there:,} of these {len(kept) * nsamples:,} are there already"
    print(
        f"{len(kept):,} combination{'s' * (len(kept) > 1)}, {nsamples:,} samples of each, in {shown(folder)}; {note}.",
        file=sys.stderr,
        flush=True,
    )
    if not sum(missing):
        return
    model = flags.open()
    tokens = sum(length * count for length, count in zip(lengths, missing, strict=True))
    stop = StopSignal("\nWhat is there is measured; once more leaves at once.")
    with stop, tqdm(total=tokens, unit="token", unit_scale=True) as bar:
        for file, length in zip(kept, lengths, strict=True):
            for text in file.write(model, nsamples, flags.batch_size):
                note_window(text, model)
                ended = text.finish_reason == "endoftext"
                bar.update(length - len(text.tokens) if ended else 1)
                if stop():
                    return
