"""docs/how-it-works.md and its programs: the page shows them, and they compute what gpt2 does."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gpt2.generation.sampling import SamplingSettings
from gpt2.generation.sampling import distribution as our_distribution
from gpt2.hparams import HParams
from gpt2.stories.grammar import write_stories
from gpt2.tokenizer import Tokenizer, train_vocabulary
from tests.golden_model import Golden

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "how_it_works"
PAGE = ROOT / "docs" / "how-it-works.md"
FILES = sorted(FOLDER.glob("*.py"))
STORIES = "\n".join(write_stories(200, seed=3)).replace("<|", "").replace("|>", "")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> callable:
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_page_shows_the_program_and_its_output(file: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    program = file.read_text(encoding="utf-8")
    assert len(program.splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, "-X", "utf8", file], capture_output=True, encoding="utf-8", check=True
    )
    assert f"```python\n{program}```\n\n```\n{done.stdout}```\n" in page


def test_every_exercise_has_an_answer() -> None:
    exercises, answers = PAGE.read_text(encoding="utf-8").split("\n## Answers\n")
    parts = [part.split("\n## ")[0] for part in exercises.split("**Exercises**")[1:]]
    lines = [line for part in parts for line in part.splitlines()]
    numbers = [line.split(".")[0] for line in lines if line[:1].isdigit()]
    assert numbers == [line.split(".")[0] for line in answers.splitlines() if line[:1].isdigit()]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


# --- tokenizer ---


@pytest.mark.parametrize(
    "text", [STORIES, "aaaa aaa aa a\n\n  aaaa aaa", "don't  we'll it's 12 3!"]
)
def test_byte_pairs_learns_the_merges_of_gpt2(load: callable, text: str) -> None:
    _, merges = train_vocabulary([text], 257 + 150)
    assert load("byte_pairs").learn(text, 150) == merges


def test_byte_pairs_encodes_as_gpt2_does(load: callable) -> None:
    byte_pairs = load("byte_pairs")
    vocabulary, merges = train_vocabulary([STORIES], 257 + 200)
    names = {number: token for token, number in vocabulary.items()}
    for text in (STORIES[:3000], "No goat, 3 hares -- it's  odd!\n\n x", "aaaaaaa", ""):
        ids = Tokenizer(vocabulary, merges).encode(text)
        assert byte_pairs.encode(text, merges) == [names[number] for number in ids]


# --- the model ---


def test_the_transformer_computes_the_logits_of_gpt2(load: callable, golden: Golden) -> None:
    from gpt2 import model

    weights, hparams = golden.tensors("weights"), golden.hparams
    tokens = golden.tokens[0][:1, :-1]
    wanted = model.logits(weights, hparams, tokens.astype(np.int32)).numpy()[0]
    found = load("transformer").logits(weights, hparams.n_layer, hparams.n_head, tokens[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(wanted).max() > 0.1


def test_the_answers_count_the_parameters_of_124m() -> None:
    answers = PAGE.read_text(encoding="utf-8").split("\n## Answers\n")[1]
    shapes = HParams().tensor_shapes()
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    layer = sum(size for name, size in sizes.items() if name.startswith("model/h0/"))
    layers = sum(sizes.values()) - sizes["model/wte"] - sizes["model/wpe"]
    numbers = (sizes["model/wte"], sizes["model/wpe"], layer, layers, sum(sizes.values()))
    assert [f"{number:,}" for number in numbers if f"{number:,}" not in answers] == []


# --- training ---


def test_the_gradient_is_that_of_tensorflow(load: callable) -> None:
    import tensorflow as tf

    random = np.random.default_rng(5)
    logits, targets = random.standard_normal((7, 5)), random.integers(0, 5, 7)
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        wanted = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, variable))
    loss, gradient = load("training").loss_and_gradient(logits, targets)
    assert loss == pytest.approx(wanted.numpy())
    np.testing.assert_allclose(gradient, tape.gradient(wanted, variable).numpy(), atol=1e-12)


def test_adam_takes_the_steps_of_gpt2s_adam(load: callable) -> None:
    import tensorflow as tf

    from gpt2.training.optimizers import Adam
    from gpt2.training.settings import TrainerSettings

    random = np.random.default_rng(6)
    weights = random.standard_normal((3, 4))
    variable = tf.Variable(weights, dtype=tf.float32)
    ours, theirs = load("training").Adam(weights.shape), Adam({"w": variable}, TrainerSettings())
    for _ in range(5):
        gradient = random.standard_normal(weights.shape)
        ours.update(weights, gradient, 0.01)
        theirs.apply([tf.constant(gradient, tf.float32)], tf.constant(0.01))
    np.testing.assert_allclose(weights, variable.numpy(), rtol=1e-4, atol=1e-6)


def test_a_trained_bigram_table_holds_the_frequencies_of_the_pairs(load: callable) -> None:
    training = load("training")
    tokens = np.array([0, 1, 0, 2, 0, 1, 0, 1, 2, 2, 1, 0])
    table, losses = training.train(tokens, 3, 2000)
    counts = np.zeros((3, 3))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    shares = counts / counts.sum(1, keepdims=True)
    probabilities = np.exp(table) / np.exp(table).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, shares, atol=0.01)
    assert losses[0] == pytest.approx(np.log(3))


# --- sampling ---


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.6},
        {"temperature": 1.5, "top_k": 9, "top_p": 0.9},
    ],
    ids=str,
)
def test_the_filters_give_the_probabilities_of_gpt2(load: callable, settings: dict) -> None:
    logits = np.random.default_rng(7).standard_normal(40).astype(np.float32) * 3
    tokens, probabilities = our_distribution(logits, SamplingSettings(**settings))
    wanted = np.zeros(len(logits))
    wanted[tokens] = probabilities
    np.testing.assert_allclose(load("sampling").distribution(logits, **settings), wanted, atol=1e-7)


def test_greedy_decoding_gives_the_text_of_gpt2(load: callable, tmp_path: Path) -> None:
    import gpt2
    from tests.generation.model_folders import HPARAMS, small_weights, write_small_model

    model = gpt2.load(write_small_model(tmp_path / "small"), engine="tensorflow")
    prompt = model.encode("the cat")
    logits = load("transformer").logits
    weights = small_weights(7)

    def logits_of(tokens: np.ndarray) -> np.ndarray:
        return logits(weights, HPARAMS.n_layer, HPARAMS.n_head, tokens)

    random = np.random.default_rng(0)
    found = load("sampling").sample(logits_of, list(prompt), 8, random, temperature=0)
    wanted = model.generate("the cat", length=8, temperature=0, ignore_endoftext=True)[0]
    assert model.tokenizer.decode(found) == wanted.text
