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
    monkeypatch.setattr(workspace, "CLONE", found["toolkit"])
    monkeypatch.setattr(workspace, "_SOURCES", found["sources"])
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
    assert found.model_folder_or_none(name) == places[place] / folder


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
    for models_dir in ("../toolkit/elsewhere/mine", str(elsewhere), elsewhere):
        found = Workspace.find(models_dir, "124M")
        assert found.model_folder_or_none("117M") == elsewhere / "124M"
        assert found.run_folder("run1") == places["toolkit"] / "elsewhere" / "checkpoint" / "run1"


@pytest.mark.parametrize("models_dir", ["models", "./models", "other/models", Path("models")])
def test_an_explicit_relative_models_dir_is_relative_to_the_current_folder(
    places: dict[str, Path], models_dir: str | Path
) -> None:
    for place in ("toolkit", "sources"):
        (places[place] / "models" / "124M").mkdir(parents=True)
        (places[place] / "other" / "models" / "124M").mkdir(parents=True)
    found = Workspace.find(models_dir, "124M")
    assert found.models == places["here"] / models_dir
    assert found.new_model_folder("124M") == places["here"] / models_dir / "124M"
    assert found.model_folder_or_none("124M") is None
    assert found.root == found.models.parent == found.checkpoint.parent == found.samples.parent


def test_dots_in_models_dir_do_not_lead_astray(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (places["here"] / "deep").mkdir()
    monkeypatch.chdir(places["here"] / "deep")
    assert Workspace.find("..").root == places["here"].parent
    assert Workspace.find(".").root == places["here"]


@pytest.mark.parametrize("folder", ["models/124M", "checkpoint/run1"])
def test_installed_in_site_packages_the_workspace_is_the_current_folder(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(workspace, "CLONE", None)
    for place in ("toolkit", "sources"):
        (places[place] / "models").mkdir()
        (places[place] / folder).mkdir(parents=True)
    assert Workspace.find().root == places["here"]
    assert Workspace.find(model_name=folder.split("/")[1]).root == places["here"]


def test_messages_call_the_scripts_of_a_clone_and_the_command_of_a_package(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace.command_line("download") == "python download_model.py"
    assert workspace.command_line("new-model") == "python src/new_model.py"
    assert workspace.command_line("interactive") == "python src/interactive_conditional_samples.py"
    monkeypatch.setattr(workspace, "CLONE", None)
    assert workspace.command_line("new-model") == "gpt2 new-model"


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
        assert found.model_folder_or_none(other) == models / existing
        assert found.model_folder_or_none(existing) == models / existing
        (models / existing).rmdir()
    for name in (early, present):
        (models / name).mkdir()
    assert Workspace.find().model_folder_or_none(early) == models / early
    assert Workspace.find().model_folder_or_none(present) == models / present


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
        with pytest.raises(UserError, match=f"not a valid name for a {kind}. Use letters"):
            make(name)


@pytest.mark.parametrize("name", ["run1", "my-run_2.5", "117M", ".hidden", "Ärger", "two words"])
def test_ordinary_names_are_taken(name: str) -> None:
    found = Workspace(Path("models"))
    assert found.run_folder(name) == Path("checkpoint") / name
    assert found.new_model_folder(name) == Path("models") / name
