"""`plot report`: one HTML page about a run, which opens offline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_run
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.signals import load_tensorflow
from gpt2.commands.terminal import shown
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation.samples import read_samples, run_samples
from gpt2.generation.sampling import SamplingSettings
from gpt2.pictures import style
from gpt2.pictures.diversity import read_grid
from gpt2.training import run_log
from gpt2.training.run_log import HISTORY, read_curves
from gpt2.tuning import plots
from gpt2.workspace import Workspace

if TYPE_CHECKING:
    from gpt2.pictures.report import SampleAnalysis

SAMPLE_FILES = 10  # the newest ones, which are shown
SURPRISAL_TOKENS = 400  # of a sample
ATTENTION_TOKENS = 40  # of a sample
STEPS = 6  # of these tokens, whose next-token distributions are shown


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What report takes."""

    run: str = setting("run1", "run under checkpoint/, or path", metavar="RUN")
    grid: str = setting("", "also show the results of evaluate grid --json FILE", metavar="FILE")
    out: str = setting("", "output file, .html (default: RUN.html)", metavar="FILE")


def run(values: Values) -> None:
    """Collect curves, samples, settings and an analysis of the newest sample; write the page."""
    folder = find_run(values.run, values.models_dir)
    name = folder.resolve().name
    path = _check_page(Path(values.out or f"{name}.html"))
    grid = read_grid(Path(values.grid)) if values.grid else ()
    calls = run_log.read_calls(folder) if (folder / run_log.CONFIG).is_file() else []
    curves = read_curves(folder / HISTORY) if (folder / HISTORY).is_file() else None
    flags = _flags(calls)
    reading = _reader_settings(flags)
    samples = _sample_files(Workspace.find(values.models_dir, values.run).samples / name)
    texts = {file.name: _read(file, reading) for file in samples[:SAMPLE_FILES]}
    model = ModelFolder(folder)
    parameters = model.hparams.parameters
    style.load_matplotlib()
    from gpt2.pictures.report import Report

    report = Report(
        run=name,
        curves=curves,
        parameters=parameters,
        samples=texts,
        more_samples=len(samples) - len(texts),
        calls=calls,
        analysis=_analyze(model, samples[0], reading, flags) if samples else None,
        grid=grid,
        study=_study_plots(folder.resolve()),
    )
    files.write_text(path, report.page())
    print("Wrote", shown(path))


def _study_plots(run: Path) -> dict[str, bytes]:
    """Return the plots that tune wrote beside a trial, PNG files by what they show."""
    study, _, number = run.name.rpartition("-")
    if not (study and number.isdecimal()):
        return {}
    stem = run.with_name(study)
    paths = {words: plots.plot_path(stem, name) for name, words in plots.TITLES.items()}
    return {words: path.read_bytes() for words, path in paths.items() if path.is_file()}


def _check_page(path: Path) -> Path:
    """Return a path after checking that an HTML file can be written there."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{path}: a report is an HTML page. Use a name that ends in .html.")
    return files.check_writable(path)


def _sample_files(folder: Path) -> list[Path]:
    """Return the sample files of a run, newest first; none if there are none yet."""
    try:
        return run_samples(folder)[::-1]
    except UserError:
        return []


def _read(file: Path, reading: ReaderSettings) -> str:
    try:
        return file.read_bytes().decode(reading.encoding, reading.errors)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error


def _flags(calls: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the flags of the last call of train."""
    flags = calls[-1].get("flags") if calls else None
    return flags if isinstance(flags, Mapping) else {}


def _reader_settings(flags: Mapping[str, Any]) -> ReaderSettings:
    """Return settings that read the samples of a run with the encoding they were written in."""
    try:
        return ReaderSettings(str(flags.get("encoding") or "utf-8"), "replace")
    except UserError:  # an encoding that Python does not have on this system
        return ReaderSettings(errors="replace")


def _sampling_settings(flags: Mapping[str, Any]) -> SamplingSettings:
    """Return the settings with which train generated the samples."""
    try:
        return SamplingSettings.of_2021(flags.get("top_k") or 0, flags.get("top_p") or 0.0)
    except UserError:  # config.json was edited
        return SamplingSettings()


def _analyze(
    model: ModelFolder, file: Path, reading: ReaderSettings, flags: Mapping[str, Any]
) -> SampleAnalysis | None:
    """Return surprisal, attention and next-token distributions of the first non-empty sample."""
    tokenizer, hparams = model.tokenizer(), model.hparams
    samples = (tokenizer.encode(text) for text in read_samples(file, reading))
    tokens = next(filter(None, samples), [])[:SURPRISAL_TOKENS]
    if not tokens:
        return None
    load_tensorflow()
    from gpt2.evaluation.attention import attention
    from gpt2.evaluation.next_tokens import next_tokens
    from gpt2.evaluation.surprisal import surprisal
    from gpt2.generation.language_model import LanguageModel
    from gpt2.generation.tensorflow_engine import TensorFlowEngine
    from gpt2.pictures.report import SampleAnalysis

    weights, settings = model.weights(), _sampling_settings(flags)
    start = tokens[: min(ATTENTION_TOKENS, hparams.n_ctx)]
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


COMMAND = Command(
    summary="Write one HTML page about a run: curves, samples, attention, settings, data.",
    details="The page opens offline and follows the light or dark mode of the system.",
    groups={
        "run and output": [
            *options_of(ReportOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
        ],
    },
    run=run,
    first="run",
)
