"""Detokenizers: turn the space-separated tokens of old test sets into ordinary text.

GPT-2 has not seen text such as `the dog 's tail , and so on @-@ and so forth .` in training. OpenAI
applied "invertible de-tokenizers" (Radford et al. 2019, section 3.1), which lowered perplexity by
2.5 to 5 points and were not released. Words and bytes are counted in the original text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gpt2.checks import check_choice

Rules = tuple[tuple[str, str], ...]

# In the order of lm-evaluation-harness, lm_eval/tasks/wikitext/preprocess_wikitext.py, which yields
# a perplexity of 37.37 for 124M on WikiText-103; the paper reports 37.50.
_WIKITEXT: Rules = (
    (r"s '", "s'"),
    *((f" @{re.escape(mark)}@ ", mark) for mark in "-,."),
    *((rf" {re.escape(mark)} ", f"{mark} ") for mark in ":;.!?,"),
    (r"\(\s*([^)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"\{\s*([^}]*?)\s*\}", r"{\1}"),
    (r'"\s*([^"]*?)\s*"', r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (r" ° ", "°"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)

# The conventions of the Penn Treebank: those of the file of Zaremba et al. 2014 (lower case, N for
# numbers, no punctuation) and those of others (`` quotes '', -LRB- brackets -RRB-, punctuation as
# separate tokens).
_PTB: Rules = (
    (r"(?i)-lrb- ?", "("),
    (r"(?i) ?-rrb-", ")"),
    (r"(?i)-l[sc]b- ?", "["),
    (r"(?i) ?-r[sc]b-", "]"),
    (r"`` ?", '"'),
    (r" ?''", '"'),
    (r"(?<=[ \n])` (?=\w)", "'"),
    (r"\\/", "/"),
    (r"\bN\b", "1"),
    (r"([$#£]) (?=\d)", r"\1"),
    (r"(?i)(?<=\w) (n't|'(?:s|m|d|re|ve|ll|t))\b", r"\1"),
    (r"(?<=s) '(?=[ \n]|$)", "'"),
    (r"([(\[{]) ", r"\1"),
    (r" ([)\]}%])", r"\1"),
    (r" ([,;:.!?]+)(?=[ \n\"')]|$)", r"\1"),
    (r"[ \t]+\n", "\n"),
    (r"\n[ \t]+", "\n"),
)

_LAMBADA: Rules = (
    ("[\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}]|``|''", '"'),
    ("[\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]", "'"),
)

_RULES: dict[str, Rules] = {"none": (), "wikitext": _WIKITEXT, "ptb": _PTB, "lambada": _LAMBADA}


def detokenizer(name: str) -> Callable[[str], str]:
    """Return the detokenizer of that name, a function from text to text.

    Raises:
        UserError: the name is unknown.
    """
    check_choice("detokenizer", name, tuple(_RULES))
    rules = [(re.compile(pattern), replacement) for pattern, replacement in _RULES[name]]

    def detokenize(text: str) -> str:
        for pattern, replacement in rules:
            text = pattern.sub(replacement, text)
        return text.strip() if name == "lambada" else text

    return detokenize
