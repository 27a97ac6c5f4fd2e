"""Samples for every combination of some settings, in files that can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.errors import UserError
from gpt2.generation.completions import Completion, GenerationSettings
from gpt2.generation.sampling import SamplingSettings
from gpt2.jsonl import RecordFile

if TYPE_CHECKING:
    from gpt2.generation.language_model import LanguageModel

_MOST_NATS = 700  # of one token, so that exp() of a sample's perplexity stays finite


@dataclasses.dataclass(frozen=True)
class Combination:
    """The settings that a grid varies."""

    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    length: int  # maximum number of generated tokens

    @property
    def name(self) -> str:
        """Return the name of its file, without the ending."""
        return "_".join(f"{name}-{value}" for name, value in dataclasses.asdict(self).items())

    def settings(self, seed: int) -> GenerationSettings:
        """Return the settings for generation with a random seed.

        Raises:
            UserError: a value is not allowed.
        """
        values = dataclasses.asdict(self)
        length = values.pop("length")
        return GenerationSettings(length, SamplingSettings(**values), seed)


def combinations(**values: Sequence[Any]) -> list[Combination]:
    """Return every combination of some values of each field; the last field varies fastest.

    Args:
        values: for each field of `Combination`, the values to combine.

    Raises:
        UserError: a value is not allowed, or a field has no value.
    """
    for name, some in values.items():
        if not some:
            raise UserError(f"{name}: no value. Give at least one.")
    found = []
    for chosen in itertools.product(*values.values()):
        combination = Combination(**dict(zip(values, chosen, strict=True)))
        combination.settings(seed=0)
        combination = dataclasses.replace(  # 1 and 1.0 are the same setting and share a file
            combination,
            temperature=float(combination.temperature),
            top_p=float(combination.top_p),
            repetition_penalty=float(combination.repetition_penalty),
        )
        found.append(combination)
    return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class Origin:
    """What all samples of a grid share; a file with another origin is not resumed."""

    model: str  # fingerprint of the checkpoint
    quantize: str
    prompt: str
    seed: int


@dataclasses.dataclass(frozen=True)
class _Sample:
    """The part of a record that is evaluated."""

    number: int
    text: str
    tokens: int
    finish_reason: str
    logprob: float  # nats

    @classmethod
    def read(cls, record: dict[str, Any]) -> _Sample:
        if not -_MOST_NATS * (record["tokens"] + 1) <= record["logprob"] <= 0:
            raise ValueError("not a log-probability of so many tokens")
        values = {field.name: record[field.name] for field in dataclasses.fields(cls)}
        numbers = {"number": int, "tokens": int, "logprob": float}
        return cls(**{name: numbers.get(name, str)(value) for name, value in values.items()})


class CombinationFile:
    """The samples of one combination, in JSON lines that are written as they are finished.

    A sample depends on the seed and its number only, not on which samples exist already.
    """

    def __init__(
        self,
        folder: Path,
        combination: Combination,
        origin: Origin,
        included: Callable[[int], bool] = lambda number: True,
    ):
        """Read the samples that exist.

        Args:
            included: whether the sample of a number is to be generated here.

        Raises:
            UserError: they have another origin, or the file was not written by a grid.
        """
        self.combination = combination
        self.path = folder / f"{combination.name}.jsonl"
        self._origin, self._included = origin, included
        settings = dataclasses.asdict(origin)
        self._file = RecordFile(self.path, settings, _Sample.read, key="origin")
        self._samples = {sample.number: sample for sample in self._file.records}

    def count(self, nsamples: int) -> int:
        """Return how many samples are to be generated here, including those that exist."""
        return sum(map(self._included, range(nsamples)))

    def missing(self, nsamples: int) -> list[int]:
        """Return the numbers of the samples that are still to be generated."""
        return [
            number
            for number in range(nsamples)
            if number not in self._samples and self._included(number)
        ]

    def texts(self, nsamples: int) -> list[str]:
        """Return the texts of the first `nsamples` samples, as far as they exist."""
        return [sample.text for sample in self._first(nsamples)]

    def perplexity(self, nsamples: int) -> float | None:
        """Return the perplexity per token of these samples under the model that generated them.

        It uses the model's own probabilities, before temperature and truncation, and counts
        `<|endoftext|>` as a token of the samples that end with it. None if there is no token.
        """
        samples = self._first(nsamples)
        tokens = sum(each.tokens + (each.finish_reason == "endoftext") for each in samples)
        return math.exp(-sum(each.logprob for each in samples) / tokens) if tokens else None

    def _first(self, nsamples: int) -> list[_Sample]:
        return [self._samples[number] for number in range(nsamples) if number in self._samples]

    def write(self, model: LanguageModel, nsamples: int, batch_size: int) -> Iterator[Completion]:
        """Generate the missing samples.

        Yields:
            A completion after each of its tokens; the last time it is finished and saved.
        """
        prompt = model.encode(self._origin.prompt)
        prompts = [(number, prompt) for number in self.missing(nsamples)]
        settings = self.combination.settings(self._origin.seed)
        with self._file:
            for completion in model.completions(prompts, settings, batch_size):
                if completion.finish_reason:
                    self._save(
                        _Sample(
                            completion.number,
                            completion.text,
                            len(completion.tokens),
                            completion.finish_reason,
                            round(completion.logprob, 4),
                        )
                    )
                yield completion

    def missing_in(self, parts: Sequence[CombinationFile], nsamples: int) -> list[int]:
        """Return the numbers of the samples that neither this file nor a part has.

        Args:
            parts: files of the same combination.

        Raises:
            UserError: two parts have the same sample.
        """
        owner: dict[int, CombinationFile] = {}
        for part in parts:
            for number in part._samples:
                if number in owner:
                    raise UserError(
                        f"{part.path}: sample {number} is in {owner[number].path}, too. Give each "
                        "part once, and parts of one division."
                    )
                owner[number] = part
        return [number for number in self.missing(nsamples) if number not in owner]

    def merge(self, parts: Sequence[CombinationFile], nsamples: int) -> None:
        """Write the missing samples from parts, in the order of their numbers."""
        samples = {number: each for part in parts for number, each in part._samples.items()}
        with self._file:
            for number in self.missing(nsamples):
                self._save(samples[number])

    def _save(self, sample: _Sample) -> None:
        record = {
            "number": sample.number,
            "prompt": self._origin.prompt,
            "text": sample.text,
            "tokens": sample.tokens,
            "finish_reason": sample.finish_reason,
            "logprob": sample.logprob,
            "settings": dataclasses.asdict(self.combination),
        }
        self._file.append(record)
        self._samples[sample.number] = _Sample.read(record)
