"""New models from the command line: a new vocabulary, another model's weights, more tokens."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.data import templates
from gpt2.data.templates import SavedTemplate
from tests.commands.test_bad_input import Refuses, refuses  # noqa: F401 (a fixture)
from tests.commands.toolkit_copy import MODEL_FILES, Toolkit

NEW = "python src/new_model.py new"


def test_a_vocabulary_is_compared_with_that_of_gpt2_on_held_out_text(toolkit: Toolkit) -> None:
    done = toolkit.run(f"{NEW} --dataset text.txt --n_vocab 400 --special_tokens '<|poem|>'")
    done.succeeds()
    worth = re.search(
        r"Held-out text \(([\d,]+) bytes\), bytes per token.*\n"
        r"  ([\d.]+) new vocabulary\n  ([\d.]+) models.117M\n",
        done.out,
    )
    assert 1500 < int(worth[1].replace(",", "")) < 2500
    assert float(worth[2]) > float(worth[3]) > 1  # 400 tokens instead of 300
    model = ModelFolder(toolkit.root / "models" / "new")
    assert model.tokenizer().special == {"<|endoftext|>": 398, "<|poem|>": 399}
    assert model.weights()["model/wte"].shape == (400, 128)


def test_another_models_weights_stay_under_a_new_vocabulary(toolkit: Toolkit) -> None:
    (toolkit.root / "de.txt").write_text("Der Müller sieht den Fluss. " * 1000, encoding="utf-8")
    template = SavedTemplate("Q: {question}\nA: {answer}", False)
    templates.save(toolkit.root / "models" / "117M", template)
    done = toolkit.run(f"{NEW} --from 117M --dataset de.txt --n_vocab 275 --workers 1")
    done.succeeds()
    assert re.search(r"  [\d.]+ models.117M\n", done.out)
    old = ModelFolder(toolkit.root / "models" / "117M")
    new = ModelFolder(toolkit.root / "models" / "new")
    assert (new.hparams.n_vocab, new.hparams.n_embd) == (275, old.hparams.n_embd)
    assert templates.load(new.path) == template
    before, after = old.weights(), new.weights()
    assert [name for name in after if not np.array_equal(before[name], after[name])] == [
        "model/wte"
    ]
    token = new.tokenizer().encode("Der Müller")[-1]
    spelled = old.tokenizer().encode(new.tokenizer().decode([token]))
    assert len(spelled) > 1
    np.testing.assert_allclose(
        after["model/wte"][token], before["model/wte"][spelled].mean(axis=0), rtol=1e-5
    )


def test_tokens_are_added_and_the_model_is_trained_with_them(
    toolkit: Toolkit,
) -> None:
    done = toolkit.run(f"{NEW} --from 117M --add_tokens '<|poem|>' '<|стих|>'").succeeds()
    assert "<|poem|> is token 300\n<|стих|> is token 301\n" in done.out
    folder = toolkit.root / "models" / "new"
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL_FILES)
    assert json.loads((folder / "hparams.json").read_text())["n_vocab"] == 302
    old, new = ModelFolder(toolkit.root / "models" / "117M"), ModelFolder(folder)
    assert (folder / "vocab.bpe").read_bytes() == (old.path / "vocab.bpe").read_bytes()
    wte = new.weights()["model/wte"]
    np.testing.assert_array_equal(wte[:300], old.weights()["model/wte"])
    assert np.all(np.abs(wte[300:]).max(axis=1) > 0)
    (toolkit.root / "poems.txt").write_text("<|poem|>A rose. <|стих|>Роза.\n" * 40, "utf-8")
    toolkit.run("python src/encode.py poems.txt poems.npz --model_name new").succeeds()
    tokens = np.load(toolkit.root / "poems.npz")["arr_0"]
    assert (np.count_nonzero(tokens == 300), np.count_nonzero(tokens == 301)) == (40, 40)
    done = toolkit.run(
        "python src/train.py --dataset poems.npz --model_name new --run_name poems --max_steps 2"
    )
    assert done.code == 0, done
    done = toolkit.run(f"{NEW}er --from poems --add_tokens '<|song|>'").succeeds()  # a run
    assert "<|song|> is token 302\n" in done.out


def test_an_invalid_new_model_is_an_error(toolkit: Toolkit, refuses: Refuses) -> None:  # noqa: F811
    (toolkit.root / "blank.txt").write_text(" \n\t\n \n" * 100)
    with_tokens = f"{NEW} --from 117M --add_tokens"
    refuses(
        {
            f"{NEW} --dataset blank.txt": r"^blank\.txt .*no text",
            f"{with_tokens} poem": r"'poem'.* <\|\w+\|>",
            f"{with_tokens} '<|endoftext|>'": r"<\|endoftext\|>.* already",
            f"{with_tokens} '<|a|>' '<|a|>'": r"<\|a\|>.* already",
            f"{NEW} --from gone --dataset text.txt": "There is no model 'gone'",
            f"{NEW} --dataset text.txt --min_frequency 0": "--min_frequency must be .*1, not 0",
            f"{NEW} --dataset text.txt --n_vocab 257 --special_tokens '<|a|>'": "make 258",
        }
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("", "give --dataset TEXT to learn a vocabulary, or --from MODEL --add_tokens"),
        ("--dataset text.txt --from 117M --add_tokens '<|a|>'", "give --dataset TEXT"),
        ("--add_tokens '<|a|>'", "--add_tokens needs --from MODEL"),
        ("--from 117M --add_tokens '<|a|>' --n_vocab 500", "--add_tokens keeps the vocabulary"),
        ("--from 117M --dataset text.txt --n_embd 64", "--from takes the sizes of that model"),
    ],
)
def test_flags_that_contradict_each_other_are_a_usage_error(
    toolkit: Toolkit, flags: str, sentence: str
) -> None:
    toolkit.run(f"{NEW} {flags}").says(2, re.escape(sentence))
    assert not (toolkit.root / "models" / "new").exists()
