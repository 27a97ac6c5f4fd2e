"""Names of models: which model each one resolves to, and the error for an unknown name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_folder import touch

import gpt2
from gpt2 import workspace
from gpt2.checkpoint.folder import ModelFolder, write_checkpoint_state
from gpt2.checkpoint.resolve import find_folder, find_model, find_run
from gpt2.errors import UserError
from gpt2.generation import loading
from gpt2.tokenizer import train_vocabulary, write_vocabulary


def make(folder: Path, *names: str) -> Path:
    """A folder with these checkpoints, the last one in force."""
    folder.mkdir(parents=True)
    touch(folder, *names)
    write_checkpoint_state(folder, names)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that is the current folder, and a clone beside it that has nothing."""
    place = tmp_path.resolve() / "home"
    clone = tmp_path.resolve() / "clone"
    for folder in (place / "models", place / "checkpoint", clone / "src"):
        folder.mkdir(parents=True)
    make(place / "models" / "124M", "model.ckpt")
    make(place / "checkpoint" / "run1", "model-100", "model-200", "model-1000")
    make(place / "checkpoint" / "run1" / "best", "model-200")
    monkeypatch.setattr(workspace, "CLONE", clone)
    monkeypatch.setattr(workspace, "_SOURCES", clone / "src")
    monkeypatch.chdir(place)
    return place


CURRENT = "checkpoint/run1/model-1000"


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("124M", "models/124M/model.ckpt"),
        ("117M", "models/124M/model.ckpt"),
        ("117M/", "models/124M/model.ckpt"),
        ("117M/model.ckpt", "models/124M/model.ckpt"),
        ("models/124M", "models/124M/model.ckpt"),
        ("models/124M/model.ckpt", "models/124M/model.ckpt"),
        ("models/124M/model.ckpt.index", "models/124M/model.ckpt"),
        ("models\\124M", "models/124M/model.ckpt"),
        ("run1", CURRENT),
        ("run1/", CURRENT),
        ("run1//", CURRENT),
        ("run1\\", CURRENT),
        ("run1/best", "checkpoint/run1/best/model-200"),
        ("run1/best/", "checkpoint/run1/best/model-200"),
        ("run1\\best", "checkpoint/run1/best/model-200"),
        ("run1/model-200", "checkpoint/run1/model-200"),
        ("run1\\model-200", "checkpoint/run1/model-200"),
        ("run1/model-200.index", "checkpoint/run1/model-200"),
        ("run1/model-200.data-00000-of-00001", "checkpoint/run1/model-200"),
        ("checkpoint/run1", CURRENT),
        ("./checkpoint/run1/", CURRENT),
        ("checkpoint/run1/best", "checkpoint/run1/best/model-200"),
        ("checkpoint/run1/best/model-200", "checkpoint/run1/best/model-200"),
        ("checkpoint/run1/model-100", "checkpoint/run1/model-100"),
        ("checkpoint\\run1\\model-100", "checkpoint/run1/model-100"),
        ("../home/checkpoint/run1/model-100.meta", "checkpoint/run1/model-100"),
    ],
)
@pytest.mark.parametrize("form", [str, Path])
def test_each_name_stands_for_its_checkpoint(home: Path, form, name: str, checkpoint: str) -> None:
    said: list[str] = []
    assert find_model(form(name), notice=said.append).checkpoint.resolve() == home / checkpoint
    assert not said
    if not name.startswith("../"):
        absolute = home / name.replace("\\", "/")
        if absolute.parent.exists() and name.startswith(("models", "checkpoint", "./")):
            assert find_model(form(absolute)).checkpoint == home / checkpoint


def test_models_dir_says_where_names_are_looked_up(home: Path, tmp_path: Path) -> None:
    make(tmp_path / "other" / "models" / "124M", "model.ckpt")
    make(tmp_path / "other" / "checkpoint" / "run2", "model-7", "model-8")
    for models_dir in ("../other/models", tmp_path / "other" / "models"):
        for name, checkpoint in (
            ("117M", "models/124M/model.ckpt"),
            ("run2/model-7", "checkpoint/run2/model-7"),
        ):
            found = find_model(name, models_dir).checkpoint
            assert found.resolve() == tmp_path.resolve() / "other" / checkpoint
        with pytest.raises(UserError, match=r"no model 'run1' .*other.*available: 124M, run2\."):
            find_model("run1", models_dir)


@pytest.mark.parametrize("place", ["clone", "clone/src"])
@pytest.mark.parametrize("name", ["355M", "345M", "run3", "run3/model-5"])
def test_models_in_the_clones_sources_are_found_from_its_root_and_from_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    sources = home.parent / "clone" / "src"
    make(sources / "models" / "355M", "model.ckpt")
    make(sources / "checkpoint" / "run3", "model-5")
    (home.parent / "clone" / "models").mkdir()
    monkeypatch.chdir(home.parent / place)
    assert find_model(name).path.is_relative_to(sources)
    path = "models/355M" if place.endswith("src") else "src/models/355M"
    assert find_model(path).checkpoint.resolve() == sources / "models/355M/model.ckpt"


def test_a_model_comes_before_a_run_of_its_name_which_is_said(home: Path) -> None:
    make(home / "models" / "run1", "model.ckpt")
    said: list[str] = []
    assert find_model("run1", notice=said.append).path == home / "models" / "run1"
    (sentence,) = said
    assert str(home / "models" / "run1") in sentence
    assert str(home / "checkpoint" / "run1") in sentence
    assert find_model("checkpoint/run1", notice=said.append).path == Path("checkpoint/run1")
    assert len(said) == 1


