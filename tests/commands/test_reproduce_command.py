"""`evaluate reproduce`: measured beside published, with a small model in the place of 124M."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2.commands.evaluate import reproduce
from gpt2.evaluation.recipes import RECIPES
from gpt2.hparams import HParams
from tests.commands.toolkit_copy import Home, Toolkit

PASSAGE = '{"text": "The with statement is used to wrap the execution of a block"}\n'


@pytest.fixture
def data(home: Home, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "wikitext-2-raw").mkdir(parents=True)
    text = (home.toolkit.root / "text.txt").read_text("utf-8")[:500]
    (folder / "wikitext-2-raw" / "wiki.test.raw").write_text(text, "utf-8")
    (folder / "lambada_test.jsonl").write_text(PASSAGE * 2)
    (folder / "enwik8").write_text(text, "utf-8")
    return folder


@pytest.fixture
def released(home: Home, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model whose shape is taken for that of 124M."""
    path = home.toolkit.root / "models" / "117M"
    hparams = HParams.load(path / "hparams.json")
    monkeypatch.setattr(reproduce, "RELEASED", {(hparams.n_layer, hparams.n_embd): "124M"})
    return str(path)


def _run(*words: str) -> None:
    reproduce.COMMAND.run(reproduce.COMMAND.parse(words, "evaluate reproduce"))


def test_measured_values_stand_beside_the_published_ones(
    home: Home,
    data: Path,
    released: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run(released, "--data", str(data), "--json", str(tmp_path / "out.json"))
    printed, notices = capsys.readouterr()
    saved = json.loads((tmp_path / "out.json").read_text())
    by_metric = {(row["recipe"], row["metric"]): row for row in saved["results"]}
    wikitext2 = by_metric["wikitext2", "perplexity"]
    assert (wikitext2["others"], wikitext2["paper"]) == (29.94, 29.41)
    assert wikitext2["difference"] == pytest.approx(wikitext2["measured"] - 29.94)
    assert f"{wikitext2['measured']:,.2f}" in printed
    assert by_metric["wikitext103", "perplexity"]["others"] == 37.37
    assert by_metric["enwik8", "bits_per_byte"]["paper"] == 1.16
    last_word = by_metric["lambada", "last_word_accuracy"]
    assert (last_word["others"], last_word["paper"]) == (32.56, None)
    assert by_metric["lambada", "last_token_accuracy_no_stop_words"]["paper"] == 45.99
    assert 0 <= last_word["measured"] <= 100
    assert "not OpenAI's weights" in saved["weights"]
    for name, source in (("ptb", "simple-examples.tgz"), ("text8", "text8.zip"), ("1bw", "lm-be")):
        assert any(name in line and source in line for line in notices.splitlines())
    # The same numbers as `evaluate perplexity --recipe`, which the tests of recipes check.
    test_set = data / "wikitext-2-raw" / "wiki.test.raw"
    toolkit: Toolkit = home.toolkit
    alone = toolkit.run(
        f"python src/evaluate.py perplexity --model_name {released} --dataset {test_set} "
        f"--recipe wikitext2 --json {tmp_path}/alone.json"
    )
    alone.succeeds()
    perplexity = json.loads((tmp_path / "alone.json").read_text())["perplexity"]
    assert wikitext2["measured"] == pytest.approx(perplexity)


def test_a_recipe_that_fails_leaves_the_others(
    data: Path, released: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "cbtest_CN_test_2500ex.txt").write_text("not a question\n")
    with pytest.raises(SystemExit) as ended:
        _run(released, "--data", str(data), "--recipes", "cbt-cn", "enwik8", "--json",
             str(tmp_path / "out.json"))  # fmt: skip
    assert ended.value.code == 1
    assert "cbtest_CN_test_2500ex.txt line 1" in capsys.readouterr().err
    (row,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert row["recipe"] == "enwik8"


def test_what_cannot_be_compared_is_reported_without_tensorflow(
    home: Home, data: Path, no_tensorflow: str
) -> None:
    reproduce_117m = f"{no_tensorflow} python src/evaluate.py reproduce 117M"
    done = home.toolkit.run(f"{reproduce_117m} --data {data}")
    done.says(1, r"117M: .*no published results.*124M, 355M, 774M, 1558M")
    done = home.toolkit.run(f"{reproduce_117m} --recipes squad")
    done.says(1, "recipe .*wikitext2.*'squad'")


def test_no_test_set_at_all_is_an_error_that_says_where_to_get_one(
    released: str, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=r"no test set.*wiki.test.raw.*wikitext-2-raw"):
        _run(released, "--data", str(tmp_path))


def test_every_recipe_names_its_file_and_has_a_target_for_each_release() -> None:
    for recipe in RECIPES.values():
        assert recipe.files and recipe.obtained
        for size in ("124M", "355M", "774M", "1558M"):
            targets = recipe.targets(size)
            assert targets and all(target.expected > 0 for target in targets)
        assert recipe.targets(None) == []
