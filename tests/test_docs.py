"""Every command and Python snippet of README and docs: parsed, and run in small form."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from gpt2.commands import train
from gpt2.commands.exits import UsageError
from gpt2.data import templates
from gpt2.data.templates import SavedTemplate
from gpt2.errors import UserError
from gpt2.stories.grammar import write_stories
from tests.support import documents
from tests.support.documents import ROOT, Block

PAGES = documents.pages()
BLOCKS = [block for page in PAGES for block in documents.blocks(page)]
# Pages whose blocks are steps of one way, with real trainings. Elsewhere each block stands for
# itself, and train ends where TensorFlow would be loaded.
FLOWS = ("docs/tutorial.md", "docs/projects.md")
# Commands that are only parsed, and why.
PARSED_ONLY = {
    "demo": "has tests of its own, and a size that no flag changes",
    "download": "needs the network",
    "convert": "needs files and packages of other programs; tests/interop has them",
    "serve": "does not end; has tests of its own",
    "tune": "trains many times; has tests of its own",
}
FILE_COMMANDS, PROJECTS = ("mkdir", "cp"), "examples/projects/"
SVG = "{http://www.w3.org/2000/svg}"
TYPED = "Mila was\n/quit\n"


def name(value: Path | Block) -> str:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else str(value)


# --- parsed ---


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_is_valid(page: Path) -> None:
    found = [words for block in documents.blocks(page) for words in block.commands()]
    wrong = []
    for words in [*found, *documents.inline_commands(page)]:
        try:
            check(words)
        except (UsageError, UserError, AssertionError, KeyError) as error:
            wrong.append(f"{' '.join(words)}: {error!r}")
    assert wrong == []


def check(words: list[str]) -> None:
    """Check that a command exists and takes these words."""
    if verb := documents.verb_of(words):
        documents.parse(*verb)
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), "no such target"
    elif words[0] == "python" and words[1].endswith(".py"):
        script = ROOT / words[1]
        if not script.is_file() and "/" not in words[1]:
            return  # of the reader's own, such as app.py
        source = script.read_text(encoding="utf-8")
        if words[1].startswith(PROJECTS):
            return  # takes the flags of train.py, too; it is run
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert [flag for flag in flags if flag not in source] == []
    elif words[:2] == ["pip", "install"]:
        files = [after for before, after in itertools.pairwise(words) if before == "-r"]
        assert all((ROOT / file).is_file() for file in files), "no such file"


def test_a_wrong_command_in_a_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```\n$ gpt2 train --dataset a.txt --steps 5\npython src/encode.py a.txt \\\n  b.npz\n```\n"
        "`python src/evaluate.py perplexity --model_name a` and `gpt2 unconditional --top_k many`\n"
        "```\nsed s/a/b/ a.txt | python src/encode.py - out.npz > log\n```\n",
        encoding="utf-8",
    )
    first, second, third = (
        *(block.commands() for block in documents.blocks(page)),
        documents.inline_commands(page),
    )
    (train, encode), (piped,), (score, sample) = map(list, (first, second, third))
    assert (encode[2:], piped[2:]) == (["a.txt", "b.npz"], ["-", "out.npz"])
    for words in (encode, piped):
        check(words)
    for words in (train, score, sample):
        with pytest.raises(UsageError):
            check(words)
    with pytest.raises(AssertionError):
        check(["make", "coffee"])


def test_the_commands_in_the_picture_of_a_session_are_valid() -> None:
    content = (ROOT / "docs" / "session.svg").read_text(encoding="utf-8")
    assert "url(" not in content, "the picture needs a file from elsewhere"
    picture = ElementTree.fromstring(content)
    lines = ["".join(text.itertext()).replace("\xa0", " ") for text in picture.iter(f"{SVG}text")]
    shown = "\n".join(lines).replace("\\\n", " ")
    commands = [shlex.split(line[2:]) for line in shown.splitlines() if line.startswith("$ ")]
    assert len(commands) == 3
    for words in commands:
        check(words)


def test_the_verbs_that_are_only_parsed_are_few() -> None:
    """Fails when a verb is listed that nobody mentions, such as one that was renamed."""
    mentioned = {
        found[0]
        for block in BLOCKS
        for words in block.commands()
        if (found := documents.verb_of(words))
    }
    assert mentioned >= {"train", "encode", "unconditional", "evaluate", "plot", "new-model"}


# --- run ---


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a run and the files that the pages take as given."""
    folder = tmp_path_factory.mktemp("docs")
    stories = list(write_stories(400, seed=4))
    text = "\n".join(stories)
    short = text[:6000]
    for file in ("shakespeare.txt", "stories.txt", "text.txt"):
        (folder / file).write_text(text, encoding="utf-8")
    for file in (
        *("held_out.txt", "test.txt", "train.txt", "de.txt", "poem.txt", "chat.txt", "samples.txt"),
        *("texts/a.txt", "books/a.txt", "poems/a.txt", "poems/b.txt", "project/a.py"),
        *("YOUR_TEXT.txt", "mine.txt"),
    ):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(short, encoding="utf-8")
    for file in ("prompts.txt", "questions.txt"):
        (folder / file).write_text("Mila was\nOtto\n", encoding="utf-8")
    (folder / "poems.csv").write_text("title,poem\n" + "a,The fox sleeps here.\n" * 50)
    pairs = [{"question": f"Who is {n}?", "answer": "A fox."} for n in range(60)]
    write_records(folder / "questions.jsonl", pairs)
    write_records(folder / "examples.jsonl", pairs[:2])
    write_records(folder / "samples.jsonl", [{"text": story} for story in stories[:6]])
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    write_records(folder / "chats.jsonl", [{"messages": turns}] * 40)
    for file, records in (
        ("conversations.jsonl.gz", [{"conversation": turns}] * 20),
        ("collection/a.jsonl.gz", [{"text": short}]),
    ):
        (folder / file).parent.mkdir(exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / file).write_bytes(gzip.compress(lines.encode()))
    (folder / "openwebtext").mkdir()
    with tarfile.open(folder / "openwebtext" / "a.tar.xz", "w:xz") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = len(short.encode())
        archive.addfile(member, io.BytesIO(short.encode()))
    (folder / "models").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "new-model 117M --dataset text.txt --n_vocab 400 --n_ctx 64 --n_embd 16 --n_head 2"
            " --n_layer 4 --seed 1",
            "encode shakespeare.txt shakespeare.npz",
            "train --dataset shakespeare.npz --run_name run1 --max_steps 2 --val_split 0.1"
            " --val_every 1 --val_batch_count 1 --sample_every 2 --sample_length 5 --seed 1",
            "evaluate grid --model_name run1 --temperature 0.7,1 --top_k 10,40 --length 5"
            " --nsamples 2 --json grid.json",
        ):
            command, values = documents.parse(*documents.verb_of(["gpt2", *line.split()]))
            documents.run(command, values)
    shutil.copytree(folder / "checkpoint/run1", folder / "checkpoint/run2")
    shutil.copytree(folder / "models/117M", folder / "models/demo")
    shutil.copy(folder / "shakespeare.npz", folder / "run.npz")
    shutil.copytree(ROOT / "examples/projects", folder / "examples/projects")
    (folder / "checkpoint/run1/prepared").touch()
    templates.save(folder / "checkpoint/run1", SavedTemplate("Q: {question}\nA: {answer}", False))
    return folder


