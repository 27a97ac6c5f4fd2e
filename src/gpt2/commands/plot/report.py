"""plot.py report: all there is to see of a run, on one page that opens offline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import check_place, load_tensorflow, shown
from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.data import readers
from gpt2.errors import UserError
from gpt2.evaluation.samples import read_samples, run_samples
from gpt2.generation.sampling import SamplingSettings
from gpt2.pictures import style
from gpt2.training import run_log
from gpt2.training.run_log import HISTORY, read_curves
from gpt2.workspace import Workspace
from plot_commands.shared import run_folder

if TYPE_CHECKING:
    from gpt2.pictures.report import SampleAnalysis

SAMPLES = 10  # newest files of samples that are shown
READ = 400  # tokens of a sample that are coloured
LOOKED_AT = 40  # tokens of a sample whose attention is drawn
STEPS = 6  # of these, whose next tokens are drawn


def report(run="run1", *, grid="", out="", models_dir="models"):
    """Write one HTML file with all there is to see of a run; it opens offline, in light and dark.

    Args:
        run: the name of a run under checkpoint/, or the path of its folder
        grid: the file that evaluate.py grid --json FILE has written, to show it, too
        out: the page (default: RUN.html)
        models_dir: the folder that holds the models
    """
    style.load_matplotlib()
    workspace = Workspace.find(models_dir)
    folder = run_folder(workspace, run)
    name = folder.resolve().name
    path = Path(out or f"{name}.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{path} should end in .html, since a report is a page.")
    check_place(path)
    from gpt2.pictures.diversity import read_grid
    from gpt2.pictures.report import Report

    rows = read_grid(Path(grid)) if grid else ()
    calls = run_log.read_calls(folder) if (folder / run_log.CONFIG).is_file() else []
    history = folder / HISTORY
    curves = read_curves(history) if history.is_file() else None
    samples = sample_files(workspace.samples / name)
    reading = sample_reading(flags_of(calls))
    model = ModelFolder(folder)
    found = Report(
        run=name,
        curves=curves,
        parameters=model.hparams.parameters,
        samples={file.name: read_text(file, reading) for file in samples[:SAMPLES]},
        more_samples=max(0, len(samples) - SAMPLES),
        calls=calls,
        reading=read_sample(model, samples[0], reading, flags_of(calls)) if samples else None,
        grid=rows,
    )
    with files.atomic_write(path) as file:
        file.write(found.page().encode())
    print("Wrote", shown(path))


def sample_files(folder: Path) -> list[Path]:
    """The files of samples of a run, the newest first."""
    try:
        return run_samples(folder)[::-1]
    except UserError:  # there are none yet
        return []


def read_text(file: Path, reading: readers.ReaderSettings) -> str:
    """The text of a file of samples."""
    try:
        return file.read_bytes().decode(reading.encoding, reading.errors)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error


def flags_of(calls: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Those of the last call."""
    flags = calls[-1].get("flags") if calls else None
    return flags if isinstance(flags, Mapping) else {}


def sample_reading(flags: Mapping[str, Any]) -> readers.ReaderSettings:
    """How to read samples of train.py: as it has written them, with marks for what is damaged."""
    try:
        return readers.ReaderSettings(str(flags.get("encoding") or "utf-8"), "replace")
    except UserError:  # an encoding that only another system knows
        return readers.ReaderSettings(errors="replace")


def sampling_of(flags: Mapping[str, Any]) -> SamplingSettings:
    """How train.py drew the samples, as far as its flags tell."""
    top_k, top_p = flags.get("top_k"), flags.get("top_p")
    try:
        settings = SamplingSettings(top_k=top_k or 0, top_p=top_p or 0.0)
    except UserError:  # somebody has written into config.json
        return SamplingSettings()
    return dataclasses.replace(settings, top_k=0) if 0 < settings.top_p < 1 else settings


def read_sample(
    model: ModelFolder, file: Path, reading: readers.ReaderSettings, flags: Mapping[str, Any]
) -> SampleAnalysis | None:
    """What the model makes of the beginning of the first sample that is not empty."""
    tokenizer = model.tokenizer()
    texts = (tokenizer.encode(text) for text in read_samples(file, reading))
    tokens = next((text for text in texts if text), [])[:READ]
    if not tokens:
        return None
    settings = sampling_of(flags)
    load_tensorflow()
    from gpt2.evaluation.attention import attention
    from gpt2.evaluation.next_tokens import next_tokens
    from gpt2.evaluation.surprisal import surprisal
    from gpt2.generation.language_model import LanguageModel
    from gpt2.generation.tensorflow_engine import TensorFlowEngine
    from gpt2.pictures.report import SampleAnalysis

    weights, hparams = model.weights(), model.hparams
    start = tokens[: min(LOOKED_AT, hparams.n_ctx)]
    language_model = LanguageModel(TensorFlowEngine(weights, hparams), hparams, tokenizer)
    return SampleAnalysis(
        name=file.name,
        tokens=[tokenizer.decode_bytes([token]) for token in tokens],
        nats=surprisal(weights, hparams, tokens, tokenizer.endoftext),
        attention=attention(weights, hparams, start),
        steps=list(next_tokens(language_model, start, settings, STEPS)),
        settings=settings,
        token_bytes=lambda token: tokenizer.decode_bytes([token]),
    )
