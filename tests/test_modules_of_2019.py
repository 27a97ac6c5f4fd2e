"""`import encoder` and its neighbors from `src/`, as programs of 2019 do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"


def python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SRC), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


def test_get_encoder_encodes_as_in_2019(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    shutil.copytree(shared_data / "gpt2", tmp_path / "models" / "117M")
    shutil.copytree(shared_data / "gpt2", tmp_path / "elsewhere" / "mine")
    done = python(
        "import encoder, json\n"
        "old = encoder.get_encoder('117M')\n"
        "also = encoder.get_encoder('124M', models_dir='models')\n"
        "mine = encoder.get_encoder(model_name='mine', models_dir='elsewhere')\n"
        "text = 'Hello world<|endoftext|>'\n"
        "print(json.dumps([e.encode(text) for e in (old, also, mine)]))\n"
        "print(json.dumps([old.decode([15496, 995]), old.encoder['Hello'], old.decoder[995],\n"
        "    old.bpe_ranks[('h', 'e')], old.byte_encoder[32], old.byte_decoder[chr(288)]]))\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ids, rest = map(json.loads, done.stdout.splitlines())
    # <|endoftext|> as ordinary text, as openai/gpt-2's encoder.py gives it
    assert ids == [[15496, 995, 27, 91, 437, 1659, 5239, 91, 29]] * 3
    assert rest == ["Hello world", 15496, "Ġworld", 2, "Ġ", 32]


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    done = python("import encoder; encoder.get_encoder('117M')", tmp_path)
    assert done.returncode == 1
    assert "There is no model '117M'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("model", "gpt2.model.logits"),
        ("sample", "generate"),
        ("load_dataset", "gpt2.data.datasets.read"),
    ],
)
def test_the_other_modules_say_what_replaces_them(
    tmp_path: Path, name: str, replacement: str
) -> None:
    done = python(f"import {name}", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ImportError: ") and replacement in last and "docs/interop.md" in last
