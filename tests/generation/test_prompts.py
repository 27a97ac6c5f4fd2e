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
    assert [prompt.where for prompt in prompts] == [f"prompts line {at}" for at in (1, 3, 4)]
    assert [prompt.fields for prompt in prompts] == [
        {"prompt": "one"},
        {"prompt": ""},
        {"question": "1+1", "number": "3"},
    ]
    assert [prompt.number for prompt in prompts] == [1, 2, 3]


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": ',
        "[1]",
        '"text"',
        '{"prompt": ["one"]}',
        '{"prompt": true}',
        '{"prompt": null}',
        '{"prompt": NaN}',
        '{"prompt": -Infinity}',
        '{"prompt": 1e400}',
        '{"prompt": "a", "other": false}',
    ],
)
def test_a_bad_line_is_named_and_the_others_keep_their_numbers(line: str) -> None:
    first, bad, last = read_prompts(f'{{"prompt": "one"}}\n{line}\n{{"prompt": "three"}}', "file")
    assert isinstance(bad, UserError) and str(bad).startswith("file line 2: ")
    assert (first.number, last.number) == (1, 3)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"prompt": "a", "prompt": "b"}\n{"prompt": "c"}', "file line 1"),
        ('[{"prompt": "a", "prompt": "b"}, "c"]', "file item 1"),
        ('{\n"prompt": "a",\n"prompt": "b"\n}', "file item 1"),
    ],
)
def test_a_record_with_a_repeated_field_is_named(content: str, where: str) -> None:
    bad, *others = read_prompts(content, "file")
    assert str(bad) == f"{where}: field 'prompt' occurs more than once. Keep one of them."
    assert [other.text for other in others] in (["c"], [])


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
        ("{a} {b}", {"a": "b"}, "file line 1: no field 'b'.* fields are 'a'"),
    ],
)
def test_templates_that_cannot_work_are_refused(
    template: str, fields: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Template(template, [Prompt(1, fields, "file line 1")])


@pytest.mark.parametrize("template", [None, "Q: {question}\nA: {answer}"])
@pytest.mark.parametrize("fields", [{"text": "a"}, {"Prompt": "a", "x": "b"}, {"answer": "a"}, {}])
def test_a_record_without_the_wanted_field_is_named_with_those_it_has(
    fields: dict[str, str], template: str | None
) -> None:
    prompt = Prompt(1, fields, "file line 7")
    with pytest.raises(UserError) as refused:
        Template(template, []).fill_in(prompt) if template else prompt.text
    assert str(refused.value).startswith("file line 7: no field '")
    assert all(repr(name) in str(refused.value) for name in fields)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('["A", "B"]', ["A", "B"]),
        ('[\n  "A\\nB",\n  {"prompt": "C"}\n]\n', ["A\nB", "C"]),
        ('{\n  "prompt": "A"\n}\n', ["A"]),
        ("[1]", ["[1]"]),  # a prompt, such as a reference
        ("[Verse 1]\n[Chorus]", ["[Verse 1]", "[Chorus]"]),
        ('["A"]\n["B"]', ['["A"]', '["B"]']),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)
def test_a_list_of_strings_or_objects_is_a_list_of_prompts(
    content: str, expected: list[str]
) -> None:
    assert texts(content) == expected


def test_a_bad_item_of_a_list_is_named_and_the_others_stay() -> None:
    first, bad, last = read_prompts('["A", 3, {"prompt": "B"}]', "file")
    assert (first.text, last.text, last.number) == ("A", "B", 3)
    assert str(bad).startswith("file item 2: ")


def test_prompts_of_several_lines_know_where_they_begin() -> None:
    prompts = list(read_prompts("one\nmore\n---\ntwo", "file"))
    assert [prompt.where for prompt in prompts] == ["file line 1", "file line 4"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('["one", "two', "line 1 column 9"),
        ('["one",\n "two"', "line 2 column 7"),
        ('[\n{"prompt": "one"},\n{"prompt":', "line 3 column 11"),
        ('["one", "two",]', "column 1[45]"),  # the comma, since Python 3.13
        (' [ "one" "two"]', "column 10"),
    ],
)
def test_a_list_that_is_cut_off_is_an_error_with_its_place(content: str, place: str) -> None:
    with pytest.raises(UserError, match=rf"prompts: .*{place}"):
        list(read_prompts(content, "prompts"))


@pytest.mark.parametrize("content", ["[]", " []\n", "\n[]"])
def test_an_empty_list_has_no_prompt(content: str) -> None:
    assert texts(content) == []


@pytest.mark.parametrize("content", ["[Verse 1", "[1, 2", "[", "[[", "[ ]"])
def test_other_text_with_a_bracket_is_a_prompt(content: str) -> None:
    assert texts(content) == [content]
