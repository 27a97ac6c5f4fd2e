"""The flags that all samplers share: which model, in which engine, and how it writes."""

from __future__ import annotations

import codecs
import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from command_line import flags_of, load_tensorflow, named_model, shown
from gpt2 import randomness
from gpt2.checks import check_count
from gpt2.errors import UserError
from gpt2.generation.beam_search import BeamSettings, beam_search
from gpt2.generation.completions import Completion, GenerationSettings
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.loading import Converting, check_engine, open_model
from gpt2.generation.sampling import SamplingSettings
from gpt2.workspace import Workspace

# Flags that change where and how fast samples are written, but not what they say.
UNRECORDED = ("batch_size", "models_dir", "engine")


def flag(default: Any, help: str) -> Any:
    """A field that is a flag, with what --help says of it."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass
class TextFlags:
    """The values of the flags; those of 2019 first, with the defaults of 2019."""

    model_name: str = flag(
        "124M", "a model under models/, a run under checkpoint/, or a folder's path"
    )
    seed: int | None = flag(
        None, "a whole number; the same one gives the same samples (default: random)"
    )
    nsamples: int = flag(1, "samples to generate")
    batch_size: int = flag(1, "samples written at once; changes speed and memory, not the texts")
    length: int | None = flag(None, "tokens in each sample (default: half of the window)")
    temperature: float = flag(
        1, "below 1 keeps closer to likely words, above 1 strays; 0 always takes the likeliest"
    )
    top_k: int = flag(0, "draw each token among the k likeliest; 0 for all")
    top_p: float = flag(
        1, "draw among the likeliest that together reach this probability; 0 and 1 for all"
    )
    models_dir: str = flag("models", "the folder that holds the models")
    engine: str = flag(
        "auto", "auto, tensorflow (any device) or litert (processors; converts the model once)"
    )
    quantize: str = flag(
        "none", "none, or int8: faster and a quarter of the memory, a little less exact"
    )
    min_p: float = flag(0, "drop tokens less probable than this share of the likeliest; 0 for off")
    typical_p: float = flag(
        0, "draw among the most typical tokens that reach this probability; 0 and 1 for all"
    )
    repetition_penalty: float = flag(
        1, "above 1 makes tokens rarer that prompt or text hold already"
    )
    presence_penalty: float = flag(0, "taken from the score of tokens that the text holds already")
    frequency_penalty: float = flag(0, "the same, times how often it holds them")
    no_repeat_ngram: int = flag(0, "let no sequence of so many tokens come twice; 0 for off")
    banned_words: str = flag("", "words that never come, separated by commas")
    logit_bias: dict | None = flag(None, "added to scores, by token id: '{198: -5}'")
    stop: str = flag("", r"end before this text; several as a list: '[\"\\n\", \"###\"]'")
    min_length: int = flag(0, "tokens before <|endoftext|> may end a sample")
    ignore_eos: bool = flag(False, "write on after <|endoftext|>, as in 2019")
    truncate: str = flag("", "cut each sample before this text, after it is written")
    beams: int = flag(
        0, "search for the likeliest texts along so many beams, instead of drawing; 0 for off"
    )
    length_penalty: float = flag(
        1, "above 1 lets a search prefer longer texts, below 1 shorter ones"
    )
    include_prefix: bool = flag(False, "show the prompt in front of each sample")

    def open(self, halves: int = 1) -> LanguageModel:
        """Check what can be checked at once, then load the model, saying so if that takes long.

        Args:
            halves: of the window, as the length if none is given.

        Raises:
            UserError: a flag or the model does not work.
        """
        check_engine(self.engine, self.quantize)
        workspace = Workspace.find(self.models_dir, self.model_name)
        model = named_model(self.model_name, workspace)
        hparams = model.hparams
        if self.length is None:
            self.length = halves * hparams.n_ctx // 2
        self.seed = randomness.check_seed(self.seed)
        self.check()
        self.sampling().check_vocabulary(hparams.n_vocab)
        load_tensorflow()
        bar: list[tqdm] = []

        def show(event: Converting) -> None:
            if not bar:
                print(
                    "Converting the model for fast writing on this processor; this is done once "
                    f"and kept in {shown(event.folder)}",
                    file=sys.stderr,
                )
                bar.append(tqdm(total=event.of, unit="part"))
            bar[0].update(event.done - bar[0].n)
            if event.done == event.of:
                bar[0].close()

        return open_model(model.path, self.engine, self.quantize, show)

    def check(self) -> None:
        """Hold the flags against what they can be.

        Raises:
            UserError: one makes no sense.
        """
        check_count("nsamples", self.nsamples, least=0)
        check_count("batch_size", self.batch_size, least=1)
        settings = self.text_settings(self.sampling())
        check_count("beams", self.beams, least=0)
        if self.beams:
            self.search().check_text(settings)

    def sampling(self, tokenizer: Any = None) -> SamplingSettings:
        """How tokens are chosen; the banned words need the tokenizer to be spelled."""
        banned = []
        if tokenizer is not None:
            for word in filter(None, str(self.banned_words).split(",")):
                banned += [tokenizer.encode(word), tokenizer.encode(f" {word}")]
        if self.logit_bias is not None and not isinstance(self.logit_bias, dict):
            raise UserError(
                f"logit_bias should be a number for each token id, as in '{{198: -5}}', not "
                f"{self.logit_bias!r}."
            )
        given = flags_of(SamplingSettings, self)
        given |= {"banned": tuple(map(tuple, banned)), "logit_bias": self.logit_bias or {}}
        return SamplingSettings(**given)

    def text_settings(self, sampling: SamplingSettings) -> GenerationSettings:
        """How texts are written."""
        return GenerationSettings(
            length=0 if self.length is None else self.length,
            sampling=sampling,
            seed=0 if self.seed is None else self.seed,
            min_length=self.min_length if self.length is not None else 0,
            ignore_endoftext=bool(self.ignore_eos),
            stop=tuple(_strings("stop", self.stop)),
        )

    def settings(self, model: LanguageModel) -> GenerationSettings:
        """How this model writes texts."""
        return self.text_settings(self.sampling(model.tokenizer))

    def search(self) -> BeamSettings:
        """How beams are followed; `nsamples` texts come back for each prompt."""
        return BeamSettings(self.beams, self.length_penalty, self.nsamples)

    def write(
        self, model: LanguageModel, prompts: Iterable[tuple[int, Sequence[int]]]
    ) -> Iterator[Completion]:
        """Texts as they are being written, or as a search has found them.

        Args:
            prompts: number and tokens of each sample; those of one prompt follow each other.
        """
        settings = self.settings(model)
        if not self.beams:
            yield from model.completions(prompts, settings, self.batch_size)
            return
        searched, found = None, []
        for number, tokens in prompts:
            if number // self.nsamples != searched:
                searched = number // self.nsamples
                found = beam_search(
                    model.engine, model.hparams, model.tokenizer, tokens, settings, self.search()
                )
            if number % self.nsamples < len(found):
                text = found[number % self.nsamples]
                text.number = number
                yield text

    def recorded(self) -> dict[str, Any]:
        """The flags that decide the texts, for a file of samples."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in UNRECORDED}

    def shown_text(self, text: Completion, prompt: str = "") -> str:
        """A finished sample as it is shown."""
        return (prompt if self.include_prefix else "") + self._truncated(text.text)

    def settled_text(self, text: Completion) -> str:
        """What of a sample can be shown already, without the prompt."""
        return self._truncated(text.text[: text.settled])

    def _truncated(self, written: str) -> str:
        for truncate in _strings("truncate", self.truncate):
            written = written.partition(truncate)[0]
        return written


