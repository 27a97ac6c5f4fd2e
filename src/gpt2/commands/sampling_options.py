"""Flags and steps that the three samplers share: load the model, generate samples, show them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from gpt2 import randomness
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Option, Values, build, listed_strings, options_of
from gpt2.commands.signals import prepare_tensorflow
from gpt2.commands.terminal import notice, shown
from gpt2.errors import UserError, quoted
from gpt2.generation.beam_search import BeamSettings, check_beam_prompt, no_speculation
from gpt2.generation.completions import (
    LARGEST_BATCH,
    MOST_SAMPLES,
    Completion,
    GenerationSettings,
    check_prompt,
    stable_length,
)
from gpt2.generation.engine_settings import EngineSettings
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.loading import Converting
from gpt2.generation.loading import open_model as load_into_engine
from gpt2.generation.sampling import NoTokenError, SamplingSettings
from gpt2.tokenizer import Tokenizer

FINGERPRINT = "model_fingerprint"  # name of a recorded setting that no flag gives


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """What the samplers take besides the settings of the library."""

    nsamples: int = setting(1, "number of samples (per prompt)", low=0, high=MOST_SAMPLES)
    batch_size: int = setting(
        1,
        "samples generated at once; changes speed and memory, not the text",
        low=1,
        high=LARGEST_BATCH,
    )
    banned_words: str = setting(
        "",
        'strings that samples never contain, separated by commas or in a list: \'["a, b", "c"]\'',
        metavar="WORD,WORD",
    )
    truncate: tuple[str, ...] = setting(
        (), "truncate each sample before this string; several as for --stop", metavar="TEXT"
    )
    include_prefix: bool = setting(False, "print the prompt before each sample")


def sampler_options(**defaults: Any) -> dict[str, list[Option]]:
    """Return the flags of a sampler by the titles of their groups in `--help`.

    Args:
        defaults: of `SampleOptions` that have another default in this command.
    """
    own = functools.partial(options_of, SampleOptions)
    return {
        "model": [*inputs.model_options(), *options_of(EngineSettings)],
        "samples": [
            *own("nsamples", "batch_size", **defaults),
            *options_of(GenerationSettings, length=None, seed=None),
            *own("truncate", "include_prefix"),
        ],
        "sampling": [*options_of(SamplingSettings), *own("banned_words")],
        "beam search": options_of(BeamSettings, "beams", "length_penalty", beams=0),
    }


def open_model(values: Values, share: float = 0.5) -> LanguageModel:
    """Check all flags, then load the model; sets the length and the seed if they are not given.

    Args:
        share: of the context window, as the length of a sample if none is given.

    Raises:
        UserError: the flags or the files of the model are invalid.
    """
    engine = build(EngineSettings, values)
    model = inputs.open_model(values)
    values.model_fingerprint = bundle.fingerprint(model.checkpoint)
    if values.length is None:
        values.length = int(share * model.hparams.n_ctx)
    values.seed = randomness.check_seed(values.seed)
    generation_settings(values, model.hparams.n_vocab)
    return load_model(model, engine)


def load_model(model: ModelFolder, engine: EngineSettings) -> LanguageModel:
    """Prepare for TensorFlow and load a model; see `load_with_progress`."""
    prepare_tensorflow()
    return load_with_progress(model, engine)


def load_with_progress(model: ModelFolder, engine: EngineSettings) -> LanguageModel:
    """Load a model into its engine, with a progress bar while it is converted for LiteRT."""
    bar: tqdm | None = None

    def show(event: Converting) -> None:
        nonlocal bar
        if bar is None:
            notice(
                "Converting the model for LiteRT, which is faster on this CPU. This happens once; "
                f"the result is kept in {shown(event.folder)}"
            )
            bar = tqdm(total=event.of, unit="part")
        bar.update(event.done - bar.n)
        if event.done == event.of:
            bar.close()

    return load_into_engine(model, progress=show, **dataclasses.asdict(engine))


def generation_settings(
    values: Values, n_vocab: int, tokenizer: Tokenizer | None = None
) -> GenerationSettings:
    """Return the settings that the flags stand for.

    Args:
        n_vocab: vocabulary size of the model.
        tokenizer: encodes `--banned_words`; without one these are ignored.

    Raises:
        UserError: the flags do not go together, or do not fit the model.
    """
    strings = _banned_words(values)
    banned: list[tuple[int, ...]] = []
    if tokenizer is not None:
        for word in strings:
            # Before sampling, as the samples of earlier versions depend on it; the text itself is
            # checked after sampling.
            banned += [tuple(tokenizer.encode(word)), tuple(tokenizer.encode(f" {word}"))]
    if not all(values.truncate):
        raise UserError("--truncate: a string is empty. Give at least one character.")
    sampling = build(SamplingSettings, values, banned=tuple(banned))
    sampling.check_vocabulary(n_vocab)
    words = tuple(filter(None, map(str.strip, strings)))
    settings = build(GenerationSettings, values, sampling=sampling, banned_words=words)
    if values.beams:
        if values.speculate:
            raise no_speculation()
        _beam_settings(values).check_settings(settings)
    return settings


def _banned_words(values: Values) -> list[str]:
    """Return the strings of a JSON list, or those between commas.

    Raises:
        UserError: only some items of a list are strings.
    """
    try:
        listed = listed_strings(values.banned_words)
    except ValueError as error:
        raise UserError(
            f"--banned_words must be {error}, not {quoted(values.banned_words)}."
        ) from error
    return [word for word in (values.banned_words.split(",") if listed is None else listed) if word]


def _beam_settings(values: Values) -> BeamSettings:
    return build(BeamSettings, values, num_return_sequences=values.nsamples)


def generate(
    model: LanguageModel,
    requests: Iterable[tuple[int, Sequence[int]]],
    values: Values,
    failed: Callable[[int, UserError], object] | None = None,
) -> Iterator[Completion]:
    """Yield completions whenever a token is added to them; with beam search, finished ones.

    The caller calls `show_notices` for finished ones, after printing them.

    Args:
        requests: number and prompt tokens of each sample. Beam search takes the rank of a sample
            from its number, modulo the number of samples, and needs all samples of a prompt in a
            row.
        failed: called with the number of a sample that cannot be generated; without it, the error
            is raised.
    """
    settings = generation_settings(values, model.hparams.n_vocab, model.tokenizer)
    if values.beams:
        return _search(model, requests, settings, values, failed)
    each = None if failed is None else lambda completion, error: failed(completion.number, error)
    return model.completions(requests, settings, values.batch_size, each)


def encode(model: LanguageModel, prompt: str, values: Values) -> list[int]:
    """Return the tokens of a prompt.

    Raises:
        UserError: the model cannot take the prompt, for example as it is too long for beam search.
    """
    tokens = model.encode(prompt)
    if values.beams:
        settings = generation_settings(values, model.hparams.n_vocab, model.tokenizer)
        check_beam_prompt(tokens, settings, model.hparams)
    else:
        check_prompt(tokens, model.hparams)
    return tokens


def _search(
    model: LanguageModel,
    requests: Iterable[tuple[int, Sequence[int]]],
    settings: GenerationSettings,
    values: Values,
    failed: Callable[[int, UserError], object] | None,
) -> Iterator[Completion]:
    search, searched = _beam_settings(values), None
    found: list[Completion] = []
    for number, tokens in requests:
        prompt_number, rank = divmod(number, values.nsamples)
        if prompt_number != searched:
            searched, found = prompt_number, []
            try:
                found = model.best(tokens, settings, search)
            except NoTokenError as error:
                if failed is None:
                    raise
                failed(number, error)
        if rank < len(found):
            found[rank].number = number
            yield found[rank]


def show_notices(
    completion: Completion, model: LanguageModel, values: Values | None = None
) -> None:
    """Print a notice if a finished completion exceeded the context window or is empty, each once.

    Args:
        values: of an interactive session, which prints the notice for every empty sample.
    """
    if completion.exceeded_context:
        _notice_once(
            f"Context window is {model.hparams.n_ctx} tokens; continuing with the most recent "
            "part of the text."
        )
    if completion.finish_reason == "endoftext" and not completion.tokens:
        (notice if values else _notice_once)(
            "Empty sample: the model generated <|endoftext|> as the first token. Use "
            "--min_length N or --ignore_eos for longer samples."
        )
    elif values and completion.finish_reason and not _truncated(completion.text, values):
        notice("Empty sample: nothing is left before the stop sequence, truncation or length.")


_notice_once = functools.cache(notice)


def shown_text(completion: Completion, values: Values, prompt: str = "") -> str:
    """Return a finished sample as it is shown: truncated, after the prompt if that is asked for."""
    return (prompt if values.include_prefix else "") + _truncated(completion.text, values)


def stable_text(completion: Completion, values: Values) -> str:
    """Return the part of an unfinished sample, without the prompt, that will not change."""
    length = completion.stable_length
    if not completion.finish_reason:
        length = min(length, stable_length(completion.text, values.truncate))
    return _truncated(completion.text[:length], values)


def _truncated(text: str, values: Values) -> str:
    for string in values.truncate:
        text = text.partition(string)[0]
    return text


def recorded_settings(values: Values) -> dict[str, Any]:
    """Return the flags that decide the text of samples, as they are stored beside the samples."""
    unrecorded = ("--batch_size", "--models_dir", "--engine", "--speculate", "--draft_text")
    options = [option for group in sampler_options().values() for option in group]
    recorded = {
        option.flag.removeprefix("--"): getattr(values, option.name)
        for option in options
        if option.flag not in unrecorded
    }
    if recorded["kv_cache"] == "float32":  # which earlier versions did not record
        del recorded["kv_cache"]
    for name in ("stop", "truncate"):
        recorded[name] = _strings_as_typed(recorded[name])
    return recorded | {
        "logit_bias": recorded["logit_bias"] or None,
        FINGERPRINT: values.model_fingerprint,
    }


def as_typed(value: object) -> str:
    """Return the value of a flag as a person types it; "" for none.

    Example:
        >>> as_typed(True), as_typed(0.5), as_typed(("a", "b")), as_typed(None)
        ('yes', '0.5', '["a", "b"]', '""')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        value = _strings_as_typed(value)
    if isinstance(value, float):
        return f"{value:g}"
    return '""' if value is None or value == "" else str(value)


def _strings_as_typed(strings: Sequence[str]) -> str:
    """Return strings as they are typed after a flag; see `flags.parse_strings`."""
    if len(strings) > 1:
        return json.dumps(strings, ensure_ascii=False)
    escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})
    return "".join(strings).translate(escapes)
