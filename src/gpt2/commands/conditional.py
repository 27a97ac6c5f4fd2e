"""`conditional`: completions for a file of prompts."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from gpt2 import files
from gpt2.checks import check_count, is_count, setting
from gpt2.commands import exits, sampling_options
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.parts import PartOptions, check_parts, part_of, paths_of_parts
from gpt2.commands.streams import check_output
from gpt2.commands.terminal import for_terminal, notice, shown
from gpt2.errors import UserError, quoted
from gpt2.generation.completions import Completion
from gpt2.generation.prompts import Prompt, Template, read_prompts
from gpt2.jsonl import RecordFile, as_line

Record = Mapping[str, Any]
# The records of a folder of text files. Hidden, as commands read all other files of a folder.
FOLDER_RECORDS = ".samples.jsonl"
ADVICE = "Use --overwrite to start over, or choose another output."


class Sample(NamedTuple):
    """What a record of an output is matched by."""

    number: int  # of the prompt, from 1
    sample: int  # from 0
    prompt: str
    size: int | None = None  # of its text file, in a folder (bytes); None: of an earlier version


@dataclasses.dataclass(frozen=True)
class ConditionalOptions:
    """What conditional takes besides the flags of all samplers."""

    prompts: str = setting(
        "",
        "file of prompts: one per line, or several lines between lines of ---, or a JSON list, or "
        'JSON lines with "prompt"; - for standard input',
        metavar="FILE",
    )
    prompt: str | None = setting(None, "one prompt, instead of --prompts")
    out: str = setting(
        "-",
        "JSON lines file, resumed if it exists; - for standard output; with a slash at the end, "
        "folder with a text file per prompt",
        metavar="FILE|FOLDER/",
    )
    examples: str = setting(
        "",
        "JSON lines file of few-shot examples, put before each prompt; needs --template",
        metavar="FILE",
    )
    template: str = setting(
        "", "format of examples and prompts, for example 'Q: {question}\\nA: {answer}'"
    )
    overwrite: bool = setting(False, "delete the existing samples of the output and start over")


@dataclasses.dataclass(frozen=True)
class Output:
    """Where the samples go, and those that are there.

    Attributes:
        earlier: prompt and place of the records by the number of their prompt; a prompt of None is
            unknown.
        done: numbers of the prompts and samples that are there.
        add: writes a record.
    """

    add: Callable[[Record], object]
    earlier: Mapping[int, tuple[str | None, str]] = dataclasses.field(default_factory=dict)
    done: Set[tuple[int, int]] = frozenset()


class Problems:
    """Reports the prompts that are skipped, one line each for the first ones."""

    SHOWN = 20

    def __init__(self) -> None:
        self.count = 0

    def add(self, error: UserError) -> None:
        """Report an error."""
        self.count += 1
        if self.count <= self.SHOWN:
            notice(f"{error} This prompt is skipped.")

    def exit(self) -> None:
        """Exit with code 1 if there was an error."""
        if self.count > self.SHOWN:
            notice(f"{self.count - self.SHOWN} more prompts are skipped.")
        if self.count:
            sys.exit(exits.FAILED)


def check(values: Values) -> None:
    """Check the flags that depend on each other, and the form of --shard."""
    check_count("--nsamples", values.nsamples, least=1)
    if values.prompts and values.prompt is not None:
        raise UsageError("--prompts and --prompt cannot be combined")
    if not values.prompts and values.prompt is None:
        raise UsageError("--prompts is missing; give a file, or one prompt as --prompt TEXT")
    if values.examples and not values.template:
        raise UsageError("--examples needs --template")
    if values.prompts == values.examples == "-":
        raise UsageError("--prompts and --examples cannot both be standard input")
    check_parts(values)


def run(values: Values) -> None:
    """Write the samples of all prompts that the output does not have yet."""
    check_out(values.out)
    problems = Problems()
    prompts = {prompt.number: prompt for prompt in read_prompts_of(values, problems)}
    texts = dict(filled_in(values, prompts.values(), problems))
    if not texts:
        raise UserError(f"{values.prompts or '--prompt'} has no prompt to complete.")
    if values.seed is None and not values.overwrite:
        values.seed = earlier_seed(records_path(values.out))
    parts: list[Path] = []
    if values.merge:
        parts = paths_of_parts(values, records_path(values.out))
        seeds = (earlier_seed(path) for path in parts)
        values.seed = next((seed for seed in seeds if seed is not None), values.seed)
    model = sampling_options.open_model(values)
    if values.merge:
        merge(texts, parts, values, lambda text: sampling_options.encode(model, text, values))
        problems.exit()
        return
    with open_output(values) as output:
        numbers = matched(texts, output, values.prompts or "--prompt")
        text_of = {numbers[position]: text for position, text in texts.items()}
        part = part_of(values)
        todo = [position for position in texts if part is None or part.has(position - 1)]
        total = len(todo) * values.nsamples

        def requests() -> Iterator[tuple[int, Sequence[int]]]:
            """Yield number and tokens of each sample that is missing."""
            for position in todo:
                number = numbers[position]
                samples = range(values.nsamples)
                missing = [sample for sample in samples if (number, sample) not in output.done]
                if not missing:
                    continue
                try:
                    tokens = sampling_options.encode(model, text_of[number], values)
                except UserError as error:
                    problems.add(UserError(f"{prompts[position].where}: {error}"))
                    continue
                for sample in missing:
                    yield (number - 1) * values.nsamples + sample, tokens

        position_of = {number: position for position, number in numbers.items()}
        failed: set[int] = set()  # positions, each of which is reported once

        def report(sample: int, error: UserError) -> None:
            position = position_of[sample // values.nsamples + 1]
            if position not in failed:
                failed.add(position)
                problems.add(UserError(f"{prompts[position].where}: {error}"))

        with tqdm(total=total, unit="sample", disable=values.out == "-") as bar:
            done = ((numbers[position], n) for position in todo for n in range(values.nsamples))
            bar.update(sum(sample in output.done for sample in done))
            for completion in sampling_options.generate(model, requests(), values, report):
                if completion.finish_reason:
                    number = completion.number // values.nsamples + 1
                    output.add(record_of(completion, number, text_of[number], values))
                    sampling_options.show_notices(completion, model)
                    bar.update()
    problems.exit()


def merge(
    texts: Mapping[int, str],
    parts: Sequence[Path],
    values: Values,
    encode: Callable[[str], object],
) -> None:
    """Write the samples of all parts in the order of the prompts.

    Args:
        texts: prompts by their position in the file, from 1.
        encode: raises `UserError` for a prompt that the model cannot take, which has no samples.

    Raises:
        UserError: a sample is in no part or in two, or a part has other settings or prompts.
    """
    found, earlier = read_parts(parts, values)
    numbers = matched(texts, Output(lambda record: None, earlier), values.prompts or "--prompt")
    wanted = [
        (numbers[position], sample)
        for position, text in texts.items()
        for sample in range(values.nsamples)
        if (numbers[position], sample) in found or _can_be_encoded(text, encode)
    ]
    missing = [item for item in wanted if item not in found]
    if missing:
        number, sample = missing[0]
        raise UserError(
            f"{values.merge}: {len(missing):,} of {len(wanted):,} samples are in no part, the "
            f"first of them sample {sample} of prompt {number}. A part is missing or unfinished: "
            "repeat its command, which resumes, then merge again."
        )
    with open_output(values) as output:
        matched(texts, output, values.prompts or "--prompt")
        for item in wanted:
            if item not in output.done:
                output.add(found[item][1])


def read_parts(
    parts: Sequence[Path], values: Values
) -> tuple[dict[tuple[int, int], tuple[Path, Record]], dict[int, tuple[str | None, str]]]:
    """Return the records of all parts by number and sample, and their prompts as in `Output`.

    Raises:
        UserError: a sample is in two parts, or a part has other settings.
    """
    found: dict[tuple[int, int], tuple[Path, Record]] = {}
    earlier: dict[int, tuple[str | None, str]] = {}
    settings = sampling_options.recorded_settings(values)
    for path in parts:
        advice = "Merge parts that were made by the same command."
        file = RecordFile(path, settings, lambda record: (sample_of(record), record), advice=advice)
        for at, (sample, record) in enumerate(file.records, start=1):
            item = (sample.number, sample.sample)
            if item in found:
                raise UserError(
                    f"{path} line {at}: sample {sample.sample} of prompt {sample.number} is in "
                    f"{found[item][0]}, too. Give each part once, and parts of one division."
                )
            found[item] = (path, {name: record[name] for name in record if name != "settings"})
            earlier[sample.number] = (sample.prompt, f"{path} line {at}")
    return found, earlier


def _can_be_encoded(text: str, encode: Callable[[str], object]) -> bool:
    try:
        encode(text)
    except UserError:
        return False
    return True


def record_of(completion: Completion, number: int, prompt: str, values: Values) -> Record:
    """Return the record of a finished sample.

    Args:
        number, prompt: number and text of its prompt.
    """
    return {
        "number": number,
        "sample": completion.number % values.nsamples,
        "prompt": prompt,
        "text": sampling_options.shown_text(completion, values, prompt),
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.tokens),
        "logprob": round(completion.logprob, 4),
        "seed": values.seed,
    }


COMMAND = Command(
    summary="Generate completions for a file of prompts.",
    details="The samples are written as JSON lines. If the output file exists, generation resumes.",
    groups={
        "input and output": options_of(ConditionalOptions),
        "several machines": options_of(PartOptions),
        **sampling_options.sampler_options(batch_size=8),
    },
    run=run,
    by_fire=True,
    check=check,
)


def read(name: str) -> Iterator[Prompt | UserError]:
    """Yield the prompts of a file, or of standard input for "-", and an error for each bad one."""
    if name != "-":
        return read_prompts(files.read_small_text(Path(name)), name)
    if sys.stdin is None:
        raise UserError("standard input is closed. Name a file.")
    text = files.decode_small_text(sys.stdin.buffer.read(), "standard input")
    return read_prompts(text, "standard input")


def read_prompts_of(values: Values, problems: Problems) -> Iterator[Prompt]:
    """Yield the prompts that the flags name."""
    if values.prompt is not None:
        yield Prompt(1, {"prompt": values.prompt}, "--prompt")
        return
    for prompt in read(values.prompts):
        if isinstance(prompt, Prompt):
            yield prompt
        else:
            problems.add(prompt)


def filled_in(
    values: Values, prompts: Iterable[Prompt], problems: Problems
) -> Iterator[tuple[int, str]]:
    """Yield number and text of each prompt, filled into the template if there is one."""
    template = None
    if values.template:
        examples: list[Prompt] = []
        for example in read(values.examples) if values.examples else ():
            if isinstance(example, UserError):
                raise example
            examples.append(example)
        template = Template(values.template.replace("\\n", "\n"), examples)
    for prompt in prompts:
        try:
            yield prompt.number, template.fill_in(prompt) if template else prompt.text
        except UserError as error:
            problems.add(error)


def matched(texts: Mapping[int, str], output: Output, name: str) -> dict[int, int]:
    """Return the number in the output of each prompt, by its position in the file.

    Raises:
        UserError: the output has a prompt that the file does not have.
    """
    earlier = {number: prompt for number, (prompt, _) in output.earlier.items()}
    numbers = assign_numbers(texts, earlier)
    for number in earlier.keys() - numbers.values():
        prompt, where = output.earlier[number]
        if prompt is not None:
            raise UserError(
                f"{where}: generated for the prompt {quoted(prompt)}, which is not in {name} (with "
                f"this --template and these --examples). {ADVICE}"
            )
    return numbers


def assign_numbers(texts: Mapping[int, str], earlier: Mapping[int, str | None]) -> dict[int, int]:
    """Return a number for each prompt, by its position in the file.

    With the seed, the number decides the text of the samples. A prompt that the output has keeps
    its number there. A new one gets its position, or the lowest free number if that is taken.

    Args:
        texts: prompts by their position in the file, from 1.
        earlier: prompts of the output by number; None matches any prompt at that position.

    Example:
        >>> assign_numbers({1: "A", 2: "new", 3: "B"}, {1: "A", 2: "B"})
        {1: 1, 3: 2, 2: 3}
    """
    numbers = {
        position: position
        for position, text in texts.items()
        if position in earlier and earlier[position] in (text, None)
    }
    places = defaultdict(list)  # numbers of each prompt of the output that has no position yet
    for number in sorted(earlier.keys() - numbers.keys(), reverse=True):
        places[earlier[number]].append(number)
    for position, text in texts.items():
        if position not in numbers and places[text]:
            numbers[position] = places[text].pop()
    new = [position for position in texts if position not in numbers]
    taken = {*earlier, *numbers.values()}
    numbers |= {position: position for position in new if position not in taken}
    taken.update(numbers.values())
    free = (number for number in itertools.count(1) if number not in taken)
    return numbers | {position: next(free) for position in new if position not in numbers}


def records_path(out: str) -> Path | None:
    """Return the file of records of an output, None for standard output."""
    if out == "-":
        return None
    return Path(out) / FOLDER_RECORDS if _is_folder(out) else Path(out)


def check_out(out: str) -> None:
    """Check, before the model is loaded, that the output can be written.

    Raises:
        UserError: it cannot.
    """
    if out != "-":
        check = files.check_folder_writable if _is_folder(out) else files.check_writable
        check(out)


def _is_folder(out: str) -> bool:
    return out.endswith(("/", "\\"))


def _text_name(number: int) -> str:
    """Return the name of the text file of a prompt."""
    return f"{number:05}.txt"


def earlier_seed(records: Path | None) -> int | None:
    """Return the seed of the samples that a file of records has, None if it has none."""
    try:
        with open(records or "", encoding="utf-8") as file:
            return int(json.loads(file.readline())["seed"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return None  # `RecordFile` refuses the file if it has other content


@contextlib.contextmanager
def open_output(values: Values) -> Iterator[Output]:
    """Open `--out`.

    Raises:
        UserError: it cannot be written, or has samples of other settings or of other weights.
    """
    settings = sampling_options.recorded_settings(values)
    path = records_path(values.out)
    if path is None:
        yield Output(lambda record: print_record({**record, "settings": settings}))
        return
    if _is_folder(values.out):
        files.make_folder(path.parent)
    records = RecordFile(
        path,
        settings,
        file_of if _is_folder(values.out) else sample_of,
        later=[sampling_options.FINGERPRINT],
        overwrite=values.overwrite,
        advice=ADVICE,
    )
    if records.unknown:
        notice(
            f"{shown(path)}: from an earlier version, which did not record the model's "
            "fingerprint. Generation resumes, as prompts and settings match."
        )
    earlier: dict[int, tuple[str | None, str]] = {
        sample.number: (sample.prompt, f"{path} line {at}")
        for at, sample in enumerate(records.records, start=1)
    }
    with records:
        if _is_folder(values.out):
            sizes = {record.number: record.size for record in records.records}
            yield text_folder(values, records, earlier, sizes)
        else:
            done = {(record.number, record.sample) for record in records.records}
            yield Output(records.append, earlier, done)


def print_record(record: Record) -> None:
    """Print a record as a line of JSON."""
    check_output()
    print(for_terminal(as_line(record)), flush=True)


def sample_of(record: Record) -> Sample:
    """Return which sample a record of the output file holds.

    Raises:
        KeyError, TypeError, ValueError: it does not hold one.
    """
    if not isinstance(record["text"], str):
        raise TypeError("the text is not a string")
    return file_of(record)


def file_of(record: Record) -> Sample:
    """Return what a record of a folder of text files says of one; raises as `sample_of`."""
    number, sample, size = record["number"], record.get("sample", 0), record.get("bytes")
    if not isinstance(record["prompt"], str):
        raise TypeError("the prompt is not a string")
    if not (is_count(number) and number >= 1 and is_count(sample) and sample >= 0):
        raise ValueError("the number is not that of a sample")
    if not (size is None or is_count(size)):
        raise ValueError("the size is not a number of bytes")
    return Sample(number, sample, record["prompt"], size)


def text_folder(
    values: Values,
    records: RecordFile[Sample],
    earlier: dict[int, tuple[str | None, str]],
    sizes: Mapping[int, int | None],
) -> Output:
    """Return a folder with a text file per prompt, written when all of its samples are finished.

    The prompt of each file is recorded in `FOLDER_RECORDS` first, so that a file without a record
    is from a version that had none.

    Args:
        sizes: of the text files as they were written (bytes), by number; None for unknown. A
            shorter file does not count as done: it is kept under another name and written again.
    """
    folder = Path(values.out)
    numbers = {int(path.stem): path for path in folder.glob("*.txt") if path.stem.isdecimal()}
    found = {number: path for number, path in numbers.items() if path.name == _text_name(number)}
    if values.overwrite:
        for path in found.values():
            path.unlink()
        found = {}
    if unknown := found.keys() - earlier.keys():
        notice(
            f"{shown(folder)}: {len(unknown)} text files from an earlier version, which did not "
            "record their prompts, are kept. Use --overwrite to start over."
        )
        earlier |= {number: (None, str(found[number])) for number in unknown}
    for number, path in list(found.items()):
        size = path.stat().st_size
        if size == 0 or size < (sizes.get(number) or 0):
            _set_aside(path)
            del found[number]
    unfinished: dict[int, dict[int, str]] = defaultdict(dict)

    def add(record: Record) -> None:
        number = record["number"]
        samples = unfinished[number]
        samples[record["sample"]] = record["text"]
        if len(samples) == values.nsamples:
            text = f"{'=' * 20}\n".join(f"{samples[sample]}\n" for sample in sorted(samples))
            size = len(text.encode("utf-8"))
            kept = {name: record[name] for name in ("number", "prompt", "seed")}
            records.append(kept | {"bytes": size})
            files.write_text(folder / _text_name(number), text)
            del unfinished[number]

    done = {(number, sample) for number in found for sample in range(values.nsamples)}
    return Output(add, earlier, done)


def _set_aside(path: Path) -> None:
    """Keep a text file that is shorter than it was written under another name, if not empty."""
    if path.stat().st_size == 0:
        path.unlink()
        return
    aside = files.unused(path.with_name(f"{path.stem}-{{}}{path.suffix}"))
    path.rename(aside)
    notice(
        f"{shown(path)}: shorter than it was written. It is generated again; the present file is "
        f"kept as {shown(aside)}."
    )
