"""A model is opened by the engine that fits; what is converted for it is kept, and never torn."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import files, model
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import CHECKPOINT
from gpt2.errors import UserError
from gpt2.generation import conversion_cache, litert_conversion, loading
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.litert_engine import LiteRTEngine
from gpt2.generation.loading import Converting, open_model
from gpt2.generation.numpy_engine import NumPyEngine
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from tests.generation.model_folders import HPARAMS, small_weights, write_small_model
from tests.support import waiting

pytestmark = pytest.mark.slow

TOKENS = [5, 200, 269, 7]
SOURCES = Path(loading.__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def converted_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, `small`, and the cache of its conversion; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("converted")
    write_small_model(folder / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2_CACHE_DIR", str(folder / "cache"))
        open_model(ModelFolder(folder / "small"), engine="litert")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a test's own, empty at first."""
    monkeypatch.setenv("GPT2_CACHE_DIR", str(tmp_path / "cache"))
    conversion_cache._temporary_folder.cache_clear()
    return tmp_path / "cache" / "litert"


@pytest.fixture
def folder(converted_model: Path, tmp_path: Path, cache: Path) -> Path:
    """A model of a test's own, converted."""
    shutil.copytree(converted_model, tmp_path, dirs_exist_ok=True)  # which keeps the times
    return tmp_path / "small"


@pytest.fixture
def fresh_folder(tmp_path: Path) -> Path:
    """A model of a test's own that was never converted."""
    return write_small_model(tmp_path / "small")


def entries(cache: Path) -> list[str]:
    """The converted models in a cache."""
    return sorted(path.name for path in cache.glob("*") if path.name != conversion_cache.LOCK)


def entry_of(folder: Path, cache: Path, quantize: str = "none") -> Path:
    """Where the conversion of a model is cached."""
    return cache / litert_conversion.cache_key(folder / CHECKPOINT, quantize)


def is_intact(entry: Path) -> bool:
    return conversion_cache.is_intact(entry, litert_conversion.program_files(HPARAMS))


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


def test_a_model_is_converted_once(fresh_folder: Path, cache: Path) -> None:
    files_before = sorted(fresh_folder.iterdir())
    language_model, events = opened(fresh_folder)
    check(language_model)
    entry = entry_of(fresh_folder, cache)
    assert entries(cache) == [entry.name]
    assert sorted(fresh_folder.iterdir()) == files_before
    # Two layers make first, between and last; 270 tokens make six parts of 45.
    assert [(event.done, event.of) for event in events] == [(done, 9) for done in range(10)]
    assert {event.folder for event in events} == {entry}
    written = litert_conversion.program_files(HPARAMS)
    assert {path.name for path in entry.iterdir()} == {*written, conversion_cache.MANIFEST}
    before = {name: (entry / name).stat().st_mtime_ns for name in written}
    language_model, events = opened(fresh_folder)
    check(language_model)
    assert events == []
    assert {name: (entry / name).stat().st_mtime_ns for name in written} == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_only_the_user_can_read_and_write_the_cache(fresh_folder: Path, cache: Path) -> None:
    cache.mkdir(mode=0o777, parents=True)
    cache.chmod(0o777)
    assert opened(fresh_folder)[1]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_an_entry_is_named_by_the_weights_and_the_quantization(
    fresh_folder: Path, cache: Path, tmp_path: Path
) -> None:
    entry = entry_of(fresh_folder, cache)
    assert entry_of(fresh_folder, cache, "int8") != entry
    same = write_small_model(tmp_path / "same")
    assert entry_of(same, cache) == entry
    weights = small_weights(7)
    weights["model/h1/ln_1/b"][3] += 1
    bundle.write_bundle(same / CHECKPOINT, weights)
    assert entry_of(same, cache) != entry


def test_models_share_the_cache_and_another_checkpoint_is_converted_again(
    folder: Path, cache: Path
) -> None:
    (old,) = entries(cache)
    opened(folder, quantize="int8")
    assert len(entries(cache)) == 2
    bundle.write_bundle(folder / CHECKPOINT, small_weights(8))
    language_model, events = opened(folder)
    assert events
    check(language_model, seed=8)
    assert len(entries(cache)) == 3
    assert old in entries(cache)


