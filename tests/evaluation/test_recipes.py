"""What each recipe takes for its documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.evaluation import recipes
from gpt2.evaluation.detokenizers import detokenizer
from gpt2.evaluation.recipes import RECIPES, joined_lines, last_part, lines, pages, recipe_named

WIKI = (
    " \n = One = \n \n First . \n Second . \n \n = = Part = = \n \n Third . \n \n"
    " = Two = \n Fourth . \n"
)


@pytest.fixture
def wiki(tmp_path: Path) -> str:
    (tmp_path / "wiki.txt").write_text(WIKI)
    return str(tmp_path / "wiki.txt")


def test_lines_are_joined_as_the_rows_of_the_datasets_library() -> None:
    """There a row is a line with its end, and a blank one is the empty string."""
    assert joined_lines(WIKI).startswith(
        "\n\n = One = \n\n\n\n\n First . \n\n\n Second . \n\n\n\n\n = = Part = = \n"
    )


def test_articles_begin_at_headings_of_the_first_level(wiki: str) -> None:
    first, second = pages(wiki)
    assert first == WIKI[: WIKI.index(" = Two")]
    assert second == " = Two = \n Fourth . \n"


def test_passages_are_lines_or_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n\nthree four\n")
    assert list(lines(str(tmp_path / "a.txt"))) == ["one two", "three four"]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in ("a\nb", "c"))
    )
    assert list(lines(str(tmp_path / "a.jsonl"))) == ["a\nb", "c"]
    assert list(recipes.sentences(str(tmp_path / "a.txt"))) == ["one two\n", "three four\n"]


def test_the_last_part_of_the_whole_set_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "WHOLE_SET", 10)
    monkeypatch.setattr(recipes, "TEST_PART", 4)
    whole, other = tmp_path / "enwik8", tmp_path / "other"
    whole.write_bytes("12345é789".encode())  # the fourth byte from the end is the second of é
    other.write_bytes("12345é78".encode())
    assert list(last_part(str(whole))) == ["789"]
    assert list(last_part(str(other))) == ["12345é78"]


def test_every_recipe_is_complete() -> None:
    names = "cbt-cn cbt-ne enwik8 lambada ptb text8 1bw wikitext103 wikitext2"
    assert set(RECIPES) == set(names.split())
    for recipe in RECIPES.values():
        assert recipe.source
        assert detokenizer(recipe.detokenizer)
        assert recipe.published or recipe.accuracies
    assert RECIPES["wikitext2"].published["124M"] == 29.41
    assert RECIPES["1bw"].published["774M"] == 44.575
    assert RECIPES["lambada"].accuracies["1558M"] == 63.24


def test_another_name_is_told() -> None:
    with pytest.raises(UserError, match=r"recipe .*wikitext2, .*'squad'"):
        recipe_named("squad")


@pytest.mark.parametrize("other", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"], ids=ascii)
def test_only_a_newline_ends_a_line(tmp_path: Path, other: str) -> None:
    assert joined_lines(f"a{other}b\n \nc") == f"a{other}b\n\n\n\n\nc"
    (tmp_path / "wiki.txt").write_text(f" = One = \n a{other} = Two = {other}\n b\n", "utf-8")
    assert len(list(pages(str(tmp_path / "wiki.txt")))) == 1
    assert list(lines(str(tmp_path / "wiki.txt")))[1] == f" a{other} = Two = {other}"


def test_pages_of_a_windows_file_are_found_and_keep_their_bytes(tmp_path: Path) -> None:
    content = WIKI.replace("\n", "\r\n").encode()
    (tmp_path / "wiki.txt").write_bytes(content)
    assert "".join(pages(str(tmp_path / "wiki.txt"))).encode() == content
    assert len(list(pages(str(tmp_path / "wiki.txt")))) == 2
