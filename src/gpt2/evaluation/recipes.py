"""How the numbers of the GPT-2 paper are measured, as far as that is known.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", Table 3, gives zero-shot
results on nine test sets; the code was not released. Each recipe says where its steps come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gpt2.data.readers import UTF_8, ReaderSettings
from gpt2.data.sources import find_files
from gpt2.errors import UserError
from gpt2.evaluation.texts import documents

# Of enwik8 and text8, whose first 90 % are for training and the next 5 % for validation.
WHOLE_SET, TEST_PART = 100_000_000, 5_000_000


@dataclass(frozen=True)
class Recipe:
    """How a text becomes one number.

    Attributes:
        name: as the user gives it.
        source: where the steps are from, in a sentence.
        measure: of `Perplexity` ("token", "word" or "byte", or "bits" for bits per byte), or
            "lambada" or "cloze".
        detokenizer: see `detokenizers`.
        change: what is done to a document instead of detokenizing it, if anything.
        read: the documents of a dataset, each predicted by itself; None for one text of them all.
        line_ends: whether the end of a line counts as a word.
        published: the paper's values by the model's size; accuracies in percent.
        others: what others have measured with the released weights, in a sentence.
    """

    name: str
    source: str
    measure: str
    published: dict[str, float] = field(default_factory=dict)
    others: str = ""
    detokenizer: str = "none"
    change: Callable[[str], str] | None = None
    read: Callable[[str, ReaderSettings], Iterator[str]] | None = None
    line_ends: bool = False
    accuracies: dict[str, float] = field(default_factory=dict)


def _published(*values: float) -> dict[str, float]:
    return dict(zip(("124M", "355M", "774M", "1558M"), values, strict=True))


def joined_lines(document: str) -> str:
    r"""A document with "\n\n" between its lines, as the `datasets` library's rows are joined."""
    lines = document.splitlines(keepends=True)
    return "\n\n".join(line if line.strip() else "" for line in lines)


def pages(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """The articles of a WikiText file; each begins with a line such as ` = Title = `."""
    for document in documents(path, reading):
        page: list[str] = []
        for line in document.splitlines(keepends=True):
            if re.match(r"\s*= [^=].* =\s*$", line) and any(map(str.strip, page)):
                yield "".join(page)
                page = []
            page.append(line)
        if any(map(str.strip, page)):
            yield "".join(page)


def lines(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """The lines of text files, and the records of others."""
    return documents(path, replace(reading, lines=True))


def sentences(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """The lines of text files with their ends, which are predicted, too."""
    return (f"{line}\n" for line in lines(path, reading))


def last_part(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """The last 5,000,000 bytes of a file of 100,000,000; another file whole.

    What is cut in two at the beginning, and what is no UTF-8, is left out.
    """
    for file in find_files(path):
        try:
            with open(file, "rb") as stream:
                if file.stat().st_size == WHOLE_SET:
                    stream.seek(WHOLE_SET - TEST_PART)
                content = stream.read()
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}.") from error
        yield content.decode("utf-8", errors="ignore")


PAPER = "Radford et al. 2019, Table 3"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "wikitext2",
            "raw file, lines joined by blank lines, perplexity of a GPT-2 token: transformers' "
            "guide to perplexity",
            "token",
            _published(29.41, 22.76, 19.93, 18.34),
            "29.94 for 124M (huggingface/transformers #13761, karpathy/llm.c #276)",
            change=joined_lines,
        ),
        Recipe(
            "wikitext103",
            "each article by itself, perplexity of a word of the file: lm-evaluation-harness's "
            "task wikitext",
            "word",
            _published(37.50, 26.37, 22.05, 17.48),
            "37.37 for 124M (huggingface/transformers #13761)",
            "wikitext",
            read=pages,
        ),
        Recipe(
            "ptb",
            "Zaremba's file as one text, perplexity of a word of the file, ends of lines counted "
            "as words: openai/gpt-2 #78 and the custom of that test set",
            "word",
            _published(65.85, 47.33, 40.31, 35.76),
            "52.53 of a token, 79.65 of a word, not detokenized, for 124M "
            "(huggingface/transformers #13786)",
            "ptb",
            line_ends=True,
        ),
        Recipe(
            "lambada",
            "OpenAI's file; the paper's accuracy is of the last token without stop words, "
            "lm-evaluation-harness's of the last word",
            "lambada",
            _published(35.13, 15.60, 10.87, 8.63),
            "for 124M 46.67 % of last tokens (huggingface/transformers #13761), 32.56 % of last "
            "words at perplexity 40.06 (EleutherAI/lm-evaluation-harness #2159)",
            "lambada",
            read=lines,
            accuracies=_published(45.99, 55.48, 60.12, 63.24),
        ),
        Recipe(
            "enwik8",
            "the last 5,000,000 bytes, bits for each byte: the custom of that test set",
            "bits",
            _published(1.16, 1.01, 0.97, 0.93),
            read=last_part,
        ),
        Recipe(
            "text8",
            "the last 5,000,000 characters, bits for each: the custom of that test set",
            "bits",
            _published(1.17, 1.06, 1.02, 0.98),
            read=last_part,
        ),
        Recipe(
            "1bw",
            "each sentence by itself, perplexity of a word of the file, ends of lines counted as "
            "words: the custom of that test set",
            "word",
            _published(75.20, 55.72, 44.575, 42.16),
            detokenizer="ptb",
            read=sentences,
            line_ends=True,
        ),
        Recipe(
            "cbt-cn",
            "the choice with which itself and the rest of its sentence are likeliest: "
            "Radford et al. 2019, section 3.2",
            "cloze",
            others="84.35 % for 124M (huggingface/transformers #13761)",
            detokenizer="ptb",
            accuracies=_published(87.65, 92.35, 93.45, 93.30),
        ),
        Recipe(
            "cbt-ne",
            "the choice with which itself and the rest of its sentence are likeliest: "
            "Radford et al. 2019, section 3.2",
            "cloze",
            others="73.65 % for 124M (huggingface/transformers #13761)",
            detokenizer="ptb",
            accuracies=_published(83.4, 87.1, 88.0, 89.05),
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UserError: there is none.
    """
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]
