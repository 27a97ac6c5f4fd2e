"""What the page does with a model: streams samples, and scores the tokens of a text."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

from gpt2 import randomness
from gpt2.errors import UserError, escaped, quoted
from gpt2.tokenizer import Tokenizer
from gpt2.web.api import Endpoint, Results
from gpt2.web.completion_response import Answer
from gpt2.web.scheduler import Generation

SECONDS_BETWEEN_UPDATES = 0.1  # of the text in the browser
LONGEST_SEED = 30  # digits
MOST_SAMPLES = 8
ALTERNATIVES = 8  # most probable tokens that are shown for a token
KEPT = "\n\t\u200c\u200d"  # with the joiners that emoji and Persian words are written with
# Lower limits of the probability of a token, and names of the classes that they begin.
PROBABILITY_CLASSES = ((0.5, "50 % or more"), (0.1, "10-50 %"), (0.01, "1-10 %"), (0, "below 1 %"))


def as_text(text: str) -> str:
    r"""Return generated text with control characters escaped, but line ends and tabs kept.

    Terminal sequences and marks that reorder text (bidi controls) become visible.

    Example:
        >>> as_text("one\n\x1b[2J\u202e")
        'one\n\\x1b[2J\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character in KEPT or unicodedata.category(character) == "Zs"
        else escaped(character)
        for character in text
    )


@dataclasses.dataclass(frozen=True)
class PageSettings:
    """The settings of a form, in its order.

    Attributes:
        model: name of the model.
        length: maximum number of tokens of a sample.
        stop: stop sequences, one a line; a line end is written as \\n.
        seed: a number, or empty for a random one.
        samples: number of samples.
    """

    model: str
    temperature: float
    top_k: float
    top_p: float
    repetition_penalty: float
    length: float
    stop: str
    seed: str
    samples: float

    def checked_seed(self) -> int:
        """Return the seed; raises a UserError if it is not a number."""
        text = self.seed.strip()
        if text and not (text.isascii() and text.isdigit() and len(text) <= LONGEST_SEED):
            raise UserError(
                f"Seed: {quoted(text)} is not a whole number of at most "
                f"{LONGEST_SEED} digits. Correct it, or leave it empty."
            )
        return randomness.check_seed(int(text) if text else None)

    def body(self, prompts: list[str], seed: int) -> dict[str, Any]:
        """Return the request for a sample of each prompt."""
        stops = [line.replace("\\n", "\n") for line in self.stop.splitlines() if line]
        return {
            "model": self.model,
            "prompt": prompts,
            "temperature": self.temperature,
            "top_k": _whole(self.top_k),
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
            "max_tokens": _whole(self.length),
            "stop": stops,
            "seed": seed,
        }


def token_count(count: int) -> str:
    """Return a number of tokens in words, such as "1 token"."""
    return f"{count:,} token{'s' * (count != 1)}"


def _count(label: str, number: float | None, most: int) -> int:
    """Return a number of a form, which is None if it is empty; raises a UserError if it is bad."""
    whole = _whole(number)
    if not isinstance(whole, int) or not 1 <= whole <= most:
        raise UserError(f"{label} must be a whole number from 1 to {most}.")
    return whole


def _whole(number: float | None) -> Any:
    """Return 5 for 5.0; other values are left for the checks of the request."""
    is_whole = number is not None and math.isfinite(number) and number == int(number)
    return int(number) if number is not None and is_whole else number


@dataclasses.dataclass(frozen=True)
class Writing:
    """Samples as far as they are generated.

    Attributes:
        prompt: what they continue.
        texts: the text of each sample.
        seed: the seed that they were generated with.
        tokens: number of tokens generated since the last call.
        seconds: time that took.
        finished: whether all samples have ended.
    """

    prompt: str = ""
    texts: tuple[str, ...] = ()
    seed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    finished: bool = False

    @property
    def shown(self) -> str:
        """The samples as one text, as the samplers print them."""
        if len(self.texts) == 1:
            return as_text(self.texts[0])
        return "\n\n".join(
            f"======== SAMPLE {number} ========\n{as_text(text)}"
            for number, text in enumerate(self.texts, 1)
        )

    @property
    def status(self) -> str:
        """Speed and seed."""
        speed = f"{self.tokens / self.seconds:.1f} tokens/s" if self.seconds else "waiting"
        return f"{token_count(self.tokens)}, {speed}, seed {self.seed}"


