"""Bad input: one sentence, exit code 1, nothing written, and TensorFlow is not imported."""

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
    """A function that asserts that each command prints its sentence and changes nothing."""

    def refuses(sentences: dict[str, str]) -> None:
        before = toolkit.contents()
        lines = (f"{no_tensorflow} {line}" for line in sentences)
        answers = toolkit.run_in_one_process(*lines)
        for done, sentence in zip(answers, sentences.values(), strict=True):
            done.says(1, sentence)
        assert toolkit.contents() == before

    return refuses


def test_without_bad_input_tensorflow_is_imported(toolkit: Toolkit, no_tensorflow: str) -> None:
    # Or the other tests would prove nothing.
    lines = (
        f"{TRAIN} --dataset text.npz",
        f"{NEW_MODEL} --dataset text.txt",
        f"{UNCONDITIONAL} --engine tensorflow",
    )
    for done in toolkit.run_all(*(f"{no_tensorflow} {line}" for line in lines)):
        assert done.code == 1
        # As every internal error: with a request to report it, and a traceback.
        assert "bug" in done.sentences[0] and "report" in done.sentences[0]
        assert done.sentences[1].startswith("Traceback")
        assert done.sentences[-1] == "ImportError: TensorFlow was imported"


def test_a_missing_model_is_an_error_with_the_command_that_gets_it(refuses: Refuses) -> None:
    for line in (INTERACTIVE, f"{TRAIN} --dataset text.txt", f"{ENCODE} text.txt out.npz"):
        refuses(
            {
                f"{line} --model_name 345M": "'345M' .*: python download_model.py 345M. Or create",
                f"{line} --model_name small": "'small' .*117M.*: python src/new_model.py NAME",
            }
        )


@pytest.mark.parametrize("name", [name for name in MODEL_FILES if name != "model.ckpt.meta"])
def test_an_incomplete_model_is_an_error_with_the_command_that_downloads_it(
    toolkit: Toolkit, refuses: Refuses, name: str
) -> None:
    model = toolkit.root / "models" / "117M"
    (model / name).unlink()
    sentence = rf"117M.{re.escape(name)}\b.* missing.*: python download_model\.py 117M$"
    if name == "checkpoint":  # which is needed only to choose among several
        for part in ("data-00000-of-00001", "index"):
            (model / f"other.ckpt.{part}").write_bytes((model / f"model.ckpt.{part}").read_bytes())
        sentence = r"model\.ckpt, other\.ckpt.* 'checkpoint'"
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
def test_a_text_that_cannot_be_read_is_an_error(
    toolkit: Toolkit, refuses: Refuses, reader: str
) -> None:
    (toolkit.root / "latin1.txt").write_bytes("Grüße".encode("latin-1"))
    (toolkit.root / "empty.txt").touch()
    (toolkit.root / "folder").mkdir()
    refuses(
        {
            reader.format("latin1.txt"): r"^latin1\.txt.* utf-8\b.* offset 2\b",
            reader.format("latin1.txt") + " --encoding klingon": "encoding 'klingon'",
            reader.format("gone.txt"): r"^gone\.txt\b",
            reader.format("folder"): r"^folder\b",
            reader.format("empty.txt"): r"^(The dataset is empty|empty\.txt .*no text)",
        }
    )


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("unpickled"),)


def test_an_npz_file_without_tokens_is_an_error(toolkit: Toolkit, refuses: Refuses) -> None:
    np.savez(toolkit.root / "objects.npz", np.array([Trap()], dtype=object))
    np.savez(toolkit.root / "floats.npz", np.array([1.0, 2.0]))
    np.savez(toolkit.root / "beyond.npz", np.array([1, 300]))
    (toolkit.root / "cut.npz").write_bytes((toolkit.root / "text.npz").read_bytes()[:-10])
    (toolkit.root / "text_only.npz").write_text("Not encoded.")
    refuses(
        {
            f"{TRAIN} --dataset objects.npz": r"^objects\.npz\b",
            f"{TRAIN} --dataset floats.npz": r"^floats\.npz: arr_0 .*float64",
            f"{TRAIN} --dataset beyond.npz": r"^beyond\.npz: arr_0 .* 300\b.* 299",
            f"{TRAIN} --dataset cut.npz": r"^cut\.npz\b",
            f"{TRAIN} --dataset text_only.npz": r"^text_only\.npz\b",
        }
    )


