"""Recipes that reproduce the zero-shot results of the GPT-2 paper, as far as they are known.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", Table 3, reports results
on nine test sets. The code was not released, so each recipe names the source of its steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import StringIO

from gpt2.checks import check_choice
from gpt2.data.readers import UTF_8, ReaderSettings
from gpt2.data.sources import find_files
from gpt2.errors import UserError
from gpt2.evaluation.texts import documents

# Bytes of enwik8 and text8: 90% are for training, the next 5% for validation, the last for test.
WHOLE_SET, TEST_PART = 100_000_000, 5_000_000


@dataclass(frozen=True)
class Recipe:
    """The steps of one evaluation.

    Attributes:
        name: value of --recipe.
        source: where the steps come from.
        measure: "token", "word" or "byte" for the perplexity per unit, "bits" for bits per byte,
            "lambada" or "cloze".
        detokenizer: see `detokenizers`.
        change: applied to each document instead of the detokenizer; None for no change.
        read: yields the documents of a dataset, each predicted on its own; None to predict the
            whole dataset as one text.
        line_ends: whether the end of a line counts as a word.
        published: perplexities in the paper by model size.
        accuracies: accuracies in the paper by model size, in percent.
        others: results of others with the released weights.
        files: names that the test set's file has where it is distributed.
        obtained: where that file comes from.
        reproduced: results of others with the released weights and these same steps, by metric and
            model size; accuracies in percent.
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
    files: tuple[str, ...] = ()
    obtained: str = ""
    reproduced: dict[str, dict[str, float]] = field(default_factory=dict)

    def targets(self, size: str | None) -> list[Target]:
        """Return the metrics of this recipe that have a published value for a size of GPT-2.

        Args:
            size: present name of a released model; None for another model, which has no values.
        """
        metric, accuracy = _METRICS.get(self.measure, ("perplexity", ""))
        paper = {metric: self.published.get(size or ""), accuracy: self.accuracies.get(size or "")}
        names = dict.fromkeys([*paper, *self.reproduced])
        targets = (
            Target(name, paper.get(name), self.reproduced.get(name, {}).get(size or ""))
            for name in names
        )
        return [target for target in targets if target.paper or target.others]


@dataclass(frozen=True)
class Target:
    """The published values of one metric for one size of GPT-2, None where there is none.

    Attributes:
        metric: its name in the results of the recipe.
        paper: the value in the GPT-2 paper; accuracies in percent.
        others: the value that others measured with the released weights and the same steps.
    """

    metric: str
    paper: float | None
    others: float | None

    @property
    def is_percent(self) -> bool:
        """Whether it is an accuracy in percent; the results of recipes have fractions."""
        return "accuracy" in self.metric

    @property
    def expected(self) -> float:
        """The value that a measurement should come closest to."""
        expected = self.others or self.paper
        assert expected is not None  # see `Recipe.targets`
        return expected


# Metric of the paper's perplexity and of its accuracy, where it is not simply the perplexity.
_METRICS = {
    "bits": ("bits_per_byte", ""),
    "lambada": ("last_token_perplexity", "last_token_accuracy_no_stop_words"),
    "cloze": ("", "accuracy"),
}


def _published(*values: float) -> dict[str, float]:
    return dict(zip(("124M", "355M", "774M", "1558M"), values, strict=True))


def joined_lines(document: str) -> str:
    r"""Return a document with "\n\n" between its lines, as joined rows of the datasets library."""
    return "\n\n".join(line if line.strip() else "" for line in StringIO(document, newline="\n"))