class Stop:
    """Ends samples where they are, also those that are still waiting for their model."""

    def __init__(self) -> None:
        """Prepare it for one call of `write`."""
        self._requested = False
        self._results: Results | None = None

    def __call__(self) -> None:
        """End the samples. Call this in the event loop."""
        self._requested = True
        if self._results:
            self._results.stop()

    def watch(self, results: Results) -> None:
        """Take what is to be ended."""
        self._results = results
        if self._requested:
            results.stop()


async def write(
    endpoint: Endpoint,
    prompt: str,
    settings: PageSettings,
    stop: Stop,
    before: Writing | None = None,
) -> AsyncIterator[Writing]:
    """Yield samples while they grow; closing the iterator ends them, too.

    Args:
        stop: may be called at any time; the last item then has all that was generated.
        before: samples to continue with more tokens; None for new ones.

    Raises:
        ApiError: see `Endpoint.submit` and `Results.items`.
        UserError: the number of samples, the length or the seed is not valid.
    """
    _count("Length", settings.length, endpoint.limits.most_tokens)
    if before is None:
        most = min(MOST_SAMPLES, endpoint.limits.most_completions)
        before = Writing(prompt, ("",) * _count("Samples", settings.samples, most))
        seed = settings.checked_seed()
    else:
        seed = before.seed + 1  # the same random numbers would favor the same words
    texts, counts = list(before.texts), [0] * len(before.texts)
    body = settings.body([before.prompt + text for text in texts], seed)
    names = endpoint.models.available()
    served = await endpoint.model(body, names)
    body["truncate_prompt_tokens"] = served.model.hparams.n_ctx
    start = time.perf_counter()
    last_update = -math.inf
    _, _, results = await endpoint.submit(body, names, _progress)
    stop.watch(results)

    def now(finished: bool = False) -> Writing:
        seconds = time.perf_counter() - start
        return Writing(before.prompt, tuple(texts), seed, sum(counts), seconds, finished)

    async with contextlib.aclosing(results.items(None, endpoint.limits.seconds)) as items:
        async for number, text, tokens in items:
            texts[number] = before.texts[number] + text
            counts[number] = tokens
            if time.perf_counter() - last_update >= SECONDS_BETWEEN_UPDATES:
                last_update = time.perf_counter()
                yield now()
    yield now(finished=True)


def _progress(answer: Answer, generation: Generation) -> tuple[int, str, int]:
    completion = generation.completion
    text = completion.text[: completion.stable_length]
    return completion.number, text, len(completion.tokens)


@dataclasses.dataclass(frozen=True)
class ColoredToken:
    """A token of a text.

    Attributes:
        text: the token as text.
        probability: None for the first token, which nothing comes before.
        alternatives: the most probable tokens in its place, and their probabilities.
    """

    text: str
    probability: float | None
    alternatives: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str | None:
        """The class of its probability."""
        if self.probability is None:
            return None
        return next(name for least, name in PROBABILITY_CLASSES if self.probability >= least)


async def color_tokens(endpoint: Endpoint, model: str, text: str) -> list[ColoredToken]:
    """Return the tokens of a text and how probable each was after those before it.

    Raises:
        ApiError: see `Endpoint.submit`; the text is empty or longer than the context window.
    """
    body = {"model": model, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": ALTERNATIVES}
    names = endpoint.models.available()
    tokenizer = (await endpoint.model(body, names)).model.tokenizer
    wanted, _, results = await endpoint.submit(body, names, _finished)
    async with contextlib.aclosing(results.items(None, endpoint.limits.seconds)) as items:
        async for _ in items:
            pass
    first = ColoredToken(_token_text(tokenizer, wanted.prompts[0][0]), None, ())
    return [first] + [
        ColoredToken(
            _token_text(tokenizer, score.token),
            math.exp(score.logprob),
            tuple((_token_text(tokenizer, token), math.exp(value)) for token, value in score.top),
        )
        for score in wanted.generations[0].prompt_scores
    ]


def _finished(answer: Answer, generation: Generation) -> bool | None:
    return generation.finished or None


def _token_text(tokenizer: Tokenizer, token: int) -> str:
    return as_text(tokenizer.decode_bytes([token]).decode("utf-8", "backslashreplace"))
