"""The body of `POST /v1/completions`: what it may contain, and the completions it asks for.

Source: https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

from gpt2 import randomness
from gpt2.checks import check_fields, check_number, is_count, setting
from gpt2.errors import UserError, escaped, quoted
from gpt2.generation.completions import Completion, GenerationSettings
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import SamplingSettings, ids_without_token
from gpt2.jsonl import Ambiguous, unique_fields
from gpt2.web.errors import ApiError
from gpt2.web.scheduler import Generation
from gpt2.web.settings import RequestLimits

MOST_STOPS, LONGEST_STOP = 16, 1000  # stop sequences of a request, and characters of each
MOST_BIASES = 1024


@dataclasses.dataclass(frozen=True)
class CompletionOptions:
    """Fields of the body besides the model, the prompt, `stop`, and those of sampling."""

    max_tokens: int = setting(16, low=0)
    n: int = setting(1, low=1)
    best_of: int | None = setting(None, low=1)
    logprobs: int | None = setting(None, low=0, high=20)
    echo: bool = setting(False)
    stream: bool = setting(False)
    seed: int | None = setting(None, low=0, high=float("inf"))
    user: str | None = setting(None)
    # Not OpenAI's, but vLLM's:
    truncate_prompt_tokens: int | None = setting(None, low=1)
    min_tokens: int = setting(0, low=0)
    ignore_eos: bool = setting(False)

    def __post_init__(self) -> None:
        check_fields(self)


SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingSettings)) - {"banned"}
OPTIONS = frozenset(field.name for field in dataclasses.fields(CompletionOptions))
FIELDS = SAMPLING | OPTIONS | {"model", "prompt", "stop", "stream_options", "suffix"}


@dataclasses.dataclass(frozen=True)
class CompletionRequest:
    """A valid request.

    Attributes:
        options: see `CompletionOptions`.
        include_usage: whether a stream ends with the number of tokens.
        prompts: token ids of each prompt.
        generations: all completions to generate, those of the first prompt first.
    """

    options: CompletionOptions
    include_usage: bool
    prompts: list[list[int]]
    generations: list[Generation]

    @property
    def of_each(self) -> int:
        """Completions that are generated of each prompt."""
        return self.options.best_of or self.options.n


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the object in a body.

    Raises:
        ApiError: it is not a JSON object, or has numbers that JSON does not have.
    """
    try:
        found = json.loads(
            body, parse_constant=_refuse_constant, object_pairs_hook=_with_unique_fields
        )
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not valid JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return {name: value for name, value in found.items() if value is not None}


def _with_unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = unique_fields(pairs)
    if isinstance(fields, Ambiguous):
        raise ApiError(400, fields.problem, escaped(fields.repeated[:60]))
    return fields


