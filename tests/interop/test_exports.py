"""SavedModel and LiteRT, run without this project and compared with PyTorch's numbers."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.generation import litert_conversion
from gpt2.interop.litert import write_litert
from gpt2.interop.saved_model import write_saved_model
from gpt2.interop.weights import PortableModel
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE
from tests.golden_model import Golden

CLIENT = Path(__file__).with_name("saved_model_client.py")
ENDOFTEXT = 7  # of the vocabulary below
NEW = 5  # tokens


@pytest.fixture(scope="module")
def portable(golden: Golden) -> PortableModel:
    """The golden model with a token for each byte, and `<|endoftext|>`."""
    vocabulary = {CHARACTER_OF_BYTE[n]: n for n in range(min(golden.hparams.n_vocab, 256))}
    vocabulary = {token: n for token, n in vocabulary.items() if n != ENDOFTEXT}
    vocabulary["<|endoftext|>"] = ENDOFTEXT
    weights = golden.tensors("weights")
    return PortableModel(golden.hparams, vocabulary, [], weights.__getitem__)


def _greedy(golden: Golden, prompt: list[int], count: int) -> list[int]:
    """Tokens by the reference forward pass, which tests compare with PyTorch."""
    import tensorflow as tf

    from gpt2 import model

    tokens = list(prompt)
    for _ in range(count):
        logits = model.logits(golden.tensors("weights"), golden.hparams, tf.constant([tokens]))
        tokens.append(int(np.argmax(logits[0, -1])))
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def answers(
    golden: Golden, portable: PortableModel, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Answers to requests for each signature, in the order below."""
    folder = tmp_path_factory.mktemp("export") / "1"
    write_saved_model(folder, portable)
    assert {path.name for path in folder.iterdir()} == {
        "saved_model.pb", "fingerprint.pb", "variables", "assets",
    }  # fmt: skip
    assert json.loads((folder / "assets" / "encoder.json").read_text()) == portable.vocabulary
    rows = golden.tokens[0].tolist()
    short = [row[:4] for row in rows]
    padded = [short[0], [*short[1][:2], 0, 0]]
    sampling = {"temperature": 0.0, "top_k": 0, "seed": 1}

    def generate(inputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return {"inputs": {**inputs, "new_tokens": NEW, **sampling, **changes}}

    both = {"tokens": padded, "lengths": [4, 2]}
    return run_client(
        folder,
        {
            "signature_name": "prefill",
            "inputs": {"tokens": rows, "lengths": [len(rows[0])] * len(rows)},
        },
        {"signature_name": "prefill", "inputs": both},
        generate(both),
        generate(both, temperature=0.8, top_k=1, seed=5),
        generate(both, temperature=1.5, seed=5),
        generate(both, temperature=1.5, seed=5),
        generate(both, temperature=1.5, seed=6),
        generate(both, new_tokens=10**6),
        {
            "signature_name": "prefill",
            "inputs": {
                "tokens": [[1] * (golden.hparams.n_ctx + 1)],
                "lengths": [golden.hparams.n_ctx + 1],
            },
        },
        {
            "signature_name": "decode",
            "inputs": {
                "tokens": [rows[0][4], rows[1][2]],
                "lengths": [4, 2],
                "cache": {"answer": 1},
            },
        },
    )


def run_client(folder: Path, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-I", str(CLIENT), str(folder)],
        input="".join(f"{json.dumps(request)}\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_prefill_gives_the_logits_of_the_independent_implementation(
    golden: Golden, answers: list[dict]
) -> None:
    logits = np.array(answers[0]["outputs"]["logits"])
    np.testing.assert_allclose(logits, golden.arrays["logits"][:, -1], atol=1e-4)


def test_a_decode_step_continues_prompts_of_different_lengths(
    golden: Golden, answers: list[dict]
) -> None:
    logits = np.array(answers[-1]["outputs"]["logits"])
    expected = golden.arrays["logits"]
    np.testing.assert_allclose(logits[0], expected[0, 4], atol=1e-4)
    np.testing.assert_allclose(logits[1], expected[1, 2], atol=1e-4)


def test_generate_without_temperature_is_greedy_and_ends_at_endoftext(
    golden: Golden, portable: PortableModel, answers: list[dict]
) -> None:
    found = answers[2]["outputs"]
    rows = golden.tokens[0].tolist()
    token_of = {number: token for token, number in portable.vocabulary.items()}
    byte_of = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
    for row, prompt in enumerate((rows[0][:4], rows[1][:2])):
        expected = _greedy(golden, prompt, NEW)
        end = expected.index(ENDOFTEXT) if ENDOFTEXT in expected else NEW
        assert found["lengths"][row] == end
        assert found["tokens"][row][:end] == expected[:end]
        assert set(found["tokens"][row][end:]) <= {ENDOFTEXT}
        text = bytes(byte_of[token_of[token]] for token in expected[:end])
        assert base64.b64decode(found["text_bytes"][row]["b64"]) == text


def test_sampling_follows_seed_and_top_k(answers: list[dict]) -> None:
    greedy, one_token, first, again, other = (
        answers[place]["outputs"]["tokens"] for place in (2, 3, 4, 5, 6)
    )
    assert one_token == greedy
    assert first == again != other


def test_the_context_window_bounds_every_signature(golden: Golden, answers: list[dict]) -> None:
    assert len(answers[7]["outputs"]["tokens"][0]) == golden.hparams.n_ctx - 4
    assert f"context window of {golden.hparams.n_ctx}" in answers[8]["error"]


def test_an_existing_folder_is_replaced_only_if_it_is_an_export(
    portable: PortableModel, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="out cannot be written"):
            write_saved_model(tmp_path / "out", portable, overwrite)
        with pytest.raises(UserError, match="out cannot be written"):
            write_litert(tmp_path / "out", portable, "none", overwrite)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_full_disk_and_a_name_that_tensorflow_cannot_write_leave_nothing(
    portable: PortableModel, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def read(name: str) -> np.ndarray:  # called when the rest has been written
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        return portable.read(name)

    try:
        with pytest.raises(UserError, match=r"out cannot be written: .* free disk space"):
            write_saved_model(tmp_path / "out", dataclasses.replace(portable, read=read))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(UserError, match="name in UTF-8"):
        write_saved_model(tmp_path / os.fsdecode(b"\xff"), portable)
    assert list(tmp_path.iterdir()) == []


# --- LiteRT ---


def run_litert(folder: Path, tokens: list[int]) -> np.ndarray:
    """Logits of the next token, by the steps in the folder's README: [V]."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    described = json.loads((folder / "model.json").read_text())
    heads = described["hparams"]["n_head"]

    def call(program: dict[str, Any], *inputs: np.ndarray) -> list[np.ndarray]:
        run = interpreter(str(folder / program["file"]))
        details = run.get_input_details()
        assert len(details) == len(program["inputs"])
        for detail, values in zip(details, inputs, strict=True):
            assert list(values.shape[1:]) == program["inputs"][0][1:]
            run.resize_tensor_input(detail["index"], values.shape)
        run.allocate_tensors()
        for detail, values in zip(details, inputs, strict=True):
            run.set_tensor(detail["index"], values)
        run.invoke()
        outputs = [run.get_tensor(detail["index"]) for detail in run.get_output_details()]
        assert [list(each.shape[1:]) for each in outputs] == [o[1:] for o in program["outputs"]]
        return outputs

    def attend(qkv: np.ndarray) -> np.ndarray:
        query, key, value = qkv.reshape(len(tokens), 3, heads, -1).transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])  # [H, T, T]
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ value).transpose(1, 0, 2).reshape(len(tokens), -1).astype(np.float32)

    first, *rest = described["programs"]
    layers = [program for program in rest if not program["file"].startswith("head")]
    x = np.load(folder / "tokens.npy")[tokens] + np.load(folder / "positions.npy")[: len(tokens)]
    (qkv,) = call(first, x)
    for program in layers:
        x, *qkv_next = call(program, x, attend(qkv))
        qkv = qkv_next[0] if qkv_next else qkv
    return np.concatenate([call(head, x[-1:])[0][0] for head in rest if head not in layers])


@pytest.mark.parametrize(("quantize", "error"), [("none", 1e-4), ("int8", 0.2)])
def test_the_litert_programs_give_those_logits_by_the_steps_of_their_readme(
    golden: Golden,
    portable: PortableModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantize: str,
    error: float,
) -> None:
    monkeypatch.setattr(litert_conversion, "HEAD_ROWS", 45)  # several parts of the head
    write_litert(tmp_path / "out", portable, quantize)
    row = golden.tokens[0][0].tolist()
    logits = run_litert(tmp_path / "out", row)
    expected = golden.arrays["logits"][0, -1]
    np.testing.assert_allclose(logits, expected, atol=error * np.abs(expected).max())
    write_litert(tmp_path / "out", portable, quantize, overwrite=True)
