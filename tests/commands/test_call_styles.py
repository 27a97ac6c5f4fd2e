"""The ways of 2019 to call the commands, and those of the package, each with its workspace."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.commands.toolkit_copy import DATA, MODEL_FILES, Toolkit

# The commands as called, the current folder, and where the models are. All other tests call the
# scripts from the root without PYTHONPATH.
STYLES = {
    "with PYTHONPATH": ("PYTHONPATH=src python src/{}.py", ".", "models"),
    "in src": ("python {}.py", "src", "models"),
    "in src with the models there": ("python {}.py", "src", "src/models"),
    "as a module": ("PYTHONPATH=src python -m gpt2 {}", ".", "models"),
}


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_checkpoints_and_samples_are_written_beside_the_models(
    toolkit: Toolkit, style: str
) -> None:
    call, folder, models = STYLES[style]
    if models != "models":
        shutil.move(toolkit.root / "models", toolkit.root / models)
    text = Path(os.path.relpath(toolkit.root / "text.txt", toolkit.root / folder)).as_posix()
    toolkit.run(f"{call.format('encode')} {text} encoded.npz", folder).succeeds()
    encoded = (toolkit.root / folder / "encoded.npz").read_bytes()
    assert encoded == (toolkit.root / "text.npz").read_bytes()

    done = toolkit.run(
        f"{call.format('train')} --dataset encoded.npz --max_steps 1 --sample_every 1"
        " --sample_length 3",
        folder,
    ).succeeds()
    beside = (toolkit.root / models).parent
    assert (beside / "checkpoint" / "run1" / "model-1.index").is_file()
    assert (beside / "samples" / "run1" / "samples-1").is_file()
    shown = os.path.relpath(beside / "checkpoint" / "run1" / "model-1", toolkit.root / folder)
    assert f"\nSaving {shown}\n" in done.out
    for other in {toolkit.root, toolkit.root / "src"} - {beside}:
        assert not {"models", "checkpoint", "samples"} & {path.name for path in other.iterdir()}


def test_an_explicit_models_dir_is_relative_to_the_current_folder(
    toolkit: Toolkit, no_tensorflow: str
) -> None:
    elsewhere = toolkit.root / "elsewhere"
    elsewhere.mkdir()
    default, explicit = toolkit.run_all(
        "python ../src/encode.py ../text.txt out.npz",
        "python ../src/encode.py ../text.txt other.npz --models_dir models",
        folder="elsewhere",
    )
    default.succeeds()  # the toolkit's own models
    explicit.says(1, rf"'117M' .*{re.escape(str(elsewhere / 'models'))}")
    done = toolkit.run(
        f"{no_tensorflow} python ../src/new_model.py new --dataset ../text.txt --models_dir here",
        "elsewhere",
    )
    assert done.sentences[-1] == "ImportError: TensorFlow was imported"
    shutil.move(toolkit.root / "models", elsewhere / "models")
    toolkit.run(
        "python ../src/encode.py ../text.txt other.npz --models_dir models", "elsewhere"
    ).succeeds()
    assert (elsewhere / "other.npz").read_bytes() == (elsewhere / "out.npz").read_bytes()


@pytest.mark.slow
def test_a_model_folder_written_by_tensorflow_1_is_trained_and_sampled(
    shared_data: Path, tmp_path: Path
) -> None:
    toolkit = Toolkit(tmp_path / "toolkit")
    model = toolkit.root / "models" / "117M"
    shutil.copytree(shared_data / "toy-checkpoint", model)
    assert sorted(path.name for path in model.iterdir()) == sorted(MODEL_FILES)
    # Its vocabulary has few characters, and most of their ids are beyond its 356 embeddings.
    ids = json.loads((model / "encoder.json").read_text(encoding="utf-8"))
    (toolkit.root / "text.txt").write_text("!,!!," * 100)
    toolkit.run("python src/encode.py text.txt text.npz").succeeds()
    with np.load(toolkit.root / "text.npz") as chunks:
        assert chunks["arr_0"].tolist() == [ids[piece] for piece in "!,!!," * 100]

    done = toolkit.run(
        "python src/train.py --dataset text.npz --max_steps 2 --sample_every 2 --learning_rate 0.01"
    ).succeeds()
    assert "======== SAMPLE 1 ========\n" in done.out
    run = toolkit.contents("checkpoint/run1")
    toy = toolkit.contents("models/117M")
    assert run["encoder.json"] == toy["encoder.json"]
    assert len(run[f"model-2{DATA}"]) == len(toy[f"model.ckpt{DATA}"])
    assert run[f"model-2{DATA}"] != toy[f"model.ckpt{DATA}"]

    done = toolkit.run(
        "python src/generate_unconditional_samples.py --model_name run1 --nsamples 1 --seed 1"
    ).succeeds()
    assert done.out.startswith("=" * 40 + " SAMPLE 1 " + "=" * 40 + "\n")

    (toolkit.root / "text.txt").write_text("Power give me more power!")
    done = toolkit.run("python src/train.py --dataset text.txt --run_name other")
    done.says(1, r"'Power'.* 13434\b.* 355\b")
