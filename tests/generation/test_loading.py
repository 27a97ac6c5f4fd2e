"""A model is opened by the engine that fits; what is converted for it is kept, and never torn."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import CHECKPOINT
from gpt2.errors import UserError
from gpt2.generation import litert_conversion, loading
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.litert_engine import LiteRTEngine
from gpt2.generation.loading import Converting, open_model
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from tests.generation.model_folders import HPARAMS, small_weights, write_small_model

TOKENS = [5, 200, 269, 7]
SOURCES = Path(loading.__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def converted_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that has been converted; to be copied, not changed."""
    folder = write_small_model(tmp_path_factory.mktemp("models") / "small")
    open_model(ModelFolder(folder), engine="litert")
    return folder


@pytest.fixture
def folder(converted_model: Path, tmp_path: Path) -> Path:
    """A model of a test's own, converted."""
    return Path(shutil.copytree(converted_model, tmp_path / "small"))


@pytest.fixture
def fresh_folder(tmp_path: Path) -> Path:
    """A model of a test's own that was never converted."""
    return write_small_model(tmp_path / "small")


def programs(folder: Path) -> list[str]:
    """What lies beside a model's checkpoint that has to do with LiteRT."""
    return sorted(path.name for path in folder.glob("*litert*"))


def opened(folder: Path, **options) -> tuple[LanguageModel, list[Converting]]:
    events: list[Converting] = []
    return open_model(
        ModelFolder(folder), progress=events.append, **{"engine": "litert", **options}
    ), events


def check(language_model: LanguageModel, seed: int = 7) -> None:
    """Its scores are those of the weights of this seed."""
    tokens = tf.constant([TOKENS], tf.int32)
    expected = model.logits(small_weights(seed), HPARAMS, tokens)[0, -1].numpy()
    np.testing.assert_allclose(language_model.logits(TOKENS), expected, atol=1e-4)


@pytest.mark.parametrize("engine", ["tensorflow", "litert", "auto"])
def test_an_opened_model_is_that_of_its_folder(folder: Path, engine: str) -> None:
    language_model = open_model(ModelFolder(folder), engine=engine)
    assert language_model.hparams == HPARAMS
    assert language_model.tokenizer.vocabulary == ModelFolder(folder).tokenizer().vocabulary
    check(language_model)


def test_a_model_is_converted_once(fresh_folder: Path) -> None:
    language_model, events = opened(fresh_folder)
    check(language_model)
    (name,) = programs(fresh_folder)
    # Two layers make first, between and last; 270 tokens make six parts of 45.
    assert [(event.done, event.of) for event in events] == [(done, 9) for done in range(10)]
    assert {event.folder for event in events} == {fresh_folder / name}
    before = {path: path.stat().st_mtime_ns for path in (fresh_folder / name).iterdir()}
    assert len(before) == 9 + 3
    language_model, events = opened(fresh_folder)
    check(language_model)
    assert events == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_folder_is_named_by_the_weights(folder: Path, tmp_path: Path) -> None:
    (name,) = programs(folder)
    assert litert_conversion.folder_name(folder / CHECKPOINT, "none") == name
    assert litert_conversion.folder_name(folder / CHECKPOINT, "int8") != name
    same = write_small_model(tmp_path / "same")
    assert litert_conversion.folder_name(same / CHECKPOINT, "none") == name
    weights = small_weights(7)
    weights["model/h1/ln_1/b"][3] += 1
    bundle.write_bundle(same / CHECKPOINT, weights)
    assert litert_conversion.folder_name(same / CHECKPOINT, "none") != name


def test_another_checkpoint_is_converted_anew_and_the_old_programs_go(folder: Path) -> None:
    (old,) = programs(folder)
    opened(folder, quantize="int8")
    (int8,) = set(programs(folder)) - {old}
    bundle.write_bundle(folder / CHECKPOINT, small_weights(8))
    language_model, events = opened(folder)
    assert events
    check(language_model, seed=8)
    (new,) = set(programs(folder)) - {int8}
    assert new != old
    # int8 programs are of a kind of their own: they go when they in turn are made anew.
    opened(folder, quantize="int8")
    assert new in programs(folder)
    assert int8 not in programs(folder)
    assert len(programs(folder)) == 2


