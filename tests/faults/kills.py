"""Kills commands at random moments, runs them again, and checks what is left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2 import files
from gpt2.checkpoint import bundle, state
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import RunFolder
from gpt2.download.transfer import received
from gpt2.generation import conversion_cache, litert_conversion
from tests.checkpoint.checkpoint_helpers import last_step, latest
from tests.download.misbehaving_server import Behavior, File, Request, Server, well
from tests.faults.children import Child

SLOW = 0.004  # seconds
SAVE_EVERY = 3
# Adam, dropout, noise, validation and the best loss: all state that a run must restore.
TRAIN = (
    f"src/train.py --dataset text.npz --seed 5 --save_every {SAVE_EVERY} --sample_every 100000"
    " --learning_rate 0.01 --noise 0.1 --dropout 0.1 --val_split 0.1 --val_every 4"
    " --val_batch_count 2"
)
NEW_MODEL = (
    "src/new_model.py 117M --dataset text.txt --seed 1 --n_vocab 300 --n_ctx 16 --n_embd 8"
    " --n_head 2 --n_layer 1"
)


@dataclasses.dataclass
class Kills:
    """Results of killing one command repeatedly."""

    kills: int = 0
    writing: int = 0  # kills while files were being written
    resumed: int = 0  # kills after which nothing was lost or incomplete
    most_lost: int | None = None  # steps since the last save
    note: str = ""


def listing(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, without TensorBoard files, locks and logs."""
    ignored = ("events.out", "lock", "config.json", "output.txt")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(ignored)
    }


