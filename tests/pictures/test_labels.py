"""Labels of tokens: readable for any bytes."""

from __future__ import annotations

import pytest

from gpt2.pictures.labels import LabelPart, label, legible, pieces


def in_ascii(character: str) -> bool:
    return character.isascii()


def anything(character: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("token", "is_drawable", "expected"),
    [
        (b"word", anything, "word"),
        (b" word\n", anything, "·word↵"),
        (b"\t", anything, "→"),
        ("中".encode(), anything, "中"),
        ("中".encode(), in_ascii, "⟨U+4E2D⟩"),
        ("\U0001f600".encode(), in_ascii, "⟨U+1F600⟩"),
        (b"\xe4\xb8", anything, "⟨E4 B8⟩"),  # the first two bytes of 中
        (b"\xad", anything, "⟨AD⟩"),  # its last one
        (b" \xf0\x9f", in_ascii, "·⟨F0 9F⟩"),
        (b"a\xff\xfeb", anything, "a⟨FF FE⟩b"),
        (b"\x00", anything, "⟨U+0000⟩"),
        (b"\x00\x1b", anything, "⟨U+0000 …⟩"),
        ("\u200d".encode(), anything, "⟨U+200D⟩"),  # a joiner
        ("\ufe0f".encode(), anything, "⟨U+FE0F⟩"),  # a variation selector
        (b"<|endoftext|>", anything, "<|endoftext|>"),
        (b"$x_1$", anything, "$x_1$"),
    ],
)
def test_label(token: bytes, is_drawable, expected: str) -> None:
    assert label(token, is_drawable) == expected


def test_a_long_label_is_shortened_but_never_within_a_number() -> None:
    assert label(b"abcdefghijklmnop", anything, 6) == "abcde…"
    assert label("中文字体".encode(), in_ascii, 10) == "⟨U+4E2D …⟩"
    assert label(b" " * 100, anything, 5) == "····…"


def test_pieces_contain_every_byte_of_any_token() -> None:
    for token in (bytes([a, b]) for a in range(256) for b in range(0, 256, 7)):
        again = b""
        for text, is_name in pieces(token, anything):
            if not is_name:
                again += text.encode()
                continue
            for name in text.split():
                character = name.startswith("U+")
                again += chr(int(name[2:], 16)).encode() if character else bytes.fromhex(name)
        assert again == token


def test_neighboring_names_are_joined() -> None:
    assert pieces(b"ab\xe4\xb8", anything) == [LabelPart("ab", False), LabelPart("E4 B8", True)]


def test_the_name_of_a_run_is_legible() -> None:
    assert legible("模 run", in_ascii) == "⟨U+6A21⟩ run"