def write_records(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def is_run(words: list[str]) -> bool:
    """Return whether a command is run, not only parsed."""
    if words[0] in FILE_COMMANDS:
        return "{" not in words[-2]  # which only some shells expand
    if words[0] == "python" and words[1].startswith(PROJECTS):
        return True
    # The published test sets, several processes, and a report, which takes seconds; all of
    # them have tests of their own.
    left_out = not {"--recipe", "reproduce", "report", "--distribute"}.isdisjoint(words)
    found = documents.verb_of(words)
    return bool(found) and found[0] not in PARSED_ONLY and not left_out


def runs() -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the commands that are run one after the other, and where they are.

    A command of a block on its own is left out if an earlier page has it.
    """
    seen = set()
    for page in PAGES:
        own = [block for block in BLOCKS if block.page == page]
        if name(page).startswith("examples/"):
            continue  # they have tests of their own
        if name(page) in FLOWS:
            yield name(page), [words for block in own for words in block.commands()]
            continue
        for block in own:
            new = [words for words in block.commands() if tuple(words) not in seen]
            seen |= set(map(tuple, new))
            if any(map(is_run, new)):
                # Its trainings and datasets are what the new commands need.
                yield (
                    str(block),
                    [words for words in block.commands() if words in new or is_quick(words)],
                )


def is_quick(words: list[str]) -> bool:
    found = documents.verb_of(words)
    return bool(found) and found[0] in ("encode", "new-model", "train")


RUNS = dict(runs())


@pytest.mark.parametrize(
    "title",
    [pytest.param(title, marks=[pytest.mark.slow] if title in FLOWS else []) for title in RUNS],
)
def test_the_commands_of_a_page_run(
    title: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    if title not in FLOWS:
        monkeypatch.setattr(train, "load_tensorflow", stop_before_training)
    calls = 0  # of train
    for line in filter(is_run, RUNS[title]):
        if line[0] in FILE_COMMANDS:
            documents.run_file_command(line)
            continue
        if line[1].startswith(PROJECTS):
            calls += 1
            documents.run_script(line[1:], calls * documents.STEPS)
            continue
        verb, words = documents.verb_of(line)
        if not (parsed := documents.parse(verb, words)):
            continue
        command, values = parsed
        run_folder = folder / "checkpoint" / getattr(values, "run_name", "run1")
        if verb == "train" and not values.estimate:
            calls += 1
            if (run_folder / "prepared").exists():
                shutil.rmtree(run_folder)
        for path in documents.outputs(values):
            path.unlink()
        documents.shorten(values, calls * documents.STEPS)
        try:
            documents.run(command, values, TYPED)
        except TrainingBeginsError:
            if not run_folder.exists():  # for the commands that follow
                shutil.copytree(prepared / "checkpoint/run1", run_folder)
        except UserError as error:
            raise AssertionError(f"gpt2 {verb} {' '.join(words)}: {error}") from error


class TrainingBeginsError(Exception):
    """Dataset, model and settings have been read and checked."""


def stop_before_training(**_options: object) -> NoReturn:
    raise TrainingBeginsError


# --- Python ---

SNIPPETS = [block for block in BLOCKS if block.language == "python"]


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=name)
def test_the_python_of_a_page_runs(
    snippet: Block, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile(snippet.text, str(snippet), "exec")
    if "serving/1" in snippet.text:
        return  # tests/interop/saved_model_client.py runs it on an exported model
    if "://127.0.0.1" in snippet.text or "://localhost" in snippet.text:
        return  # needs a running server, as the tests of gpt2 serve have it
    for package in imported(snippet.text):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(prepared)
    assert documents.run_snippet(snippet.text, str(snippet))


def imported(code: str) -> set[str]:
    """Return the packages that a snippet imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


# --- figures ---


def test_the_memory_in_choosing_md_is_the_estimate() -> None:
    command = [sys.executable, "benchmarks/choosing.py", "--memory"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert f"<!-- memory -->\n{done.stdout}<!-- /memory -->" in page