def test_a_run_comes_before_a_folder_here_of_its_name(home: Path) -> None:
    make(home / "run1", "model-1")
    make(home / "loose", "model-1")
    assert find_model("run1").path == home / "checkpoint" / "run1"
    assert find_model("./run1").checkpoint == Path("run1/model-1")
    assert find_model("loose").checkpoint == Path("loose/model-1")
    assert find_model("loose/model-1").checkpoint == Path("loose/model-1")


def test_the_current_folder_may_be_the_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "checkpoint" / "run1" / "best")
    assert find_model(".").checkpoint.resolve() == home / "checkpoint/run1/best/model-200"
    assert find_model("..").checkpoint.resolve() == home / CURRENT


# --- names that do not exist ---


@pytest.mark.parametrize("name", ["nobody", "nobody/best", "../x", "con:", "x" * 300, "", "/"])
def test_a_name_without_a_model_lists_those_that_there_are(home: Path, name: str) -> None:
    with pytest.raises(UserError) as raised:
        find_model(name)
    if name != "/":  # which is a folder, without a checkpoint
        assert str(raised.value).startswith("There is no model")
        assert "available: 124M, run1." in str(raised.value)
        assert "src/new_model.py" in str(raised.value)


def test_a_name_that_no_path_can_have_is_refused(home: Path) -> None:
    with pytest.raises(UserError, match=r"model_name must be a name or a path, not 'a\\x00b'"):
        find_model("a\0b")


@pytest.mark.parametrize(("name", "meant"), [("rnu1", "run1"), ("run", "run1"), ("774", "774M")])
def test_a_misspelled_name_is_told_the_one_that_is_meant(home: Path, name: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"no model '{name}' .*did you mean {meant}\?"):
        find_model(name)


def test_a_released_model_that_is_not_there_is_told_how_to_download_it(home: Path) -> None:
    with pytest.raises(UserError, match=r"no model '345M' .*: python download_model\.py 345M\b"):
        find_model("345M")


def test_of_many_names_some_are_listed_and_the_rest_counted(home: Path) -> None:
    for number in range(20):
        (home / "checkpoint" / f"many{number:02}").mkdir()
    with pytest.raises(UserError, match=r"available: 124M, many00, .*many06 and 14 more"):
        find_model("zzz")


def test_where_nothing_is_yet_it_is_said(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is there yet"):
        find_model("mine", tmp_path / "nowhere" / "models")


@pytest.mark.parametrize("name", ["run1/model-999", "checkpoint/run1/model-999", "run1/model-1"])
def test_a_checkpoint_that_does_not_exist_lists_those_of_the_run(home: Path, name: str) -> None:
    with pytest.raises(UserError) as raised:
        find_model(name)
    checkpoint = name.rpartition("/")[2]
    assert f"run1: there is no checkpoint '{checkpoint}'" in str(raised.value)
    assert "available: model-100, model-200, model-1000, best." in str(raised.value)


def test_a_checkpoint_that_lacks_its_data_is_named(home: Path) -> None:
    (home / "checkpoint/run1/model-200.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"model-200\.data-00000-of-00001 is missing"):
        find_model("run1/model-200")
    (home / "checkpoint/run1/model-1000.index").unlink()
    with pytest.raises(UserError, match=r"model-1000\.index is missing"):
        find_model("run1")


def test_a_folder_without_checkpoints_is_one_sentence(home: Path) -> None:
    (home / "models" / "empty").mkdir()
    for name in ("empty", "models/empty", "empty/model-5"):
        with pytest.raises(UserError, match="empty"):
            find_model(name)


def test_a_file_is_no_model(home: Path) -> None:
    (home / "models" / "355M").write_text("not a folder")
    with pytest.raises(UserError, match="There is no model '355M'"):
        find_model("355M")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_hostile_name_is_escaped_in_the_message(home: Path) -> None:
    (home / "checkpoint" / "\x1b[2J").mkdir()
    with pytest.raises(UserError) as raised:
        find_model("a\x1b]0;b\x07")
    assert str(raised.value).isprintable()


# --- vocabularies, runs, gpt2.load ---


def test_a_vocabulary_needs_no_checkpoint(home: Path) -> None:
    folder = home / "models" / "words"
    folder.mkdir()
    write_vocabulary(folder, *train_vocabulary(["so many words " * 9], 265))
    words = find_folder("words").tokenizer()
    assert words.decode(find_folder("words/").tokenizer().encode("so")) == "so"
    with pytest.raises(UserError, match=r"encoder\.json is missing"):
        find_folder("run1").tokenizer()
    with pytest.raises(UserError, match="There is no model 'nobody'"):
        find_folder("nobody")


def test_a_run_is_found_by_name_and_by_path(home: Path) -> None:
    run = home / "checkpoint" / "run1"
    make(home / "models" / "run1", "model.ckpt")
    for name in ("run1", "run1/", Path("run1"), "checkpoint/run1", "checkpoint\\run1", run):
        assert find_run(name).resolve() == run
    assert find_run("run1", home / "models") == run


@pytest.mark.parametrize("name", ["", "..x", "run", "124M", "a/b", "x" * 300])
def test_a_run_that_does_not_exist_lists_those_that_there_are(home: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"There is no run .*available: run1\."):
        find_run(name)


def test_load_finds_models_in_the_same_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple] = []
    monkeypatch.setattr(loading, "open_model", lambda *arguments, **_: opened.append(arguments))
    gpt2.load("run1/model-200")
    gpt2.load(Path("117M"), "litert", quantize="int8", models_dir=home / "models")
    (first, *_), (second, *options) = opened
    assert isinstance(first, ModelFolder)
    assert first.checkpoint == home / "checkpoint/run1/model-200"
    assert second.path == home / "models" / "124M"
    assert options == ["litert", "int8"]
    with pytest.raises(UserError, match="There is no model 'nobody'"):
        gpt2.load("nobody")
