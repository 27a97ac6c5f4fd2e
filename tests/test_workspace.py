"""Names lead to the folders they should, and never out of the workspace when something is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2 import workspace
from gpt2.errors import UserError
from gpt2.workspace import Workspace


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A toolkit with its `src/` and a folder somewhere else, which is the current one."""
    toolkit = tmp_path.resolve() / "toolkit"
    found = {
        "toolkit": toolkit,
        "sources": toolkit / "src",
        "here": tmp_path.resolve() / "here",
    }
    for place in found.values():
        place.mkdir()
    monkeypatch.setattr(workspace, "TOOLKIT", found["toolkit"])
    monkeypatch.setattr(workspace, "SOURCES", found["sources"])
    monkeypatch.chdir(found["here"])
    return found


@pytest.mark.parametrize("place", ["here", "toolkit", "sources"])
def test_the_folder_that_holds_models_is_the_workspace(places: dict[str, Path], place: str) -> None:
    (places[place] / "models").mkdir()
    found = Workspace.find()
    assert found.models == places[place] / "models"
    assert found.run_folder("run1") == places[place] / "checkpoint" / "run1"
    assert found.samples_folder("run1") == places[place] / "samples" / "run1"
    assert found.new_model_folder("mine") == places[place] / "models" / "mine"


def test_the_current_folder_comes_first_and_the_sources_last(places: dict[str, Path]) -> None:
    for place in ("sources", "toolkit", "here"):
        (places[place] / "models").mkdir()
        assert Workspace.find().root == places[place]


@pytest.mark.parametrize("place", ["here", "toolkit", "sources"])
@pytest.mark.parametrize("folder", ["models/124M", "checkpoint/run1"])
def test_the_workspace_that_has_the_model_is_preferred(
    places: dict[str, Path], place: str, folder: str
) -> None:
    for other in places.values():
        (other / "models").mkdir()
    (places[place] / folder).mkdir(parents=True)
    name = folder.split("/")[1]
    found = Workspace.find(model_name=name)
    assert found.root == places[place]
    assert found.model_folder(name) == places[place] / folder


def test_in_the_sources_the_models_beside_them_are_found(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (places["toolkit"] / "models" / "124M").mkdir(parents=True)
    monkeypatch.chdir(places["sources"])
    assert Workspace.find(model_name="124M").root == places["toolkit"]


def test_without_any_models_the_current_folder_becomes_the_workspace(
    places: dict[str, Path],
) -> None:
    assert Workspace.find().root == places["here"]
    assert Workspace.find(model_name="124M").root == places["here"]


def test_models_dir_may_have_another_name_and_lie_anywhere(places: dict[str, Path]) -> None:
    elsewhere = places["toolkit"] / "elsewhere" / "mine"
    (elsewhere / "124M").mkdir(parents=True)
    for models_dir in ("elsewhere/mine", "../toolkit/elsewhere/mine", str(elsewhere)):
        found = Workspace.find(models_dir, "124M")
        assert found.model_folder("117M") == elsewhere / "124M"
        assert found.run_folder("run1") == places["toolkit"] / "elsewhere" / "checkpoint" / "run1"


@pytest.mark.parametrize(
    ("early", "present"),
    [("117M", "124M"), ("345M", "355M"), ("762M", "774M"), ("1542M", "1558M")],
)
def test_both_names_of_a_size_mean_the_folder_that_exists(
    places: dict[str, Path], early: str, present: str
) -> None:
    models = places["here"] / "models"
    for existing, other in ((early, present), (present, early)):
        (models / existing).mkdir(parents=True)
        found = Workspace.find(model_name=other)
        assert found.model_folder(other) == models / existing
        assert found.model_folder(existing) == models / existing
        (models / existing).rmdir()
    for name in (early, present):
        (models / name).mkdir()
    assert Workspace.find().model_folder(early) == models / early
    assert Workspace.find().model_folder(present) == models / present


def test_a_model_comes_before_a_run_and_a_run_before_a_path(places: dict[str, Path]) -> None:
    here = places["here"]
    found = Workspace.find()
    for folder in ("both", "checkpoint/both", "models/both"):
        (here / folder).mkdir(parents=True)
        assert found.model_folder("both").resolve() == here / folder
        hidden = here / "checkpoint/both" if folder == "models/both" else None
        assert found.run_behind_model("both") == hidden
    assert found.run_behind_model(str(here / "both")) is None


@pytest.mark.parametrize("form", ["relative", "dotted", "absolute"])
def test_a_path_is_a_model(places: dict[str, Path], form: str) -> None:
    folder = places["toolkit"] / "some" / "folder"
    folder.mkdir(parents=True)
    path = {
        "relative": "../toolkit/some/folder",
        "dotted": "./../toolkit/some/folder/",
        "absolute": str(folder),
    }[form]
    assert Workspace.find(model_name=path).model_folder(path).resolve() == folder


def test_a_model_that_is_not_there_is_told_with_what_to_do(places: dict[str, Path]) -> None:
    (places["here"] / "models").mkdir()
    found = Workspace.find()
    with pytest.raises(UserError, match=r"no model '345M' .*: python download_model\.py 345M"):
        found.model_folder("345M")
    with pytest.raises(UserError, match=r"no model 'mine' in .*models or .*checkpoint; .*path.*"):
        found.model_folder("mine")


@pytest.mark.parametrize("name", ["", "missing/model", "../x", "con:", "x" * 300])
def test_a_name_that_leads_to_no_folder_is_no_model(places: dict[str, Path], name: str) -> None:
    with pytest.raises(UserError, match="There is no model"):
        Workspace.find(model_name=name).model_folder(name)


def test_a_file_is_no_model(places: dict[str, Path]) -> None:
    (places["here"] / "models").mkdir()
    (places["here"] / "models" / "124M").write_text("not a folder")
    with pytest.raises(UserError, match="There is no model '124M'"):
        Workspace.find().model_folder("124M")


BAD_NAMES = [
    "",
    " ",
    ".",
    "..",
    "../x",
    "a/b",
    "/tmp",
    "a\\b",
    "..\\x",
    "con:",
    "C:x",
    "a*",
    "what?",
    'quo"te',
    "<a>",
    "pipe|",
    "line\nend",
    "zero\0",
    " leading",
    "trailing ",
    "dot.",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_elsewhere_are_refused_for_what_is_made(name: str) -> None:
    found = Workspace(Path("models"))
    for make, kind in (
        (found.new_model_folder, "model"),
        (found.run_folder, "run"),
        (found.samples_folder, "run"),
    ):
        with pytest.raises(UserError, match=f"cannot name a {kind}; use letters"):
            make(name)


@pytest.mark.parametrize("name", ["run1", "my-run_2.5", "117M", ".hidden", "Ärger", "two words"])
def test_ordinary_names_are_taken(name: str) -> None:
    found = Workspace(Path("models"))
    assert found.run_folder(name) == Path("checkpoint") / name
    assert found.new_model_folder(name) == Path("models") / name