NAMES = [
    litert_conversion.FIRST,
    litert_conversion.between(1),
    litert_conversion.LAST,
    litert_conversion.head(0),
    litert_conversion.head(5),
    litert_conversion.TOKENS,
    litert_conversion.POSITIONS,
    litert_conversion.SIZES,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", ["missing", "cut off", "too long", "empty"])
def test_a_torn_conversion_is_known(folder: Path, name: str, fault: str) -> None:
    (programs_folder,) = (folder / name for name in programs(folder))
    assert litert_conversion.is_whole(programs_folder)
    path = programs_folder / name
    content = path.read_bytes()
    path.write_bytes(
        {"cut off": content[:-1], "too long": content + b"x", "empty": b""}.get(fault, content)
    )
    if fault == "missing":
        path.unlink()
    assert not litert_conversion.is_whole(programs_folder)


@pytest.mark.parametrize("sizes", ["[]", "{}", "null", "7", '"a"', '{"version": "1"}', "\xff"])
def test_a_broken_list_of_sizes_is_a_torn_conversion(folder: Path, sizes: str) -> None:
    (name,) = programs(folder)
    (folder / name / litert_conversion.SIZES).write_text(sizes, encoding="latin-1")
    assert not litert_conversion.is_whole(folder / name)


@pytest.mark.parametrize("name", [litert_conversion.head(1), litert_conversion.SIZES])
def test_a_torn_conversion_is_made_anew(folder: Path, name: str) -> None:
    (programs_folder,) = (folder / name for name in programs(folder))
    (programs_folder / name).unlink()
    language_model, events = opened(folder)
    assert events
    check(language_model)
    assert litert_conversion.is_whole(programs_folder)
    assert programs(folder) == [programs_folder.name]


def test_programs_of_another_version_are_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = programs(folder)
    monkeypatch.setattr(litert_conversion, "VERSION", litert_conversion.VERSION + 1)
    assert not litert_conversion.is_whole(folder / name)
    language_model, events = opened(folder)
    assert events
    check(language_model)
    assert opened(folder)[1] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_conversion_that_was_killed_leaves_nothing_that_is_used(fresh_folder: Path) -> None:
    script = Path(__file__).with_name("killed_conversion.py")
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "TF_CPP_MIN_LOG_LEVEL": "3"}
    killed = subprocess.run(
        [sys.executable, script, fresh_folder], env=environment, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    leftovers = programs(fresh_folder)
    assert leftovers  # it was killed in the middle
    assert litert_conversion.folder_name(fresh_folder / CHECKPOINT, "none") not in leftovers
    assert not any(litert_conversion.is_whole(fresh_folder / name) for name in leftovers)
    language_model, events = opened(fresh_folder)
    assert events
    check(language_model)
    assert programs(fresh_folder) == [
        litert_conversion.folder_name(fresh_folder / CHECKPOINT, "none")
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_conversion_that_fails_leaves_nothing(
    fresh_folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def progress(event: Converting) -> None:
        if event.done == 3:
            raise error

    before = sorted(fresh_folder.iterdir())
    with pytest.raises(error):
        open_model(ModelFolder(fresh_folder), engine="litert", progress=progress)
    assert sorted(fresh_folder.iterdir()) == before


def test_a_folder_that_cannot_be_written_is_left_alone(
    fresh_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_small_model(tmp_path / "other", seed=8)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted(fresh_folder.iterdir())
    language_model, events = opened(fresh_folder)
    assert sorted(fresh_folder.iterdir()) == before
    place = events[0].folder
    assert fresh_folder not in place.parents
    check(language_model)
    # A second model in the same process takes nothing away from the first.
    second, _ = opened(other)
    check(second, seed=8)
    check(language_model)
    assert litert_conversion.is_whole(place)


def test_a_file_in_the_way_does_not_keep_a_model_from_being_opened(fresh_folder: Path) -> None:
    name = litert_conversion.folder_name(fresh_folder / CHECKPOINT, "none")
    (fresh_folder / name).write_text("mine", encoding="utf-8")
    language_model, events = opened(fresh_folder)
    check(language_model)
    assert (fresh_folder / name).read_text(encoding="utf-8") == "mine"
    assert events[-1].folder.parent != fresh_folder


def test_what_another_process_has_converted_meanwhile_is_taken(
    fresh_folder: Path, converted_model: Path
) -> None:
    (name,) = programs(converted_model)

    def progress(event: Converting) -> None:
        if event.done == 2:
            shutil.copytree(converted_model / name, fresh_folder / name)

    language_model = open_model(ModelFolder(fresh_folder), engine="litert", progress=progress)
    check(language_model)
    assert programs(fresh_folder) == [name]


def test_a_checkpoint_that_is_not_whole_is_not_converted(fresh_folder: Path) -> None:
    data = bundle.data_files(fresh_folder / CHECKPOINT)[0]
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(UserError):
        opened(fresh_folder)
    assert programs(fresh_folder) == []


# Which engine.


def engine_of(folder: Path, **options) -> type:
    return type(open_model(ModelFolder(folder), **options).engine)


def test_auto_does_not_make_a_small_model_wait(fresh_folder: Path) -> None:
    assert HPARAMS.parameters < loading.SMALL
    assert engine_of(fresh_folder) is TensorFlowEngine
    assert programs(fresh_folder) == []


def test_auto_takes_litert_where_it_is_faster(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_of(folder, quantize="int8") is LiteRTEngine
    monkeypatch.setattr(loading, "SMALL", HPARAMS.parameters)
    if not tf.config.list_physical_devices("GPU"):
        assert engine_of(folder) is LiteRTEngine
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert engine_of(folder) is TensorFlowEngine


def test_auto_does_without_litert_where_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SMALL", 0)
    monkeypatch.delattr(tf.lite, "Interpreter")
    assert engine_of(folder) is TensorFlowEngine


@pytest.mark.parametrize(
    ("engine", "quantize", "sentence"),
    [
        ("pytorch", "none", "engine .*auto, tensorflow, litert.*'pytorch'"),
        ("litert", "int4", "quantize .*none, int8.*'int4'"),
        ("tensorflow", "int8", "tensorflow .*int8.* litert"),
    ],
)
def test_engines_that_do_not_exist_are_refused(
    folder: Path, engine: str, quantize: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        open_model(ModelFolder(folder), engine=engine, quantize=quantize)
