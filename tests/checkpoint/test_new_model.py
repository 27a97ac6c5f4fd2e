"""Another vocabulary for a model: what its embeddings begin as, and what that is worth."""

from __future__ import annotations

import pydoc_data.topics
import random

import numpy as np
import pytest

from gpt2.checkpoint.new_model import with_vocabulary
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENDOFTEXT, Tokenizer, train_vocabulary, with_tokens
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE

TOKENS = ["a", "b", "Ã", "¤", "ab", ENDOFTEXT]
OLD = Tokenizer({token: number for number, token in enumerate(TOKENS)}, [("a", "b")])
WTE = np.array([[1, 0], [2, 0], [4, 0], [8, 2], [16, 0], [32, 0], [64, 0]], np.float32)
WEIGHTS = {"model/wte": WTE, "model/wpe": np.ones((3, 2), np.float32)}


def test_a_new_token_begins_as_the_mean_of_those_that_spell_it():
    # abä is spelled ab Ã ¤, a piece of a character by its byte, and what was known stays.
    new = {"abÃ¤": 0, "ba": 1, "¤": 2, "ab": 3, ENDOFTEXT: 4}
    weights = with_vocabulary(WEIGHTS, OLD, new, 5)
    expected = [[28 / 3, 2 / 3], [1.5, 0], [8, 2], [16, 0], [32, 0]]
    np.testing.assert_allclose(weights["model/wte"], expected, rtol=1e-6)
    assert weights["model/wte"].dtype == np.float32
    assert weights["model/wpe"] is WEIGHTS["model/wpe"]
    assert WEIGHTS["model/wte"] is WTE  # of the old model nothing has changed


def test_adding_tokens_leaves_all_others_as_they_were():
    vocabulary = with_tokens(OLD.vocabulary, ["<|ab|>"])
    every_letter = Tokenizer({**vocabulary, "<": 7, "|": 8, ">": 9}, OLD.merges)
    wte = np.arange(20, dtype=np.float32).reshape(10, 2)
    grown = with_vocabulary(
        {"model/wte": wte}, every_letter, with_tokens(every_letter.vocabulary, ["<|ba|>"]), 11
    )["model/wte"]
    np.testing.assert_array_equal(grown[:10], wte)
    spelled = [7, 8, 1, 0, 8, 9]  # < | b a | >
    np.testing.assert_allclose(grown[10], wte[spelled].mean(axis=0))


def test_an_embedding_without_a_token_stays_as_it_is():
    weights = with_vocabulary(WEIGHTS, OLD, {"a": 0, "b": 8}, 9)
    np.testing.assert_array_equal(weights["model/wte"][:7, 0], [1, 2, 4, 8, 16, 32, 64])
    np.testing.assert_array_equal(weights["model/wte"][7:], [[0, 0], [2, 0]])


def test_a_token_that_cannot_be_spelled_is_named():
    with pytest.raises(UserError, match="no token 'c', which the word 'bc' needs"):
        with_vocabulary(WEIGHTS, OLD, {"a": 0, "bc": 1}, 2)


def test_more_tokens_than_embeddings_are_refused():
    with pytest.raises(UserError, match="token ids up to 5, but the model has 4 embeddings"):
        with_vocabulary({"model/wte": WTE[:4]}, OLD, {"a": 0}, 1)


def test_a_thousand_embeddings_equal_those_computed_one_by_one():
    generator = np.random.default_rng(1)
    old = Tokenizer(*train_vocabulary(["the old words and the older ones " * 3], 280))
    text = "".join(pydoc_data.topics.topics.values())[:300_000]
    vocabulary, _ = train_vocabulary([text], 5000)
    wte = generator.standard_normal((len(old.vocabulary), 3), np.float32)
    embeddings = with_vocabulary({"model/wte": wte}, old, vocabulary, len(vocabulary))["model/wte"]
    byte_of = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
    for token, number in vocabulary.items():
        try:
            text = bytes(byte_of[character] for character in token).decode()
        except UnicodeDecodeError:
            continue  # a part of a character, which has no text
        ids = [old.vocabulary[token]] if token in old.vocabulary else old.encode(text)
        np.testing.assert_allclose(embeddings[number], wte[ids].mean(axis=0), atol=1e-6)


def german(seed: int, sentences: int) -> str:
    """Small talk about a village, of another language than the model's."""
    draw = random.Random(seed)
    who = [
        "Der Müller",
        "Die Bäuerin",
        "Ein alter Fischer",
        "Das Mädchen",
        "Der Wirt",
        "Unser Hund",
    ]
    does = ["sieht", "sucht", "findet", "ruft", "zeichnet", "vergisst", "begrüßt", "erwartet"]
    whom = ["den Fluss", "die Brücke", "das große Rad", "einen Freund", "die Kinder", "nichts"]
    when = ["am Morgen", "vor dem Regen", "im Winter", "nach der Arbeit", "wie immer", "zu spät"]
    clause = ["und lacht", "aber schweigt", "weil es dunkel wird", "und geht nach Hause", "allein"]
    return "".join(
        f"{draw.choice(who)} {draw.choice(does)} {draw.choice(when)} {draw.choice(whom)}, "
        f"{draw.choice(clause)}.{draw.choice(['', ' ', chr(10)])} "
        for _ in range(sentences)
    )


@pytest.mark.slow
def test_another_language_begins_lower_and_is_learnt_faster_from_a_trained_model():
    from gpt2.data.samplers import StreamSampler
    from gpt2.model import initial_weights
    from gpt2.training.settings import TrainerSettings
    from gpt2.training.trainer import Trainer

    hparams = HParams(n_vocab=512, n_ctx=48, n_embd=48, n_head=4, n_layer=2)

    def trained(weights: dict, hparams: HParams, tokenizer: Tokenizer, text: str, steps: int):
        """The trainer after so many steps, and its losses."""
        sampler = StreamSampler([tokenizer.encode_array(text)], hparams.n_ctx, seed=1)
        trainer = Trainer(weights, hparams, TrainerSettings(learning_rate=2e-3), seed=1)
        steps = range(1, steps + 1)
        losses = [trainer.step(step, [sampler.batch(step, 16)]).loss for step in steps]
        return trainer, losses

    english = "".join(pydoc_data.topics.topics.values())[:200_000]
    old = Tokenizer(*train_vocabulary([english], hparams.n_vocab))
    trainer, losses = trained(initial_weights(hparams, 1), hparams, old, english, 150)
    assert losses[-1] < losses[0] - 2  # it has learnt English
    learnt = {name: variable.numpy() for name, variable in trainer.weights.items()}

    text = german(1, 400)
    vocabulary, merges = train_vocabulary([text], 400)
    new = Tokenizer(vocabulary, merges)
    sizes = HParams(len(vocabulary), hparams.n_ctx, hparams.n_embd, hparams.n_head, hparams.n_layer)
    fresh = trained(initial_weights(sizes, 2), sizes, new, text, 40)[1]
    begun = with_vocabulary(learnt, old, vocabulary, sizes.n_vocab)
    from_english = trained(begun, sizes, new, text, 40)[1]
    assert from_english[0] < fresh[0] - 0.2
    for step in (10, 20, 30):
        assert np.mean(from_english[step : step + 10]) < np.mean(fresh[step : step + 10]) - 0.2