def pages(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """Yield the articles of a WikiText file; each begins with a line such as ` = Title = `."""
    for document in documents(path, reading):
        page: list[str] = []
        for line in StringIO(document, newline="\n"):
            if re.match(r"\s*= [^=].* =\s*$", line) and any(map(str.strip, page)):
                yield "".join(page)
                page = []
            page.append(line)
        if any(map(str.strip, page)):
            yield "".join(page)


def lines(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """Yield the lines of text files, and the records of other files."""
    return documents(path, replace(reading, lines=True))


def sentences(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """Yield the lines of text files with their line ends, which are predicted as well."""
    return (f"{line}\n" for line in lines(path, reading))


def last_part(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """Yield the last 5,000,000 bytes of each file of 100,000,000 bytes, and other files whole.

    An incomplete character at the beginning, and bytes that are not UTF-8, are left out.
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

# The test sets of WikiText-2 and WikiText-103 are the same file.
WIKITEXT_FILES = ("wiki.test.raw", "wikitext2.test.raw", "wikitext103.test.raw")
WIKITEXT = "wikitext-2-raw-v1.zip or wikitext-103-raw-v1.zip (wiki.test.raw)"
CHILDRENS_BOOKS = "CBTest.tgz of the Children's Book Test (data/)"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "wikitext2",
            "raw file, lines joined by blank lines, perplexity per token: transformers' "
            "guide to perplexity",
            "token",
            _published(29.41, 22.76, 19.93, 18.34),
            "29.94 for 124M (huggingface/transformers #13761, karpathy/llm.c #276)",
            change=joined_lines,
            files=WIKITEXT_FILES,
            obtained=WIKITEXT,
            reproduced={"perplexity": {"124M": 29.94}},
        ),
        Recipe(
            "wikitext103",
            "each article on its own, perplexity per word of the file: lm-evaluation-harness's "
            "task wikitext",
            "word",
            _published(37.50, 26.37, 22.05, 17.48),
            "37.37 for 124M (huggingface/transformers #13761)",
            "wikitext",
            read=pages,
            files=WIKITEXT_FILES,
            obtained=WIKITEXT,
            reproduced={"perplexity": {"124M": 37.37}},
        ),
        Recipe(
            "ptb",
            "Zaremba's file as one text, perplexity per word of the file, line ends counted as "
            "words: openai/gpt-2 #78 and common practice for this test set",
            "word",
            _published(65.85, 47.33, 40.31, 35.76),
            "52.53 per token, 79.65 per word, not detokenized, for 124M "
            "(huggingface/transformers #13786)",
            "ptb",
            line_ends=True,
            files=("ptb.test.txt",),
            obtained="simple-examples.tgz of T. Mikolov (data/ptb.test.txt)",
        ),
        Recipe(
            "lambada",
            "OpenAI's file; the paper's accuracy is that of the last token without stop words, "
            "lm-evaluation-harness's that of the last word",
            "lambada",
            _published(35.13, 15.60, 10.87, 8.63),
            "46.67% of last tokens (huggingface/transformers #13761), 32.56% of last words at "
            "perplexity 40.06 (EleutherAI/lm-evaluation-harness #2159), for 124M",
            "lambada",
            read=lines,
            accuracies=_published(45.99, 55.48, 60.12, 63.24),
            files=("lambada_test.jsonl",),
            obtained="the Hugging Face dataset EleutherAI/lambada_openai "
            "(data/lambada_test_en.jsonl), saved under this name",
            reproduced={
                "last_token_accuracy": {"124M": 46.67},
                "last_word_accuracy": {"124M": 32.56},
                "last_word_perplexity": {"124M": 40.06, "1558M": 10.63},
            },
        ),
        Recipe(
            "enwik8",
            "the last 5,000,000 bytes, bits per byte: common practice for this test set",
            "bits",
            _published(1.16, 1.01, 0.97, 0.93),
            read=last_part,
            files=("enwik8",),
            obtained="http://mattmahoney.net/dc/enwik8.zip",
        ),
        Recipe(
            "text8",
            "the last 5,000,000 characters, bits per character: common practice for this test set",
            "bits",
            _published(1.17, 1.06, 1.02, 0.98),
            read=last_part,
            files=("text8",),
            obtained="http://mattmahoney.net/dc/text8.zip",
        ),
        Recipe(
            "1bw",
            "each sentence on its own, perplexity per word of the file, line ends counted as "
            "words: common practice for this test set",
            "word",
            _published(75.20, 55.72, 44.575, 42.16),
            detokenizer="ptb",
            read=sentences,
            line_ends=True,
            files=("news.en.heldout-00000-of-00050",),
            obtained="the One Billion Word Benchmark, https://www.statmt.org/lm-benchmark",
        ),
        Recipe(
            "cbt-cn",
            "the choice that maximizes the probability of itself and the rest of its sentence: "
            "Radford et al. 2019, section 3.2",
            "cloze",
            others="84.35% for 124M (huggingface/transformers #13761)",
            detokenizer="ptb",
            accuracies=_published(87.65, 92.35, 93.45, 93.30),
            files=("cbtest_CN_test_2500ex.txt",),
            obtained=CHILDRENS_BOOKS,
            reproduced={"accuracy": {"124M": 84.35}},
        ),
        Recipe(
            "cbt-ne",
            "the choice that maximizes the probability of itself and the rest of its sentence: "
            "Radford et al. 2019, section 3.2",
            "cloze",
            others="73.65% for 124M (huggingface/transformers #13761)",
            detokenizer="ptb",
            accuracies=_published(83.4, 87.1, 88.0, 89.05),
            files=("cbtest_NE_test_2500ex.txt",),
            obtained=CHILDRENS_BOOKS,
            reproduced={"accuracy": {"124M": 73.65}},
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UserError: the name is unknown.
    """
    check_choice("recipe", name, tuple(RECIPES))
    return RECIPES[name]