NAMES = [
    litert_conversion.FIRST,
    litert_conversion.between(1),
    litert_conversion.LAST,
    litert_conversion.head(0),
    litert_conversion.head(5),
    litert_conversion.TOKENS,
    litert_conversion.POSITIONS,
    conversion_cache.MANIFEST,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "fault", ["missing", "truncated", "too long", "empty", "flipped", "folder"]
)
def test_a_damaged_entry_is_recognized(folder: Path, cache: Path, name: str, fault: str) -> None:
    entry = entry_of(folder, cache)
    assert is_intact(entry)
    path = entry / name
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]
    path.unlink()
    if fault == "folder":
        path.mkdir()
    elif fault != "missing":
        faulty = {"truncated": content[:-1], "too long": content + b"x", "empty": b""}
        path.write_bytes(faulty.get(fault, flipped))
    assert not is_intact(entry)


def test_flipped_bytes_are_found_in_large_files_too(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is hashed only if its times differ, or those of another version checked it."""
    monkeypatch.setattr(conversion_cache, "SMALL", 0)
    entry = entry_of(folder, cache)
    path = entry / litert_conversion.LAST
    content, status = bytearray(path.read_bytes()), path.stat()
    path.write_bytes(content)  # the same content at another time
    assert is_intact(entry)
    assert (
        json.loads((entry / conversion_cache.MANIFEST).read_text())["files"][path.name]["mtime_ns"]
        == path.stat().st_mtime_ns
    )
    content[len(content) // 2] ^= 1
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, times[1] + 1))
    assert not is_intact(entry)
    os.utime(path, ns=times)
    assert is_intact(entry)  # which nothing but a hash could tell
    monkeypatch.setattr(conversion_cache, "__version__", "another")
    assert not is_intact(entry)


def test_the_hashes_are_those_of_the_files(folder: Path, cache: Path) -> None:
    entry = entry_of(folder, cache)
    manifest = json.loads((entry / conversion_cache.MANIFEST).read_text())["files"]
    assert manifest.keys() == litert_conversion.program_files(HPARAMS)
    for name, described in manifest.items():
        assert hashlib.sha256((entry / name).read_bytes()).hexdigest() == described["sha256"]


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", "null", "7", '"a"', '{"files": 1}', '{"files": {"a": 1}}', "\xff"]
)
def test_a_broken_manifest_is_a_damaged_entry(folder: Path, cache: Path, manifest: str) -> None:
    entry = entry_of(folder, cache)
    (entry / conversion_cache.MANIFEST).write_text(manifest, encoding="latin-1")
    assert not is_intact(entry)


@pytest.mark.parametrize("name", [litert_conversion.head(1), conversion_cache.MANIFEST])
def test_a_damaged_entry_is_converted_again(folder: Path, cache: Path, name: str) -> None:
    entry = entry_of(folder, cache)
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 3] ^= 0xFF
    (entry / name).write_bytes(content)
    language_model, events = opened(folder)
    assert events
    check(language_model)
    assert is_intact(entry)
    assert entries(cache) == [entry.name]


def test_programs_of_another_version_are_converted_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert_conversion, "VERSION", litert_conversion.VERSION + 1)
    language_model, events = opened(folder)
    assert events
    check(language_model)
    assert opened(folder)[1] == []


def test_programs_that_came_with_a_model_are_never_loaded(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    """Neither in the form of this version, with a manifest that fits, nor in that of before."""
    foreign = write_small_model(tmp_path / "foreign", seed=8)
    entry = entry_of(folder, cache)
    name = hashlib.sha256((foreign / f"{CHECKPOINT}.index").read_bytes()).hexdigest()
    for place in (f"litert-none-{name[:16]}", entry_of(foreign, cache).name, "litert"):
        shutil.copytree(entry, foreign / place)
        sizes = {path.name: path.stat().st_size for path in entry.iterdir()}
        (foreign / place / "sizes.json").write_text(json.dumps({"version": 1, **sizes}))
    language_model, events = opened(foreign)
    assert events
    check(language_model, seed=8)


def test_sizes_of_another_model_are_refused_though_it_is_converted(folder: Path) -> None:
    dataclasses.replace(HPARAMS, n_layer=1).save(folder / "hparams.json")
    with pytest.raises(UserError, match="hparams"):
        opened(folder)


@pytest.mark.parametrize(("entries_kept", "bytes_kept"), [(3, 10**9), (10, None)])
def test_the_least_recently_used_entries_are_removed(
    folder: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    entries_kept: int,
    bytes_kept: int | None,
) -> None:
    old = entry_of(folder, cache)
    size = sum(path.stat().st_size for path in old.iterdir())
    monkeypatch.setattr(conversion_cache, "MOST_ENTRIES", entries_kept)
    monkeypatch.setattr(conversion_cache, "MOST_BYTES", bytes_kept or int(3.5 * size))
    for age, name in enumerate(("b", "c", "a")):
        shutil.copytree(old, cache / name)
        os.utime(cache / name / conversion_cache.MANIFEST, (1000 - age, 1000 - age))
    assert opened(folder)[1] == []  # which makes it the most recently used
    bundle.write_bundle(folder / CHECKPOINT, small_weights(8))
    opened(folder)
    new = entry_of(folder, cache)
    assert entries(cache) == sorted(["b", old.name, new.name])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_conversion_that_was_killed_leaves_nothing_that_is_used(
    fresh_folder: Path, cache: Path
) -> None:
    killed = waiting.wait_for(run_converting(fresh_folder, "kill"))
    assert killed == -signal.SIGKILL
    entry = entry_of(fresh_folder, cache)
    leftovers = entries(cache)
    assert leftovers  # it was killed in the middle
    assert entry.name not in leftovers
    assert not any(is_intact(cache / name) for name in leftovers)
    language_model, events = opened(fresh_folder)
    assert events
    check(language_model)
    assert entries(cache) == [entry.name]


def run_converting(folder: Path, *words: str) -> subprocess.Popen:
    """Open a model in another process; see `killed_conversion`."""
    script = Path(__file__).with_name("killed_conversion.py")
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, script, folder, *words], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_convert_a_model_once(fresh_folder: Path, cache: Path) -> None:
    processes = [run_converting(fresh_folder) for _ in range(2)]
    outputs = [waiting.communicate(process)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    # Each printed how often it was told of progress, and some logits.
    assert sorted(int(output[0]) for output in outputs) == [0, 5]  # four programs
    assert outputs[0][1:] == outputs[1][1:]
    assert entries(cache) == [entry_of(fresh_folder, cache).name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_conversion_that_fails_leaves_nothing(
    fresh_folder: Path, cache: Path, error: type[BaseException]
) -> None:
    def progress(event: Converting) -> None:
        if event.done == 3:
            raise error

    before = sorted(fresh_folder.iterdir())
    with pytest.raises(error):
        open_model(ModelFolder(fresh_folder), engine="litert", progress=progress)
    assert sorted(fresh_folder.iterdir()) == before
    assert entries(cache) == []
    check(opened(fresh_folder)[0])  # the lock is free again


def test_a_folder_that_cannot_be_written_is_left_alone(fresh_folder: Path, cache: Path) -> None:
    before = sorted(fresh_folder.iterdir())
    fresh_folder.chmod(0o500)
    try:
        check(opened(fresh_folder)[0])
    finally:
        fresh_folder.chmod(0o700)
    assert sorted(fresh_folder.iterdir()) == before
    assert entries(cache)


@pytest.mark.parametrize("fault", ["no home", "a file in the way", "not writable", "not ours"])
def test_without_a_cache_programs_are_kept_for_this_process_only(
    fresh_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "no home":
        monkeypatch.delenv("GPT2_CACHE_DIR")
        monkeypatch.setattr(conversion_cache.Path, "home", _raise(RuntimeError("no home")))
    elif fault == "a file in the way":
        (tmp_path / "cache").write_text("mine")
    elif fault == "not writable":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345, raising=False)
    language_model, events = opened(fresh_folder)
    place = events[0].folder
    assert tmp_path not in place.parents
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700 or os.name == "nt"
    check(language_model)
    # A second model in the same process takes nothing away from the first.
    second, _ = opened(write_small_model(tmp_path / "other", seed=8))
    check(second, seed=8)
    check(language_model)
    assert is_intact(place)
    assert opened(fresh_folder)[1] == []


def _raise(error: Exception) -> Callable[..., NoReturn]:
    def function(*_: object) -> NoReturn:
        raise error

    return function


def test_a_full_disk_does_not_keep_a_model_from_being_opened(
    fresh_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_folder = files.atomic_folder

    def full(path: Path) -> AbstractContextManager[Path]:
        if cache in path.parents:
            raise UserError("disk full")
        return atomic_folder(path)

    monkeypatch.setattr(conversion_cache.files, "atomic_folder", full)
    language_model, events = opened(fresh_folder)
    check(language_model)
    assert cache not in events[-1].folder.parents


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/retrain-gpt2"),
        ("linux", {"XDG_CACHE_HOME": "x"}, "/home/me/.cache/retrain-gpt2"),
        ("linux", {}, "/home/me/.cache/retrain-gpt2"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/retrain-gpt2"),
        ("linux", {"GPT2_CACHE_DIR": "/c"}, "/c"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="other paths")
def test_the_cache_is_where_the_system_has_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("GPT2_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(conversion_cache.sys, "platform", platform)
    assert conversion_cache.cache_folder() == Path(expected)


def test_a_checkpoint_that_is_not_whole_is_not_converted(fresh_folder: Path, cache: Path) -> None:
    data = bundle.data_files(fresh_folder / CHECKPOINT)[0]
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(UserError):
        opened(fresh_folder)
    assert entries(cache) == []


# Which engine.


def engine_of(folder: Path, **options) -> type:
    return type(open_model(ModelFolder(folder), **options).engine)


def test_auto_runs_a_small_model_in_numpy_without_a_conversion(
    fresh_folder: Path, cache: Path
) -> None:
    assert HPARAMS.parameters < loading.SMALL
    assert engine_of(fresh_folder) is NumPyEngine
    assert entries(cache) == []


def test_auto_runs_a_large_model_in_litert(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_of(folder, quantize="int8") is LiteRTEngine
    monkeypatch.setattr(loading, "SMALL", 0)
    monkeypatch.setattr(loading, "_may_have_gpu", lambda: False)
    assert engine_of(folder) is LiteRTEngine


def test_auto_uses_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert engine_of(folder) is TensorFlowEngine


def test_without_litert_auto_uses_tensorflow_and_int8_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SMALL", 0)
    monkeypatch.setattr(loading, "_may_have_gpu", lambda: False)
    monkeypatch.setattr(loading, "_has_litert", lambda: False)
    assert engine_of(folder) is TensorFlowEngine
    with pytest.raises(UserError, match="pip install ai-edge-litert"):
        engine_of(folder, quantize="int8")


@pytest.mark.parametrize("options", [{}, {"engine": "numpy"}])
def test_a_small_model_answers_without_tensorflow(folder: Path, options: dict) -> None:
    assert not imports_tensorflow(folder, options)


@pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed"
)
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_converted_model_answers_without_tensorflow(folder: Path, quantize: str) -> None:
    options = {"engine": "litert", "quantize": quantize}
    open_model(ModelFolder(folder), **options)
    assert not imports_tensorflow(folder, options)


def test_a_model_that_is_replaced_during_its_conversion_is_not_kept(
    fresh_folder: Path, tmp_path: Path, cache: Path
) -> None:
    other = write_small_model(tmp_path / "other" / "small", 8)

    begun = []

    def replace(event: Converting) -> None:
        begun.extend([event] * (event.done == 0))
        shutil.copytree(other, fresh_folder, dirs_exist_ok=True)

    with pytest.raises(UserError, match=r"replaced while it was being converted\. Run .* again"):
        open_model(ModelFolder(fresh_folder), engine="litert", progress=replace)
    assert entries(cache) == []
    assert len(begun) == 1  # not once more in a temporary folder
    check(open_model(ModelFolder(fresh_folder), engine="litert"), seed=8)


def test_a_temporary_conversion_is_deleted_when_the_process_is_ended_at_once(
    fresh_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_cache, "cache_folder", lambda: None)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    open_model(ModelFolder(fresh_folder), engine="litert")
    assert list(tmp_path.glob("retrain-gpt2-*"))
    files.remove_unfinished()
    assert not list(tmp_path.glob("retrain-gpt2-*"))


def imports_tensorflow(folder: Path, options: dict) -> bool:
    """Return whether a process of its own needs TensorFlow to generate a text."""
    script = f"""
import sys
from pathlib import Path
from gpt2.checkpoint.folder import ModelFolder
from gpt2.generation.loading import open_model
open_model(ModelFolder(Path({str(folder)!r})), **{options!r}).generate("the", length=3)
print("tensorflow" in sys.modules)
"""
    source = Path(loading.__file__).parents[2]
    done = waiting.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(source)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("engine", "quantize", "sentence"),
    [
        ("pytorch", "none", "engine .*auto, .*litert.*pytorch"),
        ("litert", "int3", "quantize .*none, int8, int4.*'int3'"),
        ("tensorflow", "int8", "int8.*tensorflow.*litert"),
    ],
)
def test_engines_that_do_not_exist_are_refused(
    folder: Path, engine: str, quantize: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        open_model(ModelFolder(folder), engine=engine, quantize=quantize)
