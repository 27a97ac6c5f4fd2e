"""`evaluate grid`: samples for every combination of some settings, and how varied they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import BEST
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.evaluate.shared import (
    OutputOptions,
    TrainingTextOptions,
    check_output,
    diversity_row,
    measure_diversity,
    print_diversity,
    reader_options,
    write_output,
)
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, build, options_of, several
from gpt2.commands.parts import PartOptions, check_parts, part_of, paths_of_parts
from gpt2.commands.sampling_options import SampleOptions, load_model, show_notices
from gpt2.commands.signals import StopSignal
from gpt2.commands.terminal import notice, shown, token_bar
from gpt2.data.readers import ReaderSettings
from gpt2.data.tokenization import find_files
from gpt2.errors import UserError, escaped
from gpt2.evaluation.grid import Combination, CombinationFile, Origin, combinations
from gpt2.generation.completions import LONGEST, MOST_SAMPLES
from gpt2.generation.engine_settings import EngineSettings
from gpt2.generation.sampling import SamplingSettings
from gpt2.parts import Part, not_a_part
from gpt2.workspace import Workspace

VARIED = [field.name for field in dataclasses.fields(Combination)]


@dataclasses.dataclass(frozen=True)
class GridOptions:
    """What grid takes besides the settings that it varies, the model and the training set."""

    prompt: str = setting("", "prompt of all samples (default: none)", metavar="TEXT")
    length: int = setting(100, "tokens per sample", low=0, high=LONGEST)
    nsamples: int = setting(10, "number of samples per combination", low=1, high=MOST_SAMPLES)
    seed: int = setting(1, "random seed, the same for all combinations", low=0, high=math.inf)
    out: str = setting("", "folder of the samples (default: samples/grid-MODEL)", metavar="FOLDER")


def run(values: Values) -> None:
    """Generate the missing samples, measure all, print a table and write it to --json."""
    check_output(values)
    engine = build(EngineSettings, values)
    reading = build(ReaderSettings, values)
    if values.dataset:
        find_files(values.dataset)  # raises if there is none, before samples are generated
    model = inputs.open_model(values)
    varied = _combinations(values, model)
    folder = Path(values.out) if values.out else _default_folder(values, model)
    files.make_folder(files.check_folder_writable(folder))
    fingerprint = bundle.fingerprint(model.checkpoint)
    origin = Origin(fingerprint, values.quantize, values.prompt, values.seed)
    part = part_of(values)
    grid = [
        CombinationFile(folder, combination, origin, _included(part, place * values.nsamples))
        for place, combination in enumerate(varied)
    ]
    if values.merge:
        _merge(grid, origin, values, folder)
    else:
        _print_plan(grid, values.nsamples, folder)
    if any(file.missing(values.nsamples) for file in grid):
        _generate(grid, values, model, engine)
    if part:
        _stop_if_incomplete(grid, values.nsamples)
        print(f"part {part}: finished in {escaped(str(folder))}")
        return
    rows = _measure(grid, values, model, reading)
    columns = _varied_columns(rows)
    print_diversity(columns, rows, copied=bool(values.dataset), perplexity=True)
    _stop_if_incomplete(grid, values.nsamples)
    described = {"model": values.model_name, "checkpoint": fingerprint, "prompt": values.prompt}
    described |= {"seed": values.seed, "dataset": values.dataset or None}
    write_output(values, described | {"rows": rows})


def check(values: Values) -> None:
    """Check `--shard` and `--merge`, and that a part has a folder of its own."""
    check_parts(values)
    if values.shard and not values.out:
        raise UsageError("--shard needs --out FOLDER, a folder of its own for each part")
    if values.shard and values.json:
        raise UsageError("--shard and --json cannot be combined; the results come with --merge")


def _included(part: Part | None, first: int) -> Callable[[int], bool]:
    """Return which samples of a combination belong to a part.

    Args:
        first: number of its sample 0 among the samples of all combinations.
    """
    return lambda number: part is None or part.has(first + number)


def _merge(grid: Sequence[CombinationFile], origin: Origin, values: Values, folder: Path) -> None:
    """Write the samples of all parts to the files of the grid.

    Raises:
        UserError: a sample is in no part or in two, or a part has another origin.
    """
    folders = paths_of_parts(values, folder)
    for path in folders:
        if not path.is_dir():
            raise not_a_part(path)
    parts = [[CombinationFile(path, file.combination, origin) for path in folders] for file in grid]
    missing = [
        (file, number)
        for file, same in zip(grid, parts, strict=True)
        for number in file.missing_in(same, values.nsamples)
    ]
    if missing:
        file, number = missing[0]
        total = _count(grid, values.nsamples)
        raise UserError(
            f"{values.merge}: {len(missing):,} of {total:,} samples are in no part, the first of "
            f"them sample {number} of {file.path.name}. A part is missing or unfinished: repeat "
            "its command, which resumes, then merge again."
        )
    for file, same in zip(grid, parts, strict=True):
        file.merge(same, values.nsamples)


def _combinations(values: Values, model: ModelFolder) -> list[Combination]:
    """Return the combinations of all given values, after checking them against the model."""
    varied = combinations(**{name: getattr(values, name) for name in VARIED})
    for combination in varied:
        combination.settings(seed=0).sampling.check_vocabulary(model.hparams.n_vocab)
    return varied


def _default_folder(values: Values, model: ModelFolder) -> Path:
    """Return where the samples go without --out: samples/grid-MODEL."""
    path = model.path.resolve()
    name = f"{path.parent.name}-{BEST}" if path.name == BEST else path.name
    return Workspace.find(values.models_dir, values.model_name).samples / f"grid-{name}"


def _print_plan(grid: Sequence[CombinationFile], nsamples: int, folder: Path) -> None:
    total = _count(grid, nsamples)
    existing = total - _count_missing(grid, nsamples)
    note = f"{existing:,} of {total:,} samples exist already"
    notice(
        f"{len(grid):,} combination{'s' * (len(grid) > 1)} of {nsamples:,} samples in "
        f"{shown(folder)}; {note if existing else 'if interrupted, the same command resumes'}."
    )


def _count(grid: Sequence[CombinationFile], nsamples: int) -> int:
    return sum(file.count(nsamples) for file in grid)


def _count_missing(grid: Sequence[CombinationFile], nsamples: int) -> int:
    return sum(len(file.missing(nsamples)) for file in grid)


def _generate(
    grid: Sequence[CombinationFile], values: Values, model: ModelFolder, engine: EngineSettings
) -> None:
    """Generate the missing samples, with a bar of their tokens, until Ctrl+C."""
    language_model = load_model(model, engine)
    nsamples = values.nsamples
    tokens = sum(file.combination.length * len(file.missing(nsamples)) for file in grid)
    stop = StopSignal("\nStopping; measuring the finished samples. Press Ctrl+C again to quit.")
    with stop, token_bar(tokens) as progress:
        for file in grid:
            for completion in file.write(language_model, nsamples, values.batch_size):
                if completion.finish_reason:
                    show_notices(completion, language_model)
                ended = completion.finish_reason == "endoftext"
                progress(file.combination.length - len(completion.tokens) if ended else 1)
                if stop():
                    return


def _measure(
    grid: Sequence[CombinationFile], values: Values, model: ModelFolder, reading: ReaderSettings
) -> list[dict[str, Any]]:
    """Return settings and metrics of each combination."""
    groups = [file.texts(values.nsamples) for file in grid]
    metrics = measure_diversity(groups, values.dataset, model, reading)
    return [
        diversity_row(dataclasses.asdict(file.combination), found, file.perplexity(values.nsamples))
        for file, found in zip(grid, metrics, strict=True)
    ]


def _varied_columns(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the heads of the settings that have several values, or else of temperature."""
    names = [name for name in VARIED if len({row["settings"][name] for row in rows}) > 1]
    return {name: name for name in names or ["temperature"]}


