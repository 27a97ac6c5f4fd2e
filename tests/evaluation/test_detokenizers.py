"""Spaced-out text becomes ordinary text."""

from __future__ import annotations

import pytest

from gpt2.errors import UserError
from gpt2.evaluation.detokenizers import detokenizer


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", " a , b \n", " a , b \n"),
        ("wikitext", "about 1 @,@ 200 @.@ 5 well @-@ known", "about 1,200.5 well-known"),
        ("wikitext", "one , two ; 3 : 4 . Five ! Six ? ", "one, two; 3: 4. Five! Six? "),
        ("wikitext", "a ( b ) [ c ] { d } e", "a (b) [c] {d} e"),
        ("wikitext", "the \" red \" one and ' blue ' too", "the \"red\" one and 'blue' too"),
        ("wikitext", " = = Title = = \n text \n", " == Title ==\ntext\n"),
        ("wikitext", " = = = Title = = = \n", " === Title ===\n"),
        ("wikitext", "the cat 's <unk> at 5 ° C", "the cat's <unk> at 5°C"),
        ("ptb", " no it was n't black monday \n it 's up", " no it wasn't black monday\nit's up"),
        ("ptb", "they 're up $ N N times\n", "they're up $1 1 times\n"),
        ("ptb", "the traders ' N %", "the traders' 1%"),
        ("ptb", "`` It 's a dog , '' said she .", '"It\'s a dog," said she.'),
        ("ptb", "one -LRB- and \\/ or -RRB- two", "one (and / or) two"),
        ("ptb", "He said : `` Go ! ''\n", 'He said: "Go!"\n'),
        ("ptb", "a <unk> said 'tis so", "a <unk> said 'tis so"),
        ("lambada", " \u201c hello \u201d , it \u2019s `` me ''\n", '" hello " , it \'s " me "'),
    ],
)
def test_by_hand(name: str, text: str, expected: str) -> None:
    assert detokenizer(name)(text) == expected


def test_another_name_is_told() -> None:
    with pytest.raises(UserError, match=r"detokenizer .*none, wikitext, ptb, lambada.*'bert'"):
        detokenizer("bert")
