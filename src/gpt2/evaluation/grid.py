"""The same samples under every combination of some settings, kept so that they can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import jsonl
from gpt2.errors import UserError, quoted
from gpt2.generation.completions import Completion, GenerationSettings
from gpt2.generation.sampling import SamplingSettings

if TYPE_CHECKING:
    from gpt2.generation.language_model import LanguageModel


_MOST_NATS = 700  # for a token, of which the exponential is still a number


@dataclasses.dataclass(frozen=True)
class Combination:
    """What is varied."""

    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    length: int  # tokens of a sample at most

    @property
    def name(self) -> str:
        """Of its file."""
        return "_".join(f"{name}-{value}" for name, value in dataclasses.asdict(self).items())

    def settings(self, seed: int) -> GenerationSettings:
        """As a model takes them.

        Raises:
            UserError: one makes no sense.
        """
        values = dataclasses.asdict(self)
        length = values.pop("length")
        return GenerationSettings(length, SamplingSettings(**values), seed)


def combinations(**values: Sequence[Any]) -> list[Combination]:
    """Every combination of some values of each field of `Combination`, the last varying fastest.

    Raises:
        UserError: a value makes no sense, or a field has none.
    """
    for name, some in values.items():
        if not some:
            raise UserError(f"Name at least one value of {name}.")
    found = []
    for chosen in itertools.product(*values.values()):
        combination = Combination(**dict(zip(values, chosen, strict=True)))
        combination.settings(seed=0)
        # 1 and 1.0 are one setting, with one file.
        fractions = ("temperature", "top_p", "repetition_penalty")
        changed = {name: float(getattr(combination, name)) for name in fractions}
        found.append(dataclasses.replace(combination, **changed))
    return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class Origin:
    """What all samples of a grid have in common, and samples that are to be gone on with must."""

    model: str  # a hash of the checkpoint
    quantize: str
    prompt: str
    seed: int


class CombinationFile:
    """The samples of one combination: an object of JSON in each line, written as each is finished.

    Sample n of a seed is the same whenever and beside whichever others it is written.
    """

    def __init__(self, folder: Path, combination: Combination, origin: Origin):
        """Take in the samples that are there.

        Raises:
            UserError: they have another origin, or the file is none of a grid.
        """
        self.combination = combination
        self.path = folder / f"{combination.name}.jsonl"
        self._origin = dataclasses.asdict(origin)
        self._lines = jsonl.complete_lines(self.path)
        self._records: dict[int, dict[str, Any]] = {}
        for place, line in enumerate(self._lines, start=1):
            self._take_in(line, place)

    def _take_in(self, line: str, place: int) -> None:
        try:
            record = json.loads(line)
            origin = record["origin"]
            different = [name for name in self._origin if origin[name] != self._origin[name]]
            if not -_MOST_NATS * (record["tokens"] + 1) <= record["logprob"] <= 0:
                raise ValueError("no probability of so many tokens")
            self._records[int(record["number"])] = {
                "text": str(record["text"]),
                "tokens": int(record["tokens"]),
                "finish_reason": str(record["finish_reason"]),
                "logprob": float(record["logprob"]),
            }
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{self.path}, line {place} is not a sample of a grid; choose another folder."
            ) from error
        if "model" in different:
            raise UserError(
                f"{self.path} holds samples of other weights than the model has now; choose "
                "another folder, or delete this one."
            )
        if different:
            name = different[0]
            raise UserError(
                f"{self.path} holds samples of another {name} "
                f"({quoted(origin[name])}, not {self._origin[name]!r}); repeat that to "
                "go on with them, or choose another folder."
            )

    def missing(self, nsamples: int) -> list[int]:
        """The numbers of the samples that are still to be written."""
        return [number for number in range(nsamples) if number not in self._records]

    def texts(self, nsamples: int) -> list[str]:
        """Those of the samples that are there, in their order."""
        return [record["text"] for record in self._there(nsamples)]

    def perplexity(self, nsamples: int) -> float | None:
        """Of these, under the model that wrote them; None if they have no token.

        It is of the model's own probabilities, before temperature and all else, and counts the end
        of text as a token where a sample has ended by it.
        """
        records = self._there(nsamples)
        tokens = sum(r["tokens"] + (r["finish_reason"] == "endoftext") for r in records)
        return math.exp(-sum(r["logprob"] for r in records) / tokens) if tokens else None

    def _there(self, nsamples: int) -> list[dict[str, Any]]:
        return [self._records[number] for number in range(nsamples) if number in self._records]

    def write(self, model: LanguageModel, nsamples: int, batch_size: int) -> Iterator[Completion]:
        """Write the samples that are missing.

        Yields:
            A text whenever a token was added to it, for the last time when it is finished and kept.
        """
        prompt = model.encode(self._origin["prompt"])
        prompts = [(number, prompt) for number in self.missing(nsamples)]
        settings = self.combination.settings(self._origin["seed"])
        with jsonl.open_append(self.path, self._lines) as file:
            for text in model.completions(prompts, settings, batch_size):
                if text.finish_reason:
                    self._add(text)
                    jsonl.append_line(file, self._lines[-1])
                yield text

    def _add(self, text: Completion) -> None:
        record = {
            "text": text.text,
            "tokens": len(text.tokens),
            "finish_reason": text.finish_reason,
            "logprob": round(text.logprob, 4),
        }
        self._records[text.number] = record
        described = {
            "number": text.number,
            "prompt": self._origin["prompt"],
            **record,
            "settings": dataclasses.asdict(self.combination),
            "origin": self._origin,
        }
        self._lines.append(json.dumps(described, ensure_ascii=False))