@pytest.mark.parametrize("sampler", [INTERACTIVE, UNCONDITIONAL])
def test_a_sampling_flag_out_of_range_is_an_error(refuses: Refuses, sampler: str) -> None:
    refuses(
        {
            f"{sampler} --top_k 301": r"top_k is 301\b.* 300 tokens",
            f"{sampler} --top_p 1.5": "--top_p must be .*from 0 to 1, not 1.5",
            f"{sampler} --top_p -0.1": "--top_p must be .*from 0 to 1, not -0.1",
            f"{sampler} --temperature -1": "--temperature must be .*at least 0, not -1",
            f"{sampler} --batch_size 0": "--batch_size must be .*from 1 to 65,536, not 0",
            f"{sampler} --nsamples -1": "--nsamples must be .*from 0 to 10,000,000, not -1",
            f"{sampler} --seed -1": "--seed must be .*at least 0, not -1",
        }
    )


def test_a_training_flag_out_of_range_or_without_its_file_is_an_error(refuses: Refuses) -> None:
    train = f"{TRAIN} --dataset text.npz"
    refuses(
        {
            f"{train} --top_k 301": r"top_k is 301\b.* 300 tokens",
            f"{train} --top_p 2": "--top_p must be .*from 0 to 1, not 2",
            f"{train} --learning_rate 0": "--learning_rate must be .*above 0, not 0",
            f"{train} --noise 1.5": "--noise must be .*from 0 to 1, not 1.5",
            f"{train} --batch_size 0": "--batch_size must be .*at least 1, not 0",
            f"{train} --max_steps 0": "--max_steps must be .*at least 1, not 0",
            f"{train} --seed -1": "--seed must be .*at least 0, not -1",
            f"{train} --run_name ../run1": r"'\.\./run1' .*name",
            f"{train} --restore_from gone": "gone.*available: .*117M",
            f"{TRAIN} --dataset -": "^- .*once.*: python src/encode.py",
            f"{train} --lines": r"^text\.npz .*lines",
            f"{train} --line_by_line": r"^text\.npz .*lines",
        }
    )


def test_an_invalid_size_or_name_of_a_model_is_an_error(refuses: Refuses) -> None:
    new_model = f"{NEW_MODEL} --dataset text.txt"
    refuses(
        {
            new_model.replace("--n_head 2", "--n_head 3"): r"n_embd \(16\) .*n_head \(3\)",
            new_model.replace("--n_vocab 300", "--n_vocab 256"): "256 .*257",
            new_model.replace("--n_ctx 32", "--n_ctx 0"): "--n_ctx must be .*1.*, not 0",
            new_model.replace(" new ", " 117M "): "models.117M .*exists",
            new_model.replace(" new ", " ../new "): r"'\.\./new' .*name",
        }
    )


def test_an_output_path_that_cannot_be_written_or_is_an_input_is_an_error(
    toolkit: Toolkit, refuses: Refuses
) -> None:
    (toolkit.root / "texts").mkdir()
    (toolkit.root / "texts" / "one.txt").write_text("One text.")
    (toolkit.root / "texts" / "old.npz").write_bytes((toolkit.root / "text.npz").read_bytes())
    encode = f"{ENCODE} text.txt"
    folder = "cannot be written: .*folder"
    refuses(
        {
            f"{encode} gone/out.npz": "gone.out.npz cannot be written: there is no folder",
            f"{encode} text.npz/out.npz": "text.npz.out.npz cannot be written: ",
            f"{encode} models": f"models {folder}",
            f"{encode} .": folder,
            f"{encode} ''": folder,
            f"{encode} {'o' * 300}.npz": "o{200}.* cannot be written: File name too long",
            f"{ENCODE} '' out.npz": "folder.* pattern",
            f"{ENCODE} texts texts/old.npz": r"old\.npz .*input files",
            f"{ENCODE} texts ./texts/old": r"old\.npz .*input files",
        }
    )
