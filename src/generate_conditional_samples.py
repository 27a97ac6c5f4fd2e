#!/usr/bin/env python3
"""Let a model go on from every prompt of a file.

python src/generate_conditional_samples.py --prompts prompts.txt --out samples.jsonl
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from command_line import run_fire
from gpt2 import files, jsonl
from gpt2.checks import check_count
from gpt2.errors import UserError
from gpt2.generation.completions import Completion
from gpt2.generation.prompts import Prompt, Template, read_prompts
from text_flags import TextFlags, note_window, with_text_flags


@with_text_flags(batch_size=8)
def sample_prompts(
    flags: TextFlags,
    prompts: str = "",
    out: str = "-",
    examples: str = "",
    template: str = "",
    shard: str = "",
) -> None:
    """Go on from each prompt of a file, several at a time, and write the samples as JSON lines.

    The file has one prompt in each line, or prompts of several lines with lines of --- between
    them, or an object with "prompt" in each line. An output that exists is gone on with.

    Args:
        prompts: the file, or - for standard input
        out: a file for lines of JSON, or - for the screen; a name that ends in / is a folder for one text file per prompt
        examples: a file of JSON lines, put in front of each prompt through the template
        template: how examples and prompts are spelled, for example 'Q: {question}\\nA: {answer}'
        shard: i/n takes the i-th of n parts of the prompts, to share them among machines
    """
    check_count("nsamples", flags.nsamples, least=1)
    if not prompts:
        raise UserError("Name the file of prompts with --prompts FILE, or - for standard input.")
    if bool(examples) != bool(template):
        raise UserError("Examples need a template and a template examples: give both, or neither.")
    errors: list[UserError] = []
    wanted = list(read(prompts, errors))
    spell = (lambda prompt: prompt.text) if not template else templated(template, examples)
    texts = {prompt.number: spell(prompt) for prompt in wanted if in_shard(prompt, shard)}
    for error in errors:
        print(error, file=sys.stderr)
    if flags.seed is None:
        flags.seed = seed_in(Path(out))
    model = flags.open()
    output = Folder(out, flags) if out.endswith(("/", "\\")) else JSONLines(out, flags)

    def requests() -> Iterator[tuple[int, list[int]]]:
        for number, prompt in texts.items():
            for sample in range(flags.nsamples):
                if not output.has(number, sample):
                    yield (number - 1) * flags.nsamples + sample, model.encode(prompt)

    with tqdm(total=len(texts) * flags.nsamples, unit="sample", disable=out == "-") as bar:
        bar.update(sum(output.has(n, s) for n in texts for s in range(flags.nsamples)))
        for text in flags.write(model, requests()):
            note_window(text, model)
            if text.finish_reason:
                number, sample = divmod(text.number, flags.nsamples)
                output.add(number + 1, sample, texts[number + 1], text)
                bar.update()
    if errors:
        sys.exit(1)


def read(name: str, errors: list[UserError]) -> Iterator[Prompt]:
    """The prompts of a file, and into `errors` what is wrong with the others."""
    text = sys.stdin.read() if name == "-" else files.read_text(Path(name))
    for prompt in read_prompts(text, "standard input" if name == "-" else name):
        if isinstance(prompt, Prompt):
            yield prompt
        else:
            errors.append(prompt)


def seed_in(out: Path) -> int | None:
    """The seed that an earlier call has begun this output with."""
    try:
        with open(out, encoding="utf-8") as file:
            return int(json.loads(file.readline())["seed"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return None  # a new one, or one that is refused when it is gone on with


def templated(template: str, examples: str) -> Callable[[Prompt], str]:
    """How a prompt is spelled with the examples in front."""
    errors: list[UserError] = []
    known = list(read(examples, errors))
    if errors:
        raise errors[0]
    return Template(template.replace("\\n", "\n"), known).prompt


def in_shard(prompt: Prompt, shard: str) -> bool:
    """Whether a prompt is in the part i/n."""
    if not shard:
        return True
    part = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not part or not 1 <= int(part[1]) <= int(part[2]):
        raise UserError(f"--shard should be a part such as 1/4 or 4/4, not {shard!r}.")
    return prompt.number % int(part[2]) == int(part[1]) % int(part[2])


class JSONLines:
    """One object in each line, flushed as soon as the sample is finished."""

    def __init__(self, out: str, flags: TextFlags):
        self._flags = flags
        self._settings = flags.recorded()
        self._done: set[tuple[int, int]] = set()
        self._file = sys.stdout
        if out == "-":
            return
        path = Path(out)
        lines = jsonl.complete_lines(path)
        self._take_in(path, lines)
        self._file = jsonl.open_append(path, lines)

    def _take_in(self, path: Path, lines: list[str]) -> None:
        """Note what an earlier call has written."""
        for place, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                same = record["settings"] == self._settings
                self._done.add((int(record["number"]), int(record["sample"])))
            except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{path}, line {place} is not a sample of this command; choose another --out."
                ) from error
            if not same:
                raise UserError(
                    f"{path} holds samples that were written with other settings; repeat those to "
                    "go on with it, or choose another --out."
                )

    def close(self) -> None:
        """End the file."""
        if self._file is not sys.stdout:
            self._file.close()

    def has(self, number: int, sample: int) -> bool:
        """Whether a sample is there already."""
        return (number, sample) in self._done

    def add(self, number: int, sample: int, prompt: str, text: Completion) -> None:
        """Write a finished sample."""
        record = {
            "number": number,
            "sample": sample,
            "prompt": prompt,
            "text": self._flags.shown_text(text, prompt),
            "finish_reason": text.finish_reason,
            "tokens": len(text.tokens),
            "logprob": round(text.logprob, 4),
            "seed": self._flags.seed,
            "settings": self._settings,
        }
        line = json.dumps(record, ensure_ascii=False)
        if self._file is sys.stdout:
            print(line, flush=True)
        else:
            jsonl.append_line(self._file, line)


class Folder:
    """A text file for each prompt, which appears when all of its samples are finished."""

    def __init__(self, out: str, flags: TextFlags):
        self._folder = Path(out)
        self._flags = flags
        self._samples: dict[int, dict[int, str]] = defaultdict(dict)
        files.make_folder(self._folder)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05}.txt"

    def has(self, number: int, sample: int) -> bool:
        """Whether a sample is there already."""
        return self._path(number).exists()

    def add(self, number: int, sample: int, prompt: str, text: Completion) -> None:
        """Keep a finished sample, and write the prompt's file if it was the last one."""
        samples = self._samples[number]
        samples[sample] = self._flags.shown_text(text, prompt)
        if len(samples) == self._flags.nsamples:
            parts = (f"{samples[place]}\n" for place in sorted(samples))
            files.write_text(self._path(number), f"{'=' * 20}\n".join(parts))
            del self._samples[number]


if __name__ == "__main__":
    run_fire(sample_prompts)
