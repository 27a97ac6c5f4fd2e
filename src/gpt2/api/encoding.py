"""`gpt2.encode`: text files to a dataset of tokens."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from gpt2 import processes
from gpt2.api.options import check_switch, optional_text_of, options_of, text_of, with_defaults
from gpt2.api.progress import Progress
from gpt2.api.results import Result
from gpt2.checkpoint.resolve import find_folder
from gpt2.checks import check_count, settings_from
from gpt2.data import npz, shards, tokenization
from gpt2.data.encoding import Output, encode_files
from gpt2.data.readers import ReaderSettings
from gpt2.data.sources import total_size
from gpt2.data.tokenization import TokenizationSettings
from gpt2.errors import escaped, shown

OPTIONS = options_of(ReaderSettings, TokenizationSettings)
SAMPLE = 24  # tokens of the dataset that a result shows


@dataclasses.dataclass(frozen=True, repr=False)
class EncodingResult(Result):
    """A dataset that `gpt2.encode` has written.

    Attributes:
        path: the file, or the folder of shards.
        files: number of text files.
        bytes: their size; None if it is unknown.
        tokens: number of tokens.
        sample: the first tokens of the dataset, as text.
        notices: what the user was told during the call.
    """

    title = "Encoded dataset"

    path: Path
    files: int
    bytes: int | None
    tokens: int
    sample: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @property
    def tokens_per_byte(self) -> float | None:
        """Tokens per byte of the files (lower is a better compression); None if unknown."""
        return self.tokens / self.bytes if self.bytes else None

    def _facts(self) -> dict[str, str | None]:
        rate = self.tokens_per_byte
        return {
            "files": f"{self.files:,}",
            "tokens": f"{self.tokens:,}",
            "tokens per byte": None if rate is None else f"{rate:.3f}",
            "first tokens": "|".join(map(escaped, self.sample)),
            "path": shown(self.path),
        }


def encode(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model_name: str | os.PathLike[str] = "124M",
    *,
    models_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> EncodingResult:
    """Tokenize text files, write the tokens, and return the result.

    Args:
        dataset: a file, folder, or glob pattern.
        out: file to write (`.npz`), or with a slash at the end a folder of shards.
        model_name: the model whose vocabulary is used.
        models_dir: folder of the models (default: `models`).
        workers: number of processes; None for one per core.
        progress: whether to show a progress bar and notices.
        options: fields of `ReaderSettings` and `TokenizationSettings`, such as `lines=True`.

    Raises:
        UserError: an argument is wrong, a file cannot be read, or the files contain no text;
            no output is written.

    Example:
        >>> gpt2.encode("stories.txt", "stories.npz", "small").tokens
    """
    check_switch("progress", progress)
    if workers is not None:
        check_count("workers", workers, least=1)
    values = with_defaults(options, OPTIONS)
    reading = settings_from(ReaderSettings, values)
    settings = settings_from(TokenizationSettings, values)
    name, shows = text_of("dataset", dataset), Progress(progress)
    output = Output.of(text_of("out", out))
    model = find_folder(
        text_of("model_name", model_name), optional_text_of("models_dir", models_dir), shows.notice
    )
    tokenizer = model.tokenizer()
    n_vocab = model.n_vocab(tokenizer)
    paths = tokenization.find_files(name)
    output.check_inputs(paths)
    with shows.bytes(paths) as count:
        tokens = encode_files(
            name,
            paths,
            output,
            tokenizer,
            n_vocab,
            reading,
            settings,
            workers=processes.check_count(workers),
            progress=count,
            notice=shows.notice,
        )
    read = shards.read if output.in_folder else npz.read
    first = next(iter(read(output.path, n_vocab)))[:SAMPLE]
    return EncodingResult(
        path=output.path,
        files=len(paths),
        bytes=total_size(paths),
        tokens=tokens,
        sample=tuple(tokenizer.decode([int(token)]) for token in first),
        notices=tuple(shows.notices),
    )