def check_names(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a body with unknown fields.

    Raises:
        ApiError: there is one.
    """
    for name in body:
        if name not in known:
            fields = ", ".join(sorted(known))
            raise ApiError(
                400, f"Unknown field {quoted(name)}. Available: {fields}.", escaped(name[:60])
            )


def parse_completion(
    body: Mapping[str, Any], model: LanguageModel, limits: RequestLimits
) -> CompletionRequest:
    """Return the completions that a body asks for.

    Args:
        body: JSON object without null values.

    Raises:
        ApiError: a field is unknown, has a wrong type or value, or asks for too much.
    """
    check_names(body, FIELDS)
    with _field_errors():
        options = CompletionOptions(**{name: body[name] for name in OPTIONS if name in body})
        _check_options(options, limits)
        if "suffix" in body:
            raise UserError("suffix: not available. Omit it.")
        settings = _generation_settings(body, options, model)
        prompts = [_tokens(each, options, model) for each in _prompts(body.get("prompt", ""))]
        include_usage = _include_usage(body.get("stream_options", {}))
    of_each = options.best_of or options.n
    if len(prompts) * of_each > limits.most_completions:
        raise ApiError(
            400,
            f"The request asks for {len(prompts) * of_each:,} completions (prompts times n or "
            f"best_of). Ask for at most {limits.most_completions:,}.",
            "n" if of_each > 1 else "prompt",
        )
    unknown = ids_without_token(model.tokenizer.vocabulary, model.hparams.n_vocab)
    generations = [
        Generation(
            Completion(number, prompts[number // of_each], settings, unknown),
            options.logprobs,
            options.echo,
        )
        for number in range(len(prompts) * of_each)
    ]
    return CompletionRequest(options, include_usage, prompts, generations)


@contextlib.contextmanager
def _field_errors() -> Iterator[None]:
    """Turn a UserError, which begins with the name of a setting, into an ApiError."""
    try:
        yield
    except UserError as error:
        name = str(error).partition(" ")[0].rstrip(":")
        code = "context_length_exceeded" if "context window" in str(error) else None
        raise ApiError(400, str(error), name if name in FIELDS else None, code) from error


def _check_options(options: CompletionOptions, limits: RequestLimits) -> None:
    if options.max_tokens > limits.most_tokens:
        raise UserError(
            f"max_tokens must be at most {limits.most_tokens:,} on this server, not "
            f"{quoted(options.max_tokens)}."
        )
    if options.min_tokens > options.max_tokens:
        raise UserError("min_tokens must be at most max_tokens.")
    if options.best_of is not None:
        if options.best_of < options.n:
            raise UserError(f"best_of must be at least n ({options.n}).")
        if options.stream and options.best_of > options.n:
            raise UserError("best_of: a stream cannot choose the best. Omit best_of or stream.")


def _generation_settings(
    body: Mapping[str, Any], options: CompletionOptions, model: LanguageModel
) -> GenerationSettings:
    sampling = {name: body[name] for name in SAMPLING if name in body}
    if "logit_bias" in sampling:
        sampling["logit_bias"] = _biases(sampling["logit_bias"])
    settings = SamplingSettings(**sampling)
    settings.check_vocabulary(model.hparams.n_vocab)
    return GenerationSettings(
        length=options.max_tokens,
        sampling=settings,
        seed=randomness.check_seed(options.seed),
        min_length=options.min_tokens,
        ignore_endoftext=options.ignore_eos,
        stop=_stops(body.get("stop", [])),
    )


def _biases(value: object) -> dict[int, float]:
    if not isinstance(value, dict) or len(value) > MOST_BIASES:
        raise UserError(
            f"logit_bias must be an object of at most {MOST_BIASES} token ids and numbers from "
            "-100 to 100."
        )
    biases = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise UserError(f"logit_bias: {quoted(token)} is not a token id.")
        check_number("logit_bias", bias, -100, 100)
        if int(token) in biases:
            raise UserError(f"logit_bias: token id {int(token)} occurs more than once.")
        biases[int(token)] = float(bias)
    return biases


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise UserError(f"stop must be a string or a list of strings, not {quoted(value)}.")
    if len(stops) > MOST_STOPS:
        raise UserError(f"stop must be at most {MOST_STOPS} strings, not {len(stops):,}.")
    if any(len(stop) > LONGEST_STOP for stop in stops):
        raise UserError(f"stop: a string is longer than {LONGEST_STOP:,} characters. Shorten it.")
    return tuple(stops)


def _prompts(value: object) -> list[str | list[int]]:
    """Return the prompts of a field that is a string, strings, token ids, or lists of these."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return value
        if all(is_count(item) for item in value):
            return [value]
        if all(isinstance(item, list) and item and all(map(is_count, item)) for item in value):
            return value
    raise UserError(
        "prompt must be a string, a list of strings, a list of token ids, or a list of such lists, "
        f"none of them empty; not {quoted(value)}."
    )


def _tokens(prompt: str | list[int], options: CompletionOptions, model: LanguageModel) -> list[int]:
    """Return the tokens of a prompt, truncated if that is asked for."""
    n_ctx, n_vocab = model.hparams.n_ctx, model.hparams.n_vocab
    if isinstance(prompt, str):
        try:
            tokens = model.encode(prompt)
        except UserError as error:
            raise UserError(f"prompt: {error}") from error
    else:
        tokens = prompt
    if outside := [token for token in tokens if not 0 <= token < n_vocab]:
        raise UserError(
            f"prompt: {outside[0]} is not a token id of this model (0 to {n_vocab - 1})."
        )
    if options.truncate_prompt_tokens:
        tokens = tokens[-options.truncate_prompt_tokens :]
    if len(tokens) > n_ctx:
        raise UserError(
            f"prompt: {len(tokens):,} tokens are more than the context window of {n_ctx:,}. Use a "
            f"shorter prompt, or truncate_prompt_tokens: {n_ctx} for its end."
        )
    return tokens


def _include_usage(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("include_usage", False), bool):
        raise UserError('stream_options must be {"include_usage": true} or false.')
    return value.get("include_usage", False)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def text_field(body: Mapping[str, Any], name: str) -> str:
    """Return a string of a body.

    Raises:
        ApiError: it is missing or not a string.
    """
    value = body.get(name)
    if not isinstance(value, str):
        raise ApiError(400, f"{name} must be a string, not {quoted(value)}.", name)
    return value
