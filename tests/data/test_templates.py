"""Templates: fields and messages become prompts and completions, in training and in chats."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2.data import templates
from gpt2.data.templates import (
    PAIRS,
    PLAIN_CHAT,
    TEMPLATE_FILE,
    Message,
    SavedTemplate,
    Template,
    chat_template,
    conversation,
)
from gpt2.errors import UserError

SPECIAL_CHAT = chat_template(["<|system|>", "<|user|>", "<|assistant|>"])
TALK = [("user", "hi"), ("assistant", "hello"), ("user", "more"), ("assistant", "bye")]


def spans(template: str, *messages: tuple[str, str]) -> list[tuple[str, str]]:
    """The spans, each as "ask" or "answer" and its text."""
    found = Template(template).spans([Message(*message) for message in messages])
    return [("answer" if span.completion else "ask", span.text) for span in found]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (PAIRS, [("ask", "a"), ("answer", "b")]),
        ("{prompt} {completion}", [("ask", "a"), ("answer", " b")]),
        ("{prompt}\n{completion}\n", [("ask", "a\n"), ("answer", "b\n")]),
        (r"Q: {prompt}\nA: {completion}", [("ask", "Q: a\nA:"), ("answer", " b")]),
        ("<|q|>{prompt}<|a|>{completion}<|e|>", [("ask", "<|q|>a<|a|>"), ("answer", "b<|e|>")]),
        ("{{{prompt}}} {completion}", [("ask", "{a}"), ("answer", " b")]),
    ],
)
def test_the_last_field_and_what_follows_it_is_the_completion(template, expected) -> None:
    assert spans(template, ("prompt", "a"), ("completion", "b")) == expected


def test_a_template_of_one_field_is_all_completion_after_its_text() -> None:
    assert spans("Title: {title}", ("title", "x")) == [("ask", "Title:"), ("answer", " x")]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            PLAIN_CHAT,
            [
                ("ask", "User: hi\nAssistant:"),
                ("answer", " hello\nUser:"),
                ("ask", " more\nAssistant:"),
                ("answer", " bye\n"),
            ],
        ),
        (
            SPECIAL_CHAT,
            [
                ("ask", "<|user|>hi<|assistant|>"),
                ("answer", "hello<|user|>"),
                ("ask", "more<|assistant|>"),
                ("answer", "bye"),
            ],
        ),
        (
            r"Q: {user}\nA: {assistant}",
            [
                ("ask", "Q: hi\nA:"),
                ("answer", " hello\n\nQ:"),
                ("ask", " more\nA:"),
                ("answer", " bye"),
            ],
        ),
        (
            r"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{assistant}<|im_end|>\n",
            [
                ("ask", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
                ("answer", "hello<|im_end|>\n<|im_start|>user\n"),
                ("ask", "more<|im_end|>\n<|im_start|>assistant\n"),
                ("answer", "bye<|im_end|>\n"),
            ],
        ),
    ],
)
def test_each_message_of_the_assistant_is_a_completion_with_the_next_opening(
    template, expected
) -> None:
    # The opening of the next turn is what a chat stops at, so the model must learn it.
    assert spans(template, *TALK) == expected


@pytest.mark.parametrize("template", [PLAIN_CHAT, SPECIAL_CHAT, r"Q: {user}\nA: {assistant}"])
@pytest.mark.parametrize("exchanges", [1, 2])
def test_a_request_for_a_reply_is_the_beginning_of_the_whole_conversation(
    template: str, exchanges: int
) -> None:
    talk = TALK[: 2 * exchanges]
    asked = spans(template, *talk[:-1], ("assistant", ""))
    assert asked[-1][0] == "ask"
    assert asked == spans(template, *talk)[:-1]


def test_messages_may_come_in_any_order() -> None:
    talk = [("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d")]
    assert spans(PLAIN_CHAT, ("system", "Be brief."), *talk) == [
        ("ask", "System: Be brief.\nUser: a\nUser: b\nAssistant:"),
        ("answer", " c\nUser:"),
        ("ask", " d\n"),
    ]
    talk = [("assistant", ""), ("user", "a"), ("assistant", "c")]  # an empty one is not learned
    assert spans(PLAIN_CHAT, *talk) == [
        ("ask", "Assistant: \nUser: a\nAssistant:"),
        ("answer", " c\n"),
    ]


@pytest.mark.parametrize(
    ("template", "stop"),
    [
        (PAIRS, ()),
        (PLAIN_CHAT, ("\nUser:",)),
        (SPECIAL_CHAT, ("<|user|>",)),
        (r"Q: {question}\nA: {answer}", ("\nQ:",)),
        ("<|user|>{u}<|end|><|assistant|>{a}<|end|>", ("<|end|>", "<|user|>")),
        (r"### Ask:\n{u}\n\n### Reply:\n{a}", ("\n### Ask:",)),
    ],
)
def test_a_reply_stops_at_its_end_or_at_the_next_turn(template: str, stop: tuple) -> None:
    assert Template(template).stop == stop


def test_the_roles_are_special_tokens_if_the_vocabulary_has_them() -> None:
    assert chat_template([]) == chat_template(["<|user|>"]) == PLAIN_CHAT
    assert SPECIAL_CHAT == "<|system|>{system}<|user|>{user}<|assistant|>{assistant}"
    some = chat_template(["<|user|>", "<|assistant|>"])
    assert some == "{system}<|user|>{user}<|assistant|>{assistant}"


@pytest.mark.parametrize(
    ("template", "fact"),
    [
        ("no field", "has no field.*{prompt}"),
        ("{{prompt}}", "has no field"),
        ("{prompt", "is invalid.*{name}"),
        ("prompt}", "is invalid"),
        ("{}", "must be a name"),
        ("{answer:>5}", "must be a name"),
        ("{answer!r}", "must be a name"),
        ("{a} {a}", "{a} twice"),
    ],
)
def test_an_invalid_template_is_refused(template: str, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        Template(template)


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("hello", "not a list"),
        ([3], 'message 1 is not an object with "role" and "content"'),
        ([{"role": "user"}], "message 1 is not an object"),
        (
            [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}],
            "2 .*'tool'.*system",
        ),
        ([{"role": ["x"], "content": "a"}], "role"),
        ([{"role": "user", "content": None}], "content of message 1 is not a string"),
        ([{"role": "user", "content": [{"type": "text"}]}], "content of message 1"),
    ],
)
def test_what_is_not_a_conversation_is_named(value: object, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        conversation(Template(PLAIN_CHAT), value)


def test_a_template_is_kept_in_a_folder(tmp_path: Path) -> None:
    assert templates.load(tmp_path) is None
    saved = SavedTemplate("Q: {question}\nA: {answer}", conversations=False)
    templates.save(tmp_path, saved)
    assert templates.load(tmp_path) == saved


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"template": 3}', '{"template": "x"}'])
def test_an_invalid_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / TEMPLATE_FILE).write_text(content)
    with pytest.raises(UserError, match=TEMPLATE_FILE):
        templates.load(tmp_path)
