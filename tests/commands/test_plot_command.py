"""plot.py as a user calls it: pictures of a run and a model, or a sentence why there are none."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from tests.commands.toolkit_copy import Done, Home, Toolkit

pytest.importorskip("matplotlib")
PLOT = "python src/plot.py"
TEXT = "Wörter 中 \U0001f600 and words"


@pytest.fixture(scope="module")
def trained(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    """A toolkit with a run of four steps, validated and sampled from."""
    toolkit = Toolkit(tmp_path_factory.mktemp("plots") / "toolkit")
    shutil.copytree(home.toolkit.root / "models", toolkit.root / "models")
    shutil.copy(home.toolkit.root / "text.npz", toolkit.root)
    toolkit.run(
        "python src/train.py --dataset text.npz --max_steps 4 --val_every 2 --val_split 0.2"
        " --val_batch_count 2 --sample_every 2 --sample_length 40 --seed 3"
    )
    assert (toolkit.root / "checkpoint" / "run1" / "history.jsonl").is_file()
    return toolkit


def test_training_draws_runs_without_tensorflow(trained: Toolkit, no_tensorflow: str) -> None:
    done = trained.run(f"{no_tensorflow} {PLOT} training --run run1,checkpoint/run1 --out t.svg")
    assert done.succeeds().out == "Wrote t.svg\n"
    assert ElementTree.parse(trained.root / "t.svg").getroot().tag.endswith("svg")
    done = trained.run(f"{no_tensorflow} {PLOT} training --theme dark")
    assert done.succeeds().out == "Wrote training.png\n"
    assert (trained.root / "training.png").read_bytes().startswith(b"\x89PNG")


def test_attention_draws_a_text_and_keeps_the_weights(trained: Toolkit) -> None:
    done = trained.run(f"{PLOT} attention --text '{TEXT}' --model_name run1 --out a.png --head 1")
    assert done.succeeds().out == "Wrote a.png\nThe values are in a.npz\n"
    assert (trained.root / "a.png").read_bytes().startswith(b"\x89PNG")
    with np.load(trained.root / "a.npz", allow_pickle=False) as values:
        attention, tokens, labels = values["attention"], values["tokens"], values["labels"]
    length = len(tokens)
    assert attention.shape == (1, 2, length, length) and labels.shape == (length,)
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)
    assert (np.triu(attention, 1) == 0).all()
    assert "\\x" in "".join(labels) and "and" in "".join(labels)


def test_a_text_longer_than_the_window_is_shown_by_its_end(trained: Toolkit) -> None:
    (trained.root / "long.txt").write_text("words and numbers 1 2 3\n" * 700, encoding="utf-8")
    done = trained.run(f"{PLOT} attention --file long.txt --model_name run1 --out long.svg")
    said = done.succeeds().out
    count = int(said.split()[3].replace(",", ""))
    assert count > 5000
    assert said.startswith(
        f"The text has {count:,} tokens and the model looks at 32: the last 32 are shown.\n"
    )
    with np.load(trained.root / "long.npz") as values:
        assert values["attention"].shape == (1, 2, 32, 32)


def test_probabilities_draws_the_last_steps(trained: Toolkit) -> None:
    rules = "--temperature 0.7 --top_k 5 --top_p 0.9"
    done = trained.run(f"{PLOT} probabilities --text '{TEXT}' --model_name run1 --steps 3 {rules}")
    assert done.succeeds().out.startswith("Wrote probabilities.png\nOf ")
    assert done.out.endswith(" steps the last 3 are shown.\n")
    assert (trained.root / "probabilities.png").read_bytes().startswith(b"\x89PNG")


def test_surprise_draws_a_text(trained: Toolkit) -> None:
    done = trained.run(f"{PLOT} surprise --text '{TEXT}' --model_name run1 --out s.png")
    assert done.succeeds().out == "Wrote s.png\n"
    assert (trained.root / "s.png").read_bytes().startswith(b"\x89PNG")


def test_diversity_draws_a_grid_without_tensorflow(trained: Toolkit, no_tensorflow: str) -> None:
    row = {"settings": {"temperature": 0.7}, "metrics": {"distinct_1": 0.5, "copied_8": None}}
    (trained.root / "grid.json").write_text(json.dumps({"rows": [row]}))
    done = trained.run(f"{no_tensorflow} {PLOT} diversity grid.json --out d.svg")
    assert done.succeeds().out == "Wrote d.svg\n"
    assert ElementTree.parse(trained.root / "d.svg").getroot().tag.endswith("svg")


def test_a_report_is_one_page_with_all_of_the_run(trained: Toolkit) -> None:
    sample = trained.root / "samples" / "run1" / "samples-900"
    words = "<script>alert(1)</script> \U0001f600 and \x00 words"
    sample.write_text(f"======== SAMPLE 1 ========\n{words}\n", encoding="utf-8")
    done = trained.run(f"{PLOT} report")
    sample.unlink()
    assert done.succeeds().out == "Wrote run1.html\n"
    page = (trained.root / "run1.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; \U0001f600" in page
    for said in ("samples-900", "samples-4", "--batch_size", "text.npz", "sha256", "Perplexity"):
        assert said in page, said
    assert page.count("<picture>") == 3  # no grid was named


def test_a_report_of_a_run_that_has_only_begun_says_what_is_not_there(trained: Toolkit) -> None:
    shutil.copytree(trained.root / "models" / "117M", trained.root / "checkpoint" / "bare")
    trained.run(f"{PLOT} report --run bare --out bare.html").succeeds()
    page = (trained.root / "bare.html").read_text(encoding="utf-8")
    for sentence in ("no history", "no samples yet", "no config.json", "no record of its data"):
        assert sentence in page, sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("training --run nowhere", "There is no run 'nowhere' in .*checkpoint"),
        ("training --run models/117M", r"history\.jsonl is missing, which src/train\.py writes"),
        ("training --run ,", "--run should name a run"),
        ("training --out picture.jpg", r"picture\.jpg should end in \.png or \.svg"),
        ("training --theme pink", "no theme 'pink'"),
        ("training --out nowhere/a.png", "cannot be written"),
        ("attention", "Give a text with --text 'WORDS' or with --file FILE"),
        ("attention --text a --file text.npz", "one of the two"),
        ("attention --file nowhere.txt", r"nowhere\.txt cannot be read"),
        ("attention --file empty.txt", r"empty\.txt holds no text"),
        ("attention --text word --model_name nothing", "no model 'nothing'"),
        ("attention --text word --layer 1", "layer should be a whole number from 0 to 0, not 1"),
        ("attention --text word --head 2", "head should be a whole number from 0 to 1, not 2"),
        ("attention --text word --head one", "head should be a whole number"),
        ("attention --text a --token 2", "token should be a whole number from 1 to 1, not 2"),
        ("surprise --text a --file text.npz", "one of the two"),
        ("diversity empty.txt", r"empty\.txt is not valid JSON"),
        ("report --run nowhere", "There is no run 'nowhere'"),
        ("report --out run1.pdf", r"run1\.pdf should end in \.html"),
        ("report --grid nowhere.json", r"nowhere\.json cannot be read"),
        ("probabilities --text a --steps 0", "steps should be a whole number from 1 to 60, not 0"),
        ("probabilities --text a --top_p 2", "top_p should be a number from 0 to 1, not 2"),
        ("probabilities --text a --top_k 9999", "top_k is 9999, but the vocabulary has only 300"),
        ("probabilities --text a --likeliest 0", "likeliest should be a whole number"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_sentence(
    trained: Toolkit, no_tensorflow: str, line: str, sentence: str
) -> None:
    (trained.root / "empty.txt").write_text("")
    named = "--text" in line or line.startswith("attention")
    name = "--model_name run1" if named and "--model_name" not in line else ""
    before = trained.contents()
    trained.run(f"{no_tensorflow} {PLOT} {line} {name}").says(1, sentence)
    assert trained.contents() == before


def test_tokens_of_another_vocabulary_are_refused(trained: Toolkit, no_tensorflow: str) -> None:
    folder = trained.root / "models" / "mixed"
    shutil.copytree(trained.root / "models" / "117M", folder)
    hparams = json.loads((folder / "hparams.json").read_text())
    (folder / "hparams.json").write_text(json.dumps(hparams | {"n_vocab": 40}))
    done = trained.run(f"{no_tensorflow} {PLOT} attention --text zzz --model_name mixed")
    done.says(1, "vocabulary is that of another model")


def test_without_matplotlib_it_is_said_what_to_install(
    trained: Toolkit, no_tensorflow: str, tmp_path: Path
) -> None:
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not here')")
    done: Done = trained.run(f"PYTHONPATH={tmp_path} {PLOT} training")
    done.says(1, "pip install matplotlib")