def _strings(name: str, value: Any) -> list[str]:
    r"""One text, or a JSON list of several; \n and its like stand for what they mean."""
    text = str(value)
    if not text:
        return []
    if text.startswith("["):
        try:
            strings = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name} is not a list of texts ({error}): {text}") from error
        return [str(string) for string in strings]
    try:
        return [codecs.decode(text.encode("latin-1", "backslashreplace"), "unicode_escape")]
    except ValueError as error:
        raise UserError(f"{name}: {text} ends or goes on wrongly after a backslash.") from error


def print_banner(number: int) -> None:
    """What stands above each sample since 2019."""
    print("=" * 40, "SAMPLE", number, "=" * 40)


_noted: list[str] = []


def note_window(text: Completion, model: LanguageModel) -> None:
    """Say, once, that a text has outgrown the window."""
    if text.slid and not _noted:
        _noted.append("")
        print(
            f"The model looks at {model.hparams.n_ctx} tokens at most; of a longer text it is "
            "given the last part.",
            file=sys.stderr,
        )


def with_text_flags(**defaults: Any) -> Callable:
    """Make a command of a function whose first argument is `TextFlags`.

    Args:
        defaults: of flags that are other ones in this command.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        fields = dataclasses.fields(TextFlags)
        own = list(inspect.signature(function).parameters.values())[1:]

        @functools.wraps(function)
        def command(**given: Any) -> None:
            names = {field.name for field in fields}
            values = defaults | {name: given.pop(name) for name in names if name in given}
            function(TextFlags(**values), **given)

        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [
            inspect.Parameter(field.name, keyword, default=defaults.get(field.name, field.default))
            for field in fields
        ]
        own = [parameter.replace(kind=keyword) for parameter in own]
        command.__signature__ = inspect.Signature([*own, *shared])
        lines = [f"        {field.name}: {field.metadata['help']}" for field in fields]
        head = inspect.cleandoc(function.__doc__ or "").rstrip()
        arguments = "" if "Args:" in head else "\n\nArgs:"
        command.__doc__ = head + arguments + "\n" + "\n".join(line[4:] for line in lines)
        return command

    return decorate
