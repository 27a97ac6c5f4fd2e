"""The ways to call the commands that the tutorials teach, each with its workspace."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.commands.toolkit_copy import DATA, MODEL_FILES, Toolkit

# From the root without PYTHONPATH is what all other tests do.
STYLES = {
    "with PYTHONPATH": ("PYTHONPATH=src python src/", ".", "models"),
    "in src": ("python ", "src", "models"),
    "in src with the models there": ("python ", "src", "src/models"),
}


@pytest.mark.parametrize("style", STYLES)
def test_checkpoints_and_samples_lie_beside_the_models_in_use(toolkit: Toolkit, style: str) -> None:
    python, folder, models = STYLES[style]
    if models != "models":
        shutil.move(toolkit.root / "models", toolkit.root / models)
    text = Path(os.path.relpath(toolkit.root / "text.txt", toolkit.root / folder)).as_posix()
    toolkit.run(f"{python}encode.py {text} encoded.npz", folder).succeeds()
    encoded = (toolkit.root / folder / "encoded.npz").read_bytes()
    assert encoded == (toolkit.root / "text.npz").read_bytes()

    done = toolkit.run(
        f"{python}train.py --dataset encoded.npz --max_steps 1 --sample_every 1 --sample_length 3",
        folder,
    ).succeeds()
    beside = (toolkit.root / models).parent
    assert (beside / "checkpoint" / "run1" / "model-1.index").is_file()
    assert (beside / "samples" / "run1" / "samples-1").is_file()
    shown = os.path.relpath(beside / "checkpoint" / "run1" / "model-1", toolkit.root / folder)
    assert f"\nSaving {shown}\n" in done.out
    for other in {toolkit.root, toolkit.root / "src"} - {beside}:
        assert not {"models", "checkpoint", "samples"} & {path.name for path in other.iterdir()}


def test_a_model_folder_written_by_tensorflow_1_is_trained_and_sampled(
    shared_data: Path, tmp_path: Path
) -> None:
    toolkit = Toolkit(tmp_path / "toolkit")
    model = toolkit.root / "models" / "117M"
    shutil.copytree(shared_data / "toy-checkpoint", model)
    assert sorted(path.name for path in model.iterdir()) == sorted(MODEL_FILES)
    # Its vocabulary spells little, and of what it spells most lies beyond its 356 tokens.
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
    done.says(1, "'Power' is the token 13434.*vocabulary ends at 355")
