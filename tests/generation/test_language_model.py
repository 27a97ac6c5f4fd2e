"""A loaded model writes as many samples as asked for, the same ones whatever the batch size."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new import write_model_folder
from gpt2.errors import UserError
from gpt2.generation.engine import TensorFlowEngine
from gpt2.generation.generate import generate
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.tokenizer import ENDOFTEXT, Tokenizer, train_vocabulary

HPARAMS = HParams(n_vocab=270, n_ctx=16, n_embd=8, n_head=2, n_layer=1)
TEXT = "the cat and the hat and the bat, then the cat again and again"
SETTINGS = SamplingSettings(temperature=0.9)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    return {
        name: random.standard_normal(shape, np.float32) * np.float32(0.3)
        for name, shape in HPARAMS.tensor_shapes().items()
    }


@pytest.fixture(scope="module")
def language_model(weights: dict[str, np.ndarray]) -> LanguageModel:
    tokenizer = Tokenizer(*train_vocabulary([TEXT], HPARAMS.n_vocab))
    return LanguageModel(TensorFlowEngine(weights, HPARAMS), tokenizer)


@pytest.mark.parametrize("nsamples", range(6))
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_there_are_as_many_samples_as_asked_for_whatever_the_batch_size(
    language_model: LanguageModel, nsamples: int, batch_size: int
) -> None:
    texts = list(language_model.samples([5], nsamples, 6, SETTINGS, seed=1, batch_size=batch_size))
    one_by_one = [
        language_model.tokenizer.decode(
            generate(language_model.engine, [[5]], 6, SETTINGS, 1, first_sample=number)[0].tolist()
        )
        for number in range(nsamples)
    ]
    assert texts == one_by_one


@pytest.mark.parametrize("batch_size", [1, 4])
def test_samples_without_a_number_have_no_end(
    language_model: LanguageModel, batch_size: int
) -> None:
    endless = language_model.samples([5], None, 3, SETTINGS, seed=1, batch_size=batch_size)
    counted = language_model.samples([5], 11, 3, SETTINGS, seed=1)
    assert list(islice(endless, 11)) == list(counted)


def test_samples_go_on_counting_from_the_first(language_model: LanguageModel) -> None:
    all_of_them = list(language_model.samples([5], 5, 6, SETTINGS, seed=1))
    later = language_model.samples([5], 3, 6, SETTINGS, seed=1, first_sample=2, batch_size=2)
    assert list(later) == all_of_them[2:]
    assert len(set(all_of_them)) == 5


def test_a_text_without_a_prompt_begins_after_endoftext_or_the_last_token(
    language_model: LanguageModel,
) -> None:
    vocabulary = language_model.tokenizer.vocabulary
    assert language_model.start == vocabulary[ENDOFTEXT]
    ordinary = {token: number for token, number in vocabulary.items() if token != ENDOFTEXT}
    without = LanguageModel(language_model.engine, Tokenizer(ordinary, []))
    assert without.start == 269
    first = LanguageModel(language_model.engine, Tokenizer({**ordinary, ENDOFTEXT: 0}, []))
    assert first.start == 0


def test_a_prompt_that_does_not_fit_is_refused(language_model: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"prompt of 12 tokens .* at most 5 fits"):
        list(language_model.samples([5] * 12, 1, 6, SETTINGS, seed=1))


def test_a_loaded_folder_writes_what_its_weights_write(
    tmp_path: Path, language_model: LanguageModel, weights: dict[str, np.ndarray]
) -> None:
    tokenizer = language_model.tokenizer
    write_model_folder(tmp_path / "small", HPARAMS, tokenizer.vocabulary, tokenizer.merges, weights)
    loaded = LanguageModel.load(ModelFolder(tmp_path / "small"))
    assert loaded.hparams == HPARAMS
    prompt = tokenizer.encode("the cat")
    assert loaded.tokenizer.encode("the cat") == prompt
    texts = list(loaded.samples(prompt, 3, 5, SETTINGS, seed=2, batch_size=3))
    assert texts == list(language_model.samples(prompt, 3, 5, SETTINGS, seed=2))


def test_a_folder_without_a_vocabulary_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    HPARAMS.save(tmp_path / "hparams.json")
    with pytest.raises(UserError, match=r"encoder\.json is missing"):
        LanguageModel.load(ModelFolder(tmp_path))
