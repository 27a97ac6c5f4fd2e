"""What a user may get wrong: one sentence, exit code 1, nothing changed, no wait for TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.commands.toolkit_copy import MODEL_FILES, SIZES, Toolkit

ENCODE = "python src/encode.py"
TRAIN = "python src/train.py"
NEW_MODEL = f"python src/new_model.py new {SIZES}"
INTERACTIVE = "python src/interactive_conditional_samples.py"
UNCONDITIONAL = "python src/generate_unconditional_samples.py"

Refuses = Callable[[dict[str, str]], None]


@pytest.fixture
def refuses(toolkit: Toolkit, no_tensorflow: str) -> Refuses:
    """A function that asserts that each command says its sentence and changes nothing."""

    def refuses(sentences: dict[str, str]) -> None:
        before = toolkit.contents()
        lines = (f"{no_tensorflow} {line}" for line in sentences)
        answers = toolkit.run_in_one_process(*lines)
        for done, sentence in zip(answers, sentences.values(), strict=True):
            done.says(1, sentence)
        assert toolkit.contents() == before

    return refuses


def test_without_a_bad_input_tensorflow_is_asked_for(toolkit: Toolkit, no_tensorflow: str) -> None:
    # Or the other tests would prove nothing.
    lines = (f"{TRAIN} --dataset text.npz", f"{NEW_MODEL} --dataset text.txt", UNCONDITIONAL)
    for done in toolkit.run_all(*(f"{no_tensorflow} {line}" for line in lines)):
        assert done.code == 1
        # As every error that is not a user's: with an invitation to report it, and a traceback.
        assert done.sentences[0].startswith("This is a defect of the toolkit")
        assert done.sentences[1].startswith("Traceback")
        assert done.sentences[-1] == "ImportError: TensorFlow was asked for"


def test_a_missing_model_is_told_with_the_command_that_gets_it(refuses: Refuses) -> None:
    for line in (INTERACTIVE, f"{TRAIN} --dataset text.txt", f"{ENCODE} text.txt out.npz"):
        refuses(
            {
                f"{line} --model_name 345M": "model '345M' .*: python download_model.py 345M$",
                f"{line} --model_name small": "model 'small' .*: python src/new_model.py small",
            }
        )


@pytest.mark.parametrize("name", [name for name in MODEL_FILES if name != "model.ckpt.meta"])
def test_an_incomplete_model_is_told_with_the_command_that_fetches_it(
    toolkit: Toolkit, refuses: Refuses, name: str
) -> None:
    model = toolkit.root / "models" / "117M"
    (model / name).unlink()
    sentence = rf"117M.{re.escape(name)} is missing; .*: python download_model\.py 117M$"
    if name == "checkpoint":  # which is needed only to choose among several
        for part in ("data-00000-of-00001", "index"):
            (model / f"other.ckpt.{part}").write_bytes((model / f"model.ckpt.{part}").read_bytes())
        sentence = r"several checkpoints \(model\.ckpt, other\.ckpt\) and no file 'checkpoint'"
    refuses({f"{TRAIN} --dataset text.npz": sentence})
    if name in ("encoder.json", "vocab.bpe"):
        refuses({f"{ENCODE} text.txt out.npz": sentence})


@pytest.mark.parametrize(
    "reader",
    [
        ENCODE + " {} out.npz",
        TRAIN + " --dataset {}",
        TRAIN + " --dataset text.npz --val_every 1 --val_dataset {}",
        NEW_MODEL + " --dataset {}",
    ],
)
def test_a_text_that_cannot_be_read_is_told(
    toolkit: Toolkit, refuses: Refuses, reader: str
) -> None:
    (toolkit.root / "latin1.txt").write_bytes("Grüße".encode("latin-1"))
    (toolkit.root / "empty.txt").touch()
    (toolkit.root / "folder").mkdir()
    nothing = "is not a file, a folder with files or a pattern that matches some"
    refuses(
        {
            reader.format("latin1.txt"): r"^latin1\.txt is not utf-8 text: the byte at offset 2 ",
            reader.format("latin1.txt") + " --encoding klingon": "no text encoding 'klingon'",
            reader.format("gone.txt"): rf"^gone\.txt {nothing}",
            reader.format("folder"): f"^folder {nothing}",
            reader.format("empty.txt"): r"^(The dataset is empty|empty\.txt holds no text)",
        }
    )


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("unpickled"),)


def test_a_file_of_tokens_that_holds_something_else_is_told(
    toolkit: Toolkit, refuses: Refuses
) -> None:
    np.savez(toolkit.root / "objects.npz", np.array([Trap()], dtype=object))
    np.savez(toolkit.root / "floats.npz", np.array([1.0, 2.0]))
    np.savez(toolkit.root / "beyond.npz", np.array([1, 300]))
    (toolkit.root / "cut.npz").write_bytes((toolkit.root / "text.npz").read_bytes()[:-10])
    (toolkit.root / "text_only.npz").write_text("Not encoded.")
    refuses(
        {
            f"{TRAIN} --dataset objects.npz": r"^objects\.npz is not a file of encoded text",
            f"{TRAIN} --dataset floats.npz": r"^floats\.npz: arr_0 is an array of float64",
            f"{TRAIN} --dataset beyond.npz": r"^beyond\.npz: arr_0 holds the token id 300, .* 299",
            f"{TRAIN} --dataset cut.npz": r"^cut\.npz is not a file of encoded text",
            f"{TRAIN} --dataset text_only.npz": r"^text_only\.npz is not a file of encoded text",
        }
    )


@pytest.mark.parametrize("sampler", [INTERACTIVE, UNCONDITIONAL])
def test_samples_that_cannot_be_drawn_are_told(refuses: Refuses, sampler: str) -> None:
    refuses(
        {
            f"{sampler} --top_k 301": "top_k is 301, but the vocabulary has only 300 tokens",
            f"{sampler} --top_k 1.5": "top_k should be a whole number of at least 0, not 1.5",
            f"{sampler} --top_p 1.5": "top_p should be a number from 0 to 1, not 1.5",
            f"{sampler} --top_p -0.1": "top_p should be a number from 0 to 1, not -0.1",
            f"{sampler} --temperature -1": "temperature should be a number of at least 0, not -1",
            f"{sampler} --batch_size 0": "batch_size should be a whole number of at least 1, not 0",
            f"{sampler} --nsamples -1": "nsamples should be a whole number of at least",
            f"{sampler} --seed x": "seed should be a whole number of at least 0, not 'x'",
        }
    )


def test_training_that_makes_no_sense_is_told(refuses: Refuses) -> None:
    train = f"{TRAIN} --dataset text.npz"
    refuses(
        {
            f"{train} --top_k 301": "top_k is 301, but the vocabulary has only 300 tokens",
            f"{train} --top_p 2": "top_p should be a number from 0 to 1, not 2",
            f"{train} --learning_rate 0": "learning_rate should be a number above 0",
            f"{train} --noise 1.5": "noise should be a share from 0 to 1, not 1.5",
            f"{train} --batch_size 0": "batch_size should be a whole number of at least 1, not 0",
            f"{train} --max_steps 0": "max_steps should be a whole number of at least 1, not 0",
            f"{train} --seed -1": "seed should be a whole number of at least 0, not -1",
            f"{train} --run_name ../run1": r"'\.\./run1' cannot name a run",
            f"{train} --restore_from gone": r"gone is no checkpoint: there is no gone\.index",
            f"{TRAIN} --dataset -": "^- can be read only once, .* first with: python src/encode.py",
            f"{train} --lines": "text.npz holds tokens, which have no lines",
            f"{train} --line_by_line": "text.npz holds tokens, which have no lines",
        }
    )


def test_a_model_that_cannot_be_is_told(refuses: Refuses) -> None:
    new_model = f"{NEW_MODEL} --dataset text.txt"
    refuses(
        {
            f"{new_model} --n_head 3": "width of 16 cannot be shared out among 3 heads",
            f"{new_model} --n_vocab 256": "vocabulary of 256 tokens is too small",
            f"{new_model} --n_ctx 0": "n_ctx should be a positive whole number, not 0",
            new_model.replace(" new ", " 117M "): "models.117M is there already",
            new_model.replace(" new ", " ../new "): r"'\.\./new' cannot name a model",
        }
    )


def test_tokens_are_written_to_no_place_that_cannot_hold_them_or_holds_the_text(
    toolkit: Toolkit, refuses: Refuses
) -> None:
    (toolkit.root / "texts").mkdir()
    (toolkit.root / "texts" / "one.txt").write_text("One text.")
    (toolkit.root / "texts" / "old.npz").write_bytes((toolkit.root / "text.npz").read_bytes())
    encode = f"{ENCODE} text.txt"
    folder = "cannot be written: there is a folder or a device of that name"
    refuses(
        {
            f"{encode} gone/out.npz": "gone.out.npz cannot be written: No such file or directory",
            f"{encode} text.npz/out.npz": "text.npz.out.npz cannot be written: ",
            f"{encode} models": f"models {folder}",
            f"{encode} .": folder,
            f"{encode} ''": folder,
            f"{encode} {'o' * 300}.npz": "o.npz cannot be used: ",
            f"{ENCODE} '' out.npz": "is not a file, a folder with files or a pattern",
            f"{ENCODE} texts texts/old.npz": "old.npz is among the files to encode",
            f"{ENCODE} texts ./texts/old": "old.npz is among the files to encode",
        }
    )
