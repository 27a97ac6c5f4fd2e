"""Write `generation.npz`: logits processing and beam searches of transformers.

As in `make_golden.py`, none of the toolkit's code is used. Run by hand; the README describes how,
and the contents of the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from make_golden import HPARAMS, new_model
from transformers import GenerationConfig, GPT2LMHeadModel

OUTPUT = Path(__file__).with_name("generation.npz")
SEED = 20190215
N_VOCAB, CONTEXT = 200, 30

# Each rule alone, then several in the order of `generate`.
RULES = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"bad_words_ids": [[3], [199]]},
    {"bad_words_ids": [["last", 7], ["last", 8, 9], ["last but one", "last", 11], [12]]},
    {"sequence_bias": [[[4], 2.5], [[150], -3.0], [[0], float("-inf")]]},
    {"temperature": 0.4},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 40},
    {"top_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.02},
    {"min_p": 0.3},
    {"typical_p": 0.1},
    {"typical_p": 0.5},
    {"typical_p": 0.95},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 0.6, "min_p": 0.1},
    {"temperature": 1.2, "typical_p": 0.6},
    {"top_k": 30, "top_p": 0.7},
    {"top_p": 0.9, "min_p": 0.1},
    {"top_k": 50, "typical_p": 0.4},
    {"top_p": 0.6, "typical_p": 0.6},
    {"temperature": 1.3, "top_k": 60, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.8},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "bad_words_ids": [["last", 5], [6]]},
    {"sequence_bias": [[["last"], 4.0], [[9], 1.0]], "repetition_penalty": 2.0},
    {"repetition_penalty": 1.5, "temperature": 0.8, "top_k": 25},
    {
        "sequence_bias": [[["last"], 5.0], [[17], -2.0]],
        "repetition_penalty": 1.4,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [["last", 20], [21]],
        "temperature": 0.9,
        "top_k": 80,
        "top_p": 0.95,
        "min_p": 0.02,
        "typical_p": 0.9,
    },
]

BEAM_PROMPTS = [[5], [60, 2, 33], [1, 2, 3, 4, 5, 6], [9, 9]]
BEAM_LENGTH = 9
# (num_beams, num_return_sequences); length penalties; further options.
BEAMS, LENGTH_PENALTIES = [(3, 1), (3, 3), (5, 2), (5, 5)], [0.5, 1.0, 2.0]
BEAM_OPTIONS = [
    {},
    {"min_new_tokens": 5},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
]


def with_context(rule: object, context: list[int]) -> object:
    """Return a rule with "last" and "last but one" replaced by tokens of the context."""
    if isinstance(rule, dict):
        return {name: with_context(value, context) for name, value in rule.items()}
    if isinstance(rule, list):
        return [with_context(value, context) for value in rule]
    return {"last": context[-1], "last but one": context[-2]}.get(rule, rule)


def processed(
    model: GPT2LMHeadModel, rule: dict, context: list[int], logits: np.ndarray, do_sample: bool
) -> np.ndarray:
    """Return the scores after the logits processors of `generate`, float32 [V]."""
    config = GenerationConfig(do_sample=do_sample, **rule)
    config._eos_token_tensor = None
    processors = model._get_logits_processor(config, input_ids_seq_length=len(context))
    scores = processors(torch.tensor([context]), torch.from_numpy(logits[None].copy()))
    return scores[0].numpy()


def sampling_rules(model: GPT2LMHeadModel) -> dict[str, np.ndarray]:
    """Return the results of every rule on flatter and on more peaked logits."""
    random = np.random.RandomState(SEED)
    cases, arrays = [], {"logits": [], "adjusted": [], "scores": []}
    for rule in RULES:
        for spread in (1.0, 3.0):
            # Few different tokens, so that pairs and triples repeat.
            context = random.randint(12, size=CONTEXT).tolist()
            context[-2:] = context[10:12]
            logits = (random.standard_normal(N_VOCAB) * spread).astype(np.float32)
            filled = with_context(rule, context)
            cases.append({"context": context, "rule": filled})
            arrays["logits"].append(logits)
            arrays["adjusted"].append(processed(model, filled, context, logits, False))
            arrays["scores"].append(processed(model, filled, context, logits, True))
    stacked = {name: np.stack(rows) for name, rows in arrays.items()}
    return {"cases": np.array(json.dumps(cases)), **stacked}


def search(model: GPT2LMHeadModel, prompt: list[int], eos: int | None, **options) -> list[dict]:
    """Return the results of a beam search, the best first: new tokens and score of each."""
    pad = HPARAMS["n_vocab"] - 1 if eos is None else eos
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones([1, len(prompt)], dtype=torch.int64),
        do_sample=False,
        early_stopping=False,
        eos_token_id=eos,
        pad_token_id=pad,
        max_new_tokens=BEAM_LENGTH,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    texts = []
    for tokens, score in zip(found.sequences, found.sequences_scores, strict=True):
        new = tokens[len(prompt) :].tolist()
        if eos in new:
            new = new[: new.index(eos) + 1]
        texts.append({"tokens": new, "score": score.item()})
    return texts


def beam_searches(model: GPT2LMHeadModel) -> np.ndarray:
    """Return beam searches for all prompts and options, with an end token that occurs."""
    searches = []
    for prompt in BEAM_PROMPTS:
        # The third token of the best sequence without an end token is a likely end token.
        eos = search(model, prompt, None, num_beams=3)[0]["tokens"][2]
        for num_beams, returned in BEAMS:
            for length_penalty in LENGTH_PENALTIES:
                for more in BEAM_OPTIONS:
                    options = {
                        "num_beams": num_beams,
                        "num_return_sequences": returned,
                        "length_penalty": length_penalty,
                        **more,
                    }
                    texts = search(model, prompt, eos, **options)
                    searches.append(
                        {"prompt": prompt, "eos": eos, "options": options, "texts": texts}
                    )
    return np.array(json.dumps({"length": BEAM_LENGTH, "searches": searches}))


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = new_model().eval()
    arrays = {**sampling_rules(model), "beam_searches": beam_searches(model)}
    np.savez_compressed(OUTPUT, **arrays)
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size:,} bytes")
    searches = json.loads(arrays["beam_searches"].item())["searches"]
    ended = sum(text["tokens"][-1] == found["eos"] for found in searches for text in found["texts"])
    print(
        f"{len(searches)} beam searches, {sum(len(f['texts']) for f in searches)} texts, ", end=""
    )
    print(f"{ended} of which end before their length")


if __name__ == "__main__":
    main()