def assert_equal(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Assert that two listings have the same files with the same bytes."""
    assert found.keys() == expected.keys(), (sorted(found), sorted(expected))
    different = [name for name in found if found[name] != expected[name]]
    assert not different, different


class Home:
    """A folder with a text, a model and the encoded text, created by the commands."""

    def __init__(self, folder: Path, chance: random.Random):
        self.folder, self.chance = folder, chance
        (folder / "models").mkdir(parents=True)
        words = [f"{'bcdfgklmnprst'[a]}{'aeiou'[b]}" for a in range(13) for b in range(5)]
        text = random.Random(1)
        lines = (" ".join(text.choices(words, k=9)) for _ in range(400))
        (folder / "text.txt").write_text("\n".join(lines))
        Child(NEW_MODEL, folder).finish()
        Child("src/encode.py text.txt text.npz", folder).finish()

    def room(self, name: str) -> Path:
        """Return a copy of the folder."""
        room = self.folder.with_name(name)
        shutil.copytree(self.folder, room)
        return room


# --- training ---


def training(home: Home, kills: int) -> Kills:
    """Kill a training repeatedly, then finish it; compare it with one that was never killed."""
    room, found = home.room("training"), Kills(most_lost=0)
    run = RunFolder(room / "checkpoint" / "killed")
    before, chance = 0, home.chance
    begins, saves = 2.0, 0.5  # seconds until a training starts, and of a save
    while found.kills < kills:
        child = Child(f"{TRAIN} --run_name killed", room, SLOW)
        seen = child.seen
        when = chance.random()
        if when < 0.1:  # before training starts
            killed = child.kill_after(chance.uniform(0, begins))
        elif when < 0.3:  # at any time
            steps = chance.randrange(2 * SAVE_EVERY)
            late = chance.uniform(0, saves)
            killed = child.kill_after(late, lambda s=seen, n=steps: s.step - s.first >= n)
        else:  # while it saves, for the first or the second time
            count = chance.choice((1, 2))
            killed = child.kill_after(
                chance.uniform(0, saves), lambda s=seen, n=count: s.saves >= n
            )
        saves = seen.seconds or saves
        now = last_step(run)
        assert killed, child.output.read_text(errors="replace")
        found.kills += 1
        found.writing += seen.writing > 0
        if seen.first:
            assert seen.first == before + 1, (seen.first, before)
        assert now in (seen.saved or before, seen.saving), (now, before, seen.saved, seen.saving)
        found.most_lost = max(found.most_lost, seen.step - now if seen.first else 0)
        assert found.most_lost <= SAVE_EVERY, found
        _assert_complete(run)
        found.resumed += 1
        before = now
    end = before + 2 * SAVE_EVERY + 1
    for name in ("killed", "whole"):
        Child(f"{TRAIN} --run_name {name} --max_steps {end}", room).finish()
    whole = listing(room / "checkpoint" / "whole")
    last = listing(room / "checkpoint" / "killed")
    # Speeds differ between runs.
    assert _losses(last.pop("history.jsonl")) == _losses(whole.pop("history.jsonl"))
    assert_equal(last, whole)
    assert last_step(RunFolder(room / "checkpoint" / "whole")) == end
    found.note = f"{end} steps, bit-identical to those of an uninterrupted run"
    return found


def _assert_complete(run: RunFolder) -> None:
    """Check that the current checkpoint and its state are complete, by their checksums."""
    current = latest(run)
    if current is None:
        return
    prefix, _ = current
    hparams = ModelFolder(run.path).hparams
    assert dict(bundle.Tensors(prefix, hparams)).keys() == hparams.tensor_shapes().keys()
    prefix_of_state = run.state_of(prefix)
    assert state.read_facts(prefix_of_state, prefix) is not None
    assert state.read_tensors(prefix_of_state)


def _losses(content: bytes) -> list[dict]:
    lines = [json.loads(line) for line in content.splitlines()]
    return [{n: v for n, v in line.items() if n != "tokens_per_second"} for line in lines]


# --- commands that create something ---


def making(
    home: Home,
    name: str,
    line: str,
    made: str,
    kills: int,
    *,
    check: Callable[[Path, bool], object] = lambda made, fresh: None,
    equal: Callable[[bytes], object] = lambda content: content,
    resumes: bool = False,
) -> Kills:
    """Kill a command repeatedly while it creates a file or folder.

    Args:
        made: its output.
        check: asserts that the output after a kill is valid; its second argument is whether the
            killed call started from nothing.
        equal: the part of a file's content that must equal that of an uninterrupted call.
        resumes: whether the command resumes what a kill leaves, instead of starting over.
    """
    room, found = home.room(name), Kills()
    before = set(listing(room))
    seconds = Child(line, room, SLOW).finish()
    whole = listing(room)
    fresh = True
    while found.kills < kills:
        if fresh:
            _remove(room / made)
        child = Child(line, room, SLOW)
        if home.chance.random() < 0.5:
            killed = child.kill_after(home.chance.uniform(0, seconds))
        else:
            killed = child.kill_after(home.chance.uniform(0, 0.2), lambda c=child: c.seen.writing)
        if killed:
            found.kills += 1
            found.writing += child.seen.writing > 0
            if not resumes and (room / made).exists():
                found_now, expected = (
                    {name: equal(content) for name, content in _only(each, made).items()}
                    for each in (listing(room), whole)
                )
                assert_equal(found_now, expected)
            check(room / made, fresh)
            beside = (room / made).parent.iterdir()
            partial = [entry.name for entry in beside if files.PARTIAL in entry.name]
            assert len(partial) <= 1, partial  # SIGKILL cannot remove its temporary file
            found.resumed += 1
        fresh = not (resumes and killed)
    if not resumes:
        _remove(room / made)
    Child(line, room).finish()
    last = listing(room)
    assert last.keys() == whole.keys() > before, (last.keys(), whole.keys())
    for path in _only(whole, made):
        assert equal(last[path]) == equal(whole[path]), path
    return found


def _only(contents: dict[str, bytes], made: str) -> dict[str, bytes]:
    return {
        name: content
        for name, content in contents.items()
        if name == made or name.startswith(made + "/")
    }


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def encoding(home: Home, kills: int) -> Kills:
    """A file of tokens."""
    return making(home, "encoding", "src/encode.py text.txt out.npz --workers 1", "out.npz", kills)


def encoding_shards(home: Home, kills: int) -> Kills:
    """A folder of tokens."""
    line = "src/encode.py text.txt out/ --workers 1"
    return making(home, "shards", line, "out", kills)


def new_model(home: Home, kills: int) -> Kills:
    """A new model."""
    line = NEW_MODEL.replace("117M", "small")
    return making(home, "new_model", line, "models/small", kills)


def to_hf(home: Home, kills: int) -> Kills:
    """A model for transformers."""
    return making(home, "to_hf", "src/convert.py to_hf 117M out", "out", kills)


def to_gguf(home: Home, kills: int) -> Kills:
    """A model for llama.cpp."""
    return making(home, "to_gguf", "src/convert.py to_gguf 117M out.gguf", "out.gguf", kills)


def from_hf(home: Home, kills: int) -> Kills:
    """A model of transformers, which stays as it was."""
    Child("src/convert.py to_hf 117M source", home.folder).finish()
    source = listing(home.folder / "source")
    line = "src/convert.py from_hf source models/back"
    found = making(home, "from_hf", line, "models/back", kills)
    assert_equal(listing(home.folder.with_name("from_hf") / "source"), source)
    return found


def conversions(home: Home, kills: int) -> Kills:
    """The converted model that the first sampling writes."""
    prefix = home.folder / "models" / "117M" / "model.ckpt"
    made = f"cache/litert/{litert_conversion.cache_key(prefix, 'none')}"
    names = litert_conversion.program_files(ModelFolder(prefix.parent).hparams)

    def check(folder: Path, fresh: bool) -> None:
        assert conversion_cache.is_intact(folder, names) or not folder.exists()

    line = (
        "src/generate_unconditional_samples.py --model_name 117M --engine litert --length 3"
        " --nsamples 1 --seed 1"
    )
    os.environ["GPT2_CACHE_DIR"] = "cache"  # in the current folder of the command
    return making(
        home,
        "conversions",
        line,
        made,
        kills,
        check=check,
        equal=lambda content: re.sub(rb'"mtime_ns": \d+', b"", content),
    )


def samples_of_prompts(home: Home, kills: int) -> Kills:
    """A file of samples, resumed after each kill."""
    (home.folder / "prompts.txt").write_text("".join(f"ba {n}\n" for n in range(40)))
    line = (
        "src/generate_conditional_samples.py --model_name 117M --engine tensorflow --length 4"
        " --seed 1 --prompts prompts.txt --out out.jsonl"
    )
    lines = 0

    def check(path: Path, fresh: bool) -> None:
        nonlocal lines
        now = path.read_bytes().count(b"\n") if path.exists() else 0
        assert fresh or now >= lines, (now, lines)
        lines = now

    def equal(content: bytes) -> list[bytes]:
        return sorted(content.splitlines())

    return making(home, "prompts", line, "out.jsonl", kills, check=check, equal=equal, resumes=True)


# --- downloads ---


def downloads(home: Home, kills: int) -> Kills:
    """A downloaded model, resumed after each kill."""
    source = listing(home.folder / "models" / "117M")
    came = 0

    def check(folder: Path, fresh: bool) -> None:
        nonlocal came
        now = 0
        for name, content in source.items():
            path = folder / name
            assert not path.exists() or path.read_bytes() == content, name
            now += len(content) if path.exists() else received(path)
        assert fresh or now >= came, (now, came)
        came = now

    with serving({f"/mine/{name}": content for name, content in source.items()}) as address:
        line = f"download_model.py mine --url {address}"
        return making(home, "downloads", line, "models/mine", kills, check=check, resumes=True)


@contextlib.contextmanager
def serving(contents: dict[str, bytes]) -> Iterator[str]:
    """Serve files slowly from another process, and yield the address."""
    with Server() as server:
        server.files = {path: File(content) for path, content in contents.items()}
        server.script = Always()
        process = os.fork()
        if process == 0:
            server.serve_forever()
        try:
            yield server.address
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


class Always(list):
    """A script that answers every request correctly, but slowly."""

    def __len__(self) -> int:
        return 1

    def pop(self, _: int = 0) -> Behavior:
        return slowly


def slowly(request: Request) -> None:
    real = request.wfile

    class Slow:
        def write(self, content: bytes) -> None:
            size = len(content) // 20 + 1
            for start in range(0, len(content), size):
                real.write(content[start : start + size])
                real.flush()
                time.sleep(SLOW)

        def flush(self) -> None:
            real.flush()

    request.wfile = Slow()
    well(request)
    request.wfile = real
