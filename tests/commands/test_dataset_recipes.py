"""The recipes of docs/datasets.md, run on small files of the same format."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import npz, shards
from gpt2.tokenizer import Tokenizer
from tests.commands.toolkit_copy import REPOSITORY, Toolkit
from tests.support import waiting

Recipes = dict[str, list[str]]

SHAKESPEARE = "First Citizen:\nBefore we eat, hear me.\n\nAll:\nEat, eat.\n"
POEMS = ['Rain,\n"rain",\nand a comma', "Sun.\n\nSun again."]
STORIES = ["Tim had a kite.\n\nIt flew.\n", "\nA dog sat.\n", "\nThe end, said Mia.\n"]
CODE = "def one():\n\treturn 1\n"
PAGES = ["A page with an ellipsis …", "Another page.\n\nIt goes on."]
CHAT = "[1.5.20, 10:00] Ann: Hi 👋\n[1.5.20, 10:01] Bob: two\nlines\n"
CONVERSATIONS = ["Ann: Hi 👋\nBob: Hello", "Bob: Bye"]
BOOK = "Als er eines Morgens erwachte, fröstelte ihn.\n"


def write_shakespeare(folder: Path) -> None:
    (folder / "shakespeare.txt").write_text(SHAKESPEARE)


def write_poems(folder: Path) -> None:
    rows = "".join(
        f'{n},"{poem}"\r\n'.replace('"rain"', '""rain""') for n, poem in enumerate(POEMS)
    )
    (folder / "poems.csv").write_bytes(b"\xef\xbb\xbfid,poem\r\n" + rows.encode())


def write_stories(folder: Path) -> None:
    (folder / "stories.txt").write_text("<|endoftext|>".join(STORIES))


def write_code(folder: Path) -> None:
    for name in ("project/one.py", "project/sub/two.py", "project/.git/three.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CODE.replace("\n", "\r\n").encode())
    (folder / "project" / "logo.png").write_bytes(b"\x89PNG\0")
    (folder / "project" / "package.json").write_text('{"name": 1}')


def write_pages(folder: Path) -> None:
    (folder / "openwebtext").mkdir()
    for number, page in enumerate(PAGES):
        name = f"{number}.txt"
        (folder / name).write_text(page, encoding="utf-8")
        with tarfile.open(folder / "openwebtext" / f"subset0{number}_data.xz", "w:xz") as archive:
            archive.add(folder / name, name)
    with tarfile.open(folder / "openwebtext.tar.xz", "w:xz") as archive:
        archive.add(folder / "openwebtext", "openwebtext")
    shutil.rmtree(folder / "openwebtext")
    (folder / "collection").mkdir()
    for number, page in enumerate(PAGES):
        with gzip.open(folder / "collection" / f"{number}.jsonl.gz", "wt") as file:
            file.write(json.dumps({"url": "a", "text": page}) + "\n")


def write_chat(folder: Path) -> None:
    (folder / "chat.txt").write_bytes(b"\xef\xbb\xbf" + CHAT.replace("\n", "\r\n").encode())
    with gzip.open(folder / "conversations.jsonl.gz", "wt") as file:
        for conversation in CONVERSATIONS:
            file.write(json.dumps({"conversation": conversation}) + "\n")


def write_book(folder: Path) -> None:
    (folder / "books").mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / "books" / name).write_bytes(BOOK.encode("cp1252"))


# Section: the function that writes its files, and the documents of each dataset.
SHAPES: dict[str, tuple[Callable[[Path], None], dict[str, list[str]]]] = {
    "Shakespeare": (write_shakespeare, {"shakespeare.npz": [SHAKESPEARE]}),
    "Poems": (write_poems, {"poems.npz": POEMS}),
    "Short stories": (write_stories, {"stories/": STORIES}),
    "Source code": (write_code, {"code.npz": [CODE, CODE]}),
    "OpenWebText": (write_pages, {"openwebtext-tokens/": PAGES, "collection-tokens/": PAGES}),
    "A chat log": (write_chat, {"chat.npz": [CHAT]}),
    "A book in another language": (write_book, {"german.npz": [BOOK, BOOK]}),
}


@pytest.fixture
def toolkit(encoding_toolkit: Toolkit) -> Toolkit:
    return encoding_toolkit


@pytest.fixture(scope="module")
def recipes() -> dict[str, str]:
    """Return the sections that have commands for encoding, by their titles."""
    page = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
    return {
        re.split("[:\n]", section)[0]: section
        for section in page.split("\n## ")[1:]
        if "\npython src/encode.py" in section
    }


def run(toolkit: Toolkit, commands: str) -> None:
    """Run commands of the page in a shell, without those for training."""
    lines = [line for line in commands.splitlines() if "new_model" not in line]
    lines = [line.replace("--model_name german ", "") for line in lines if "train" not in line]
    script = "\n".join(["set -e", *lines]).replace("python ", f"{sys.executable} ")
    done = waiting.run(["sh", "-c", script], cwd=toolkit.root)
    assert done.returncode == 0, done.stderr


def documents(toolkit: Toolkit, name: str) -> list[str]:
    tokenizer = Tokenizer.load(toolkit.root / "models" / "117M")
    path = toolkit.root / name
    chunks = shards.read(path, 257) if name.endswith("/") else list(npz.read(path, 257))
    texts = tokenizer.decode(np.concatenate(chunks).tolist()).split("<|endoftext|>")
    assert texts.pop() == ""
    return texts


def test_every_recipe_has_files_to_run_on(recipes: dict[str, str]) -> None:
    assert list(recipes) == list(SHAPES)


@pytest.mark.skipif(os.name == "nt", reason="the recipes are for a shell")
@pytest.mark.parametrize("title", SHAPES)
def test_a_recipe_creates_the_expected_documents(
    toolkit: Toolkit, recipes: dict[str, str], title: str
) -> None:
    write, expected = SHAPES[title]
    write(toolkit.root)
    blocks = re.findall(r"^```\n(.*?)^```$", recipes[title], re.MULTILINE | re.DOTALL)
    made = set()
    for block in blocks:
        run(toolkit, block)
        for name, texts in expected.items():
            if name not in made and (toolkit.root / name).exists():
                made.add(name)
                assert documents(toolkit, name) == texts
    assert made == set(expected)


def test_the_alternative_commands_of_the_recipes_work(
    toolkit: Toolkit, recipes: dict[str, str]
) -> None:
    """The last block of a section writes the dataset a second time."""
    for title, write in (("Short stories", write_stories), ("Source code", write_code)):
        write(toolkit.root)
        *_, last = re.findall(r"^```\n(.*?)^```$", recipes[title], re.MULTILINE | re.DOTALL)
        if title == "Short stories":
            lines = "\n-----\n".join(STORIES)
            (toolkit.root / "stories.txt").write_text(lines)
        run(toolkit, last)
    assert documents(toolkit, "stories.npz") == [
        f"{before}{story}{after}"
        for before, story, after in zip(["", "\n", "\n"], STORIES, ["\n", "\n", ""], strict=True)
    ]
    assert documents(toolkit, "code.npz") == [CODE, '{"name": 1}', CODE]
    write_chat(toolkit.root)
    *_, last = re.findall(r"^```\n(.*?)^```$", recipes["A chat log"], re.MULTILINE | re.DOTALL)
    run(toolkit, last)
    assert documents(toolkit, "chat.npz") == CONVERSATIONS
