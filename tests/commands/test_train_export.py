"""`train --export`: the finished or best model as a model folder; `train --estimate`."""

from __future__ import annotations

import re

import pytest

from tests.commands.toolkit_copy import MODEL_FILES, Home

TRAIN = "python src/train.py --dataset text.npz --run_name exported --seed 1"
VALIDATE = "--val_every 1 --val_split 0.2 --val_batch_count 1"


@pytest.mark.slow
def test_the_best_checkpoint_is_exported_and_replaced_only_on_request(
    home: Home, no_tensorflow: str
) -> None:
    toolkit = home.toolkit
    models, run = toolkit.root / "models", toolkit.root / "checkpoint" / "exported"
    # Such a learning rate makes the loss rise, so that the best checkpoint is not the last.
    line = f"{TRAIN} {VALIDATE} --learning_rate 0.3 --export poems"
    done = toolkit.run(f"{line} --max_steps 3")
    assert done.code == 0, done
    assert re.search(r"^Exported checkpoint.exported.best to models.poems$", done.out, re.M)
    assert sorted(path.name for path in (models / "poems").iterdir()) == sorted(MODEL_FILES)
    best = (run / "best" / "checkpoint").read_text().split('"')[1]
    exported = (models / "poems" / "model.ckpt.index").read_bytes()
    assert exported == (run / "best" / f"{best}.index").read_bytes()

    refused = toolkit.run(f"{no_tensorflow} {line} --max_steps 4")
    refused.says(1, r"models.poems already exists.*--overwrite")
    assert not (run / "model-4.index").exists()

    # Without a validation set, the newest checkpoint is the one to export.
    last = f"{TRAIN} --run_name last --max_steps 2 --export poems --overwrite"
    toolkit.run(last.replace("--run_name exported ", "")).succeeds()
    exported = (models / "poems" / "model.ckpt.index").read_bytes()
    assert exported == (toolkit.root / "checkpoint" / "last" / "model-2.index").read_bytes()
    assert [path.name for path in models.glob("poems*")] == ["poems"]
    out = toolkit.run(
        "python src/generate_unconditional_samples.py --model_name poems --nsamples 1 --length 3"
    )
    assert "SAMPLE 1" in out.succeeds().out


def test_wrong_names_and_flags_are_errors_before_tensorflow_is_imported(
    home: Home, no_tensorflow: str
) -> None:
    (home.toolkit.root / "models" / "letters").mkdir()
    calls = {
        "--export exported": "--export exported: the run has this name",
        "--export a/b": "not a valid name",
        "--overwrite": "--overwrite needs --export",
        "--export letters --overwrite": "letters is not a model",
    }
    lines = (f"{no_tensorflow} {TRAIN} {flags}" for flags in calls)
    for done, sentence in zip(home.toolkit.run_in_one_process(*lines), calls.values(), strict=True):
        done.says(1, sentence)
    (home.toolkit.root / "models" / "letters").rmdir()


def test_an_estimate_says_tokens_steps_memory_and_time_and_writes_nothing(home: Home) -> None:
    line = "python src/train.py --dataset text.npz --run_name guess --estimate --max_steps 500"
    out = home.toolkit.run(f"{line} --batch_size 2 --accumulate_gradients 2").succeeds().out
    steps = re.search(r"^One epoch: ([\d,]+) steps of 4 x 32 tokens$", out, re.M)[1]
    assert re.search(r"^dataset has \d+ tokens$", out, re.M)
    assert re.search(r"estimated memory: \d+\.\d GB", out)
    assert re.search(r"[\d.e-]+ s per step$", out, re.M)
    assert re.search(r"^  1,000 steps: \d+ (s|min \d+ s)$", out, re.M)
    assert f"  One epoch ({steps} steps): " in out
    assert "  Steps left in this run (500): " in out
    assert "loss=" not in out
    for folder in ("checkpoint", "samples"):
        assert not (home.toolkit.root / folder / "guess").exists()


def test_a_loss_line_every_n_steps(home: Home) -> None:
    line = "python src/train.py --dataset text.npz --run_name sparse --max_steps 5"
    out = home.toolkit.run(f"{line} --print_every 2").succeeds().out
    assert re.findall(r"^\[(\d+) \|", out, re.M) == ["2", "4"]
