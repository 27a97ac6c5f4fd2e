"""Files of prompts in their three forms, and examples in front of them."""

from __future__ import annotations

import pytest

from gpt2.errors import UserError
from gpt2.generation.prompts import Prompt, Template, read_prompts


def texts(content: str) -> list[str]:
    return [prompt.text for prompt in read_prompts(content, "prompts")]


def test_each_line_is_a_prompt_and_empty_ones_are_passed_over() -> None:
    assert texts("one\n\n two \n   \nthree") == ["one", " two ", "three"]


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0c"])
def test_only_a_newline_ends_a_line(end: str) -> None:
    assert texts(f"one{end}more\ntwo\n") == [f"one{end}more", "two"]
    if end != "\x0c":  # which JSON wants escaped
        assert texts(f'{{"prompt": "one{end}more"}}\n{{"prompt": "two"}}\n') == [
            f"one{end}more",
            "two",
        ]


def test_lines_of_dashes_divide_prompts_of_several_lines() -> None:
    assert texts("one\nmore\n---\ntwo\n---\n\n--- \nthree\n\nend\n") == [
        "one\nmore",
        "two",
        "three\n\nend",
    ]


def test_objects_in_lines_keep_their_fields_and_an_empty_prompt() -> None:
    content = '{"prompt": "one"}\n\n{"prompt": ""}\n{"question": "1+1", "number": 3}\n'
    prompts = list(read_prompts(content, "prompts"))
    assert [prompt.fields for prompt in prompts] == [
        {"prompt": "one"},
        {"prompt": ""},
        {"question": "1+1", "number": "3"},
    ]
    assert [prompt.number for prompt in prompts] == [1, 2, 3]


@pytest.mark.parametrize("line", ['{"prompt": ', "[1]", '{"prompt": ["one"]}', '"text"'])
def test_a_bad_line_is_named_and_the_others_keep_their_numbers(line: str) -> None:
    first, bad, last = read_prompts(f'{{"prompt": "one"}}\n{line}\n{{"prompt": "three"}}', "file")
    assert isinstance(bad, UserError) and str(bad).startswith("file line 2: ")
    assert (first.number, last.number) == (1, 3)


def test_a_template_is_filled_up_to_the_answer() -> None:
    example = Prompt(1, {"question": "1+1", "answer": "2"})
    template = Template("Q: {question}\nA: {answer}", [example])
    expected = "Q: 1+1\nA: 2\n\nQ: 2+2\nA:"
    assert template.fill_in(Prompt(1, {"question": "2+2"})) == expected
    # A plain line is what the template asks for first.
    assert template.fill_in(Prompt(1, {"prompt": "2+2"})) == expected


@pytest.mark.parametrize(
    ("template", "fields", "sentence"),
    [
        ("no field", {"a": "b"}, "has no field"),
        ("{a", {"a": "b"}, "is invalid"),
        ("{a} {b}", {"a": "b"}, "Example 1 has no field 'b'"),
    ],
)
def test_templates_that_cannot_work_are_refused(
    template: str, fields: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Template(template, [Prompt(1, fields)])
