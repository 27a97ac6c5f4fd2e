"""`conditional`: completions for a file of prompts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt2 import files
from gpt2.checks import check_count, setting
from gpt2.commands import exits, sampling_options
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import notice
from gpt2.errors import UserError, quoted
from gpt2.generation.prompts import Prompt, Template, read_prompts
from gpt2.jsonl import RecordFile

Record = Mapping[str, Any]
Sample = tuple[int, int]  # number of the prompt in its file, from 1, and of its sample, from 0


@dataclasses.dataclass(frozen=True)
class ConditionalOptions:
    """What conditional takes besides the flags of all samplers."""

    prompts: str = setting(
        help="file of prompts: one per line, or several lines between lines of ---, or JSON "
        'objects with "prompt"; - for standard input',
        metavar="FILE",
    )
    out: str = setting(
        "-",
        "JSON lines file, resumed if it exists; - for standard output; with a slash at the end, "
        "folder with a text file per prompt",
        metavar="FILE|FOLDER/",
    )
    examples: str = setting(
        "", "JSON lines file of few-shot examples, put before each prompt", metavar="FILE"
    )
    template: str = setting(
        "", "format of examples and prompts, for example 'Q: {question}\\nA: {answer}'"
    )
    shard: str = setting(
        "",
        "process only the I-th of N parts of the prompts, to use several machines",
        metavar="I/N",
    )


def check(values: Values) -> None:
    """Check the flags that depend on each other, and the form of --shard."""
    check_count("--nsamples", values.nsamples, least=1)
    if bool(values.examples) != bool(values.template):
        raise UsageError("--examples and --template must be given together")
    if values.shard:
        parse_shard(values.shard)


def run(values: Values) -> None:
    """Write the samples of all prompts that the output does not have yet."""
    errors: list[UserError] = []
    prompts = list(read(values.prompts, errors))
    if values.shard:
        part, parts = parse_shard(values.shard)
        prompts = [prompt for prompt in prompts if prompt.number % parts == part % parts]
    fill_in = template(values) if values.template else lambda prompt: prompt.text
    texts = {prompt.number: fill_in(prompt) for prompt in prompts}
    for error in errors:
        notice(str(error))
    if values.seed is None:
        values.seed = earlier_seed(Path(values.out))
    model = sampling_options.open_model(values)
    samples = [(number, sample) for number in texts for sample in range(values.nsamples)]
    with open_output(values) as (done, write):
        requests = (
            ((number - 1) * values.nsamples + sample, model.encode(texts[number]))
            for number, sample in samples
            if (number, sample) not in done
        )
        with tqdm(total=len(samples), unit="sample", disable=values.out == "-") as bar:
            bar.update(sum(sample in done for sample in samples))
            for completion in sampling_options.generate(model, requests, values):
                if completion.finish_reason:
                    place, sample = divmod(completion.number, values.nsamples)
                    prompt = texts[place + 1]
                    record = {
                        "number": place + 1,
                        "sample": sample,
                        "prompt": prompt,
                        "text": sampling_options.shown_text(completion, values, prompt),
                        "finish_reason": completion.finish_reason,
                        "tokens": len(completion.tokens),
                        "logprob": round(completion.logprob, 4),
                        "seed": values.seed,
                    }
                    write(record)
                    bar.update()
    if errors:
        sys.exit(exits.FAILED)


COMMAND = Command(
    summary="Generate completions for a file of prompts.",
    details="The samples are written as JSON lines. If the output file exists, generation resumes.",
    groups={
        "input and output": options_of(ConditionalOptions),
        **sampling_options.sampler_options(batch_size=8),
    },
    run=run,
    by_fire=True,
    check=check,
)


def read(name: str, errors: list[UserError]) -> Iterator[Prompt]:
    """Yield the prompts of a file, or of standard input for "-".

    Args:
        errors: gets an error for each invalid prompt.
    """
    text = sys.stdin.read() if name == "-" else files.read_text(Path(name))
    for prompt in read_prompts(text, "standard input" if name == "-" else name):
        if isinstance(prompt, Prompt):
            yield prompt
        else:
            errors.append(prompt)


def template(values: Values) -> Callable[[Prompt], str]:
    """Return a function that puts the few-shot examples before a prompt."""
    errors: list[UserError] = []
    examples = list(read(values.examples, errors))
    if errors:
        raise errors[0]
    return Template(values.template.replace("\\n", "\n"), examples).fill_in


def parse_shard(text: str) -> tuple[int, int]:
    """Return part and number of parts.

    Example:
        >>> parse_shard("1/4")
        (1, 4)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard must be a part such as 1/4 or 4/4, not {quoted(text)}")
    return int(found[1]), int(found[2])


def earlier_seed(out: Path) -> int | None:
    """Return the seed of the samples that an output file has, None if it has none."""
    try:
        with open(out, encoding="utf-8") as file:
            return int(json.loads(file.readline())["seed"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return None  # `RecordFile` refuses the file if it has other content


@contextlib.contextmanager
def open_output(values: Values) -> Iterator[tuple[set[Sample], Callable[[Record], object]]]:
    """Open `--out`; yields the samples that it has, and a function that adds one."""
    settings = sampling_options.recorded_settings(values)
    if values.out == "-":
        yield set(), lambda record: print_record({**record, "settings": settings})
    elif values.out.endswith(("/", "\\")):
        folder = TextFolder(Path(values.out), values.nsamples)
        yield folder.done, folder.add
    else:
        with RecordFile(Path(values.out), settings, sample_of) as file:
            yield set(file.records), file.append


def print_record(record: Record) -> None:
    """Print a record as a line of JSON."""
    print(json.dumps(record, ensure_ascii=False), flush=True)


def sample_of(record: Record) -> Sample:
    """Return which sample a record of the output file holds."""
    return int(record["number"]), int(record["sample"])


class TextFolder:
    """A folder with a text file per prompt, written when all of its samples are finished."""

    def __init__(self, folder: Path, nsamples: int):
        self._folder = folder
        self._nsamples = nsamples
        self._unfinished: dict[int, dict[int, str]] = defaultdict(dict)
        files.make_folder(folder)

    @property
    def done(self) -> set[Sample]:
        """The samples that the folder has."""
        numbers = [int(path.stem) for path in self._folder.glob("*.txt") if path.stem.isdecimal()]
        return {(number, sample) for number in numbers for sample in range(self._nsamples)}

    def add(self, record: Record) -> None:
        """Keep a sample, and write the file of its prompt if it is the last one."""
        number = record["number"]
        samples = self._unfinished[number]
        samples[record["sample"]] = record["text"]
        if len(samples) == self._nsamples:
            parts = (f"{samples[sample]}\n" for sample in sorted(samples))
            files.write_text(self._folder / f"{number:05}.txt", f"{'=' * 20}\n".join(parts))
            del self._unfinished[number]