def _stop_if_incomplete(grid: Sequence[CombinationFile], nsamples: int) -> None:
    """End as interrupted if samples are missing, as their metrics are not the final ones."""
    if missing := _count_missing(grid, nsamples):
        total = _count(grid, nsamples)
        raise KeyboardInterrupt(
            f"interrupted; {total - missing:,} of {total:,} samples exist. The same command "
            "resumes."
        )


COMMAND = Command(
    summary="Generate samples for every combination of settings and measure how varied they are.",
    details=(
        "Separate several values of a setting with commas: --temperature 0.7,1.0 --top_k 10,40\n"
        "Ctrl+C measures the finished samples; the same command resumes."
    ),
    groups={
        "settings to vary": several(
            [
                *options_of(
                    SamplingSettings, "temperature", "top_k", "top_p", "repetition_penalty"
                ),
                *options_of(GridOptions, "length"),
            ]
        ),
        "model": [
            *inputs.model_options(),
            *options_of(EngineSettings, "engine", "quantize", "speculate", "draft_text"),
        ],
        "samples": [
            *options_of(GridOptions, "prompt", "nsamples", "seed", "out"),
            *options_of(SampleOptions, "batch_size", batch_size=10),
        ],
        "several machines": options_of(PartOptions),
        "metrics": [*options_of(TrainingTextOptions), *options_of(OutputOptions)],
        "how the files are read": reader_options(),
    },
    run=run,
    check=check,
)
