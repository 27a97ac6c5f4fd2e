"""A chat's prompts are conversations as in training, cut on the borders of messages."""

from __future__ import annotations

import pytest

from gpt2.data.templates import PLAIN_CHAT, Template
from gpt2.errors import UserError
from gpt2.generation.chat import Chat
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE

BYTES = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
TOKENIZER = Tokenizer(BYTES | {ENDOFTEXT: 256}, [])


def chat(template: str = PLAIN_CHAT, n_ctx: int = 1000, **options) -> Chat:
    return Chat(Template(template), TOKENIZER, n_ctx, **options)


def text_of(tokens: list[int]) -> str:
    assert tokens[0] == 256  # as every example begins in training
    return bytes(tokens[1:]).decode()


def test_a_prompt_has_the_history_and_ends_where_the_reply_begins() -> None:
    session = chat()
    assert text_of(session.prompt("hi", 10)) == "User: hi\nAssistant:"
    session.add("hi", " hello\n")
    assert text_of(session.prompt("more", 10)) == (
        "User: hi\nAssistant: hello\nUser: more\nAssistant:"
    )
    assert session.stop == ("\nUser:",)
    session.reset()
    assert text_of(session.prompt("more", 10)) == "User: more\nAssistant:"


def test_the_fields_of_a_pair_are_user_and_model() -> None:
    session = chat(r"Q: {question}\nA: {answer}")
    session.add("1+1", "2")
    assert text_of(session.prompt("2+2", 10)) == "Q: 1+1\nA: 2\n\nQ: 2+2\nA:"
    assert session.stop == ("\nQ:",)


def test_a_model_of_pairs_gets_each_question_alone() -> None:
    session = chat("{prompt}={completion}", history=False)
    session.add("1+1", "2")
    assert text_of(session.prompt("2+2", 10)) == "2+2="
    assert session.dropped == 0


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_the_oldest_exchanges_are_dropped_and_the_system_message_stays(system: str) -> None:
    start = f"System: {system}\n" if system else ""
    talk = [f"User: q{n}\nAssistant: a{n}\n" for n in range(4)]
    end = "User: q\nAssistant:"
    for kept in range(5):
        text = start + "".join(talk[4 - kept :]) + end
        for spare in (0, len(talk[0]) - 1):  # one token less than the next exchange needs
            session = chat(n_ctx=1 + len(text) + spare + 5)
            session.set_system(system)
            for n in range(4):
                session.add(f"q{n}", f"a{n}")
            assert text_of(session.prompt("q", 5)) == (
                text if kept < 4 else start + "".join(talk) + end
            )
            assert session.dropped == 4 - kept


def test_at_most_half_of_the_window_is_kept_for_the_reply() -> None:
    session = chat("<{a}>{b}", n_ctx=20)
    session.add("12", "3")
    # <|endoftext|> and 10 characters, one more than half of the window.
    assert text_of(session.prompt("4", 1000)) == "<4>"
    session.add("12", "")
    assert text_of(session.prompt("4", 7)) == "<12>\n\n<4>"


def test_a_message_longer_than_the_window_is_kept_whole() -> None:
    session = chat(n_ctx=16)
    session.add("a", "b")
    assert text_of(session.prompt("x" * 50, 5)) == f"User: {'x' * 50}\nAssistant:"
    assert session.exchanges == []


def test_a_vocabulary_without_endoftext_does_not_start_with_it() -> None:
    session = Chat(Template("{a}={b}"), Tokenizer(BYTES, []), 100)
    assert bytes(session.prompt("1", 5)) == b"1="


@pytest.mark.parametrize("template", ["{text}", "{a}{b}{c}", "{system}{a}"])
def test_a_template_without_two_turns_is_no_chat(template: str) -> None:
    with pytest.raises(UserError, match="two fields"):
        chat(template)


def test_a_system_message_needs_its_field() -> None:
    with pytest.raises(UserError, match=r"no field \{system\}"):
        chat("{user}{assistant}").set_system("Be brief.")
    chat("{user}{assistant}").set_system("")
