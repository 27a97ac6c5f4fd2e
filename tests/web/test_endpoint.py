"""The official client, curl and raw connections get OpenAI's answers, and the samplers' texts."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from gpt2.generation.language_model import LanguageModel
from gpt2.web.settings import RequestLimits
from tests.web.conftest import HPARAMS, Served, serving

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def generated(alone: LanguageModel, prompt, **options) -> list[str]:
    return [completion.text for completion in alone.generate(prompt, **options)]


def test_a_completion_is_that_of_the_samplers_for_its_seed(
    client: openai.OpenAI, alone: LanguageModel
) -> None:
    for prompt in ("the cat", "", "猫 and 🐱", "the hat and " * 40):
        answer = client.completions.create(model="small", prompt=prompt, max_tokens=30, seed=5)
        (expected,) = alone.generate(prompt, length=30, seed=5)
        (choice,) = answer.choices
        assert choice.text == expected.text
        assert choice.finish_reason == {"length": "length"}.get(expected.finish_reason, "stop")
        assert answer.usage.prompt_tokens == len(expected.prompt)
        assert answer.usage.completion_tokens == len(expected.tokens)
        assert answer.model == "small"


def test_sampling_settings_reach_the_sampler(client: openai.OpenAI, alone: LanguageModel) -> None:
    common = {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.2}
    extra = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2, "no_repeat_ngram": 3}
    answer = client.completions.create(
        model="small", prompt="the", max_tokens=25, seed=1, logit_bias={"70": 3, "71": -100},
        stop=["q", "zz"], **common, extra_body=extra,
    )  # fmt: skip
    expected = generated(
        alone, "the", length=25, seed=1, logit_bias={70: 3.0, 71: -100.0}, stop=["q", "zz"],
        **common, **extra,
    )  # fmt: skip
    assert [answer.choices[0].text] == expected


def test_lists_of_prompts_and_n_are_numbered_like_the_samples_of_generate(
    client: openai.OpenAI, alone: LanguageModel
) -> None:
    prompts = ["the cat", "and", "the cat"]
    answer = client.completions.create(model="small", prompt=prompts, n=2, max_tokens=8, seed=3)
    expected = generated(alone, prompts, nsamples=2, length=8, seed=3)
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.usage.prompt_tokens == sum(len(alone.encode(prompt)) for prompt in prompts)
    tokens = [alone.encode(prompt) for prompt in prompts]
    for form in (tokens, tokens[0]):
        answer = client.completions.create(model="small", prompt=form, n=2, max_tokens=8, seed=3)
        assert [choice.text for choice in answer.choices] == expected[: len(answer.choices)]


@pytest.mark.parametrize("options", [{}, {"n": 3, "echo": True}, {"stop": ["a", "the c"]}], ids=str)
def test_a_stream_joins_to_the_whole_answer(client: openai.OpenAI, options: dict) -> None:
    request = {
        "model": "small", "prompt": ["🐱 the", "x"], "max_tokens": 40, "seed": 2, "logprobs": 2,
    } | options  # fmt: skip
    whole = client.completions.create(**request)
    texts, reasons, tokens = {}, {}, {}
    usage = None
    chunks = 0
    for chunk in client.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage
        chunks += 1
        for choice in chunk.choices:
            assert choice.index not in reasons
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            for name, column in choice.logprobs.to_dict().items():
                tokens.setdefault((choice.index, name), []).extend(column)
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    for choice in whole.choices:
        assert texts[choice.index] == choice.text
        assert reasons[choice.index] == choice.finish_reason
        for name, column in choice.logprobs.to_dict().items():
            # Logits are rounded in another order in another batch, and which completions share a
            # decode step depends on time.
            for streamed, value in zip(tokens[choice.index, name], column, strict=True):
                is_number = isinstance(value, float | dict)
                assert streamed == (pytest.approx(value, abs=1e-4) if is_number else value)
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [getattr(usage, name) for name in counts] == [
        getattr(whole.usage, name) for name in counts
    ]
    assert chunks > 10


def test_echo_with_logprobs_scores_the_prompt(client: openai.OpenAI, alone: LanguageModel) -> None:
    """As evaluation harnesses use it: max_tokens 0, and the sum over the prompt's tokens."""
    prompt = "the cat and the hé"
    answer = client.completions.create(
        model="small", prompt=prompt, max_tokens=0, echo=True, logprobs=1
    )
    (choice,) = answer.choices
    ids = alone.encode(prompt)
    expected = []
    for place in range(1, len(ids)):
        logits = alone.logits(ids[:place]).astype(np.float64)
        expected.append(logits[ids[place]] - np.log(np.exp(logits).sum()))
    assert choice.text == prompt
    assert choice.logprobs.token_logprobs[0] is None
    np.testing.assert_allclose(choice.logprobs.token_logprobs[1:], expected, atol=1e-3)
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True):
        if not token.startswith("bytes:"):
            assert prompt[offset:].startswith(token)
    assert any(token.startswith("bytes:\\xc3") for token in choice.logprobs.tokens)


def test_best_of_returns_the_most_probable_completions_per_token(
    client: openai.OpenAI, alone: LanguageModel
) -> None:
    answer = client.completions.create(
        model="small", prompt="the", max_tokens=6, n=2, best_of=8, seed=4
    )
    found = alone.generate("the", nsamples=8, length=6, seed=4)
    best = sorted(found, key=lambda each: -each.logprob / len(each.tokens))[:2]
    assert [choice.text for choice in answer.choices] == [each.text for each in best]
    assert answer.usage.completion_tokens == sum(len(each.tokens) for each in found)


def test_a_prompt_longer_than_the_context_is_refused_or_truncated(
    client: openai.OpenAI, alone: LanguageModel
) -> None:
    prompt = [number % 250 for number in range(HPARAMS.n_ctx + 1)]
    with pytest.raises(openai.BadRequestError, match=r"1,025 tokens.*context window") as refused:
        client.completions.create(model="small", prompt=prompt)
    assert (refused.value.param, refused.value.code) == ("prompt", "context_length_exceeded")
    answer = client.completions.create(
        model="small", prompt=prompt, seed=1, extra_body={"truncate_prompt_tokens": 100}
    )
    (expected,) = alone.samples(prompt[-100:], 1, alone.settings(length=16, seed=1))
    assert answer.choices[0].text == expected.text
    assert answer.usage.prompt_tokens == 100


def test_models_are_listed_and_an_unknown_one_is_404(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["small", "other"]
    assert client.models.retrieve("other").id == "other"
    for call in (
        lambda: client.completions.create(model="narrow", prompt="a"),
        lambda: client.completions.create(model="../models/small", prompt="a"),
        lambda: client.models.retrieve("nothing"),
    ):
        with pytest.raises(openai.NotFoundError, match="small, other") as missing:
            call()
        assert missing.value.code == "model_not_found"


def test_models_answer_side_by_side(client: openai.OpenAI, models_dir: Path) -> None:
    texts = {
        name: client.completions.create(model=name, prompt="the", seed=1).choices[0].text
        for name in ("small", "other", "small")
    }
    assert texts["small"] != texts["other"]


def test_text_becomes_tokens_and_back(served: Served, alone: LanguageModel) -> None:
    for text in ("the cat 🐱", "", "<|endoftext|>", "\x00\x1b[2J\u202e"):
        answer = httpx.post(f"{served.url}/tokenize", json={"prompt": text}).json()
        assert answer["tokens"] == alone.tokenizer.encode(text)
        assert answer["count"] == len(answer["tokens"])
        back = httpx.post(f"{served.url}/detokenize", json={"tokens": answer["tokens"]})
        assert back.json() == {"prompt": text}


def test_health_and_metrics(served: Served, client: openai.OpenAI) -> None:
    assert httpx.get(f"{served.url}/healthz").json() == {"status": "ok"}

    def figure(name: str) -> float:
        text = httpx.get(f"{served.url}/metrics").text
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    tokens = 'gpt2_generated_tokens_total{model="small"}'
    before = figure(tokens)
    client.completions.create(
        model="small", prompt="the", max_tokens=9, extra_body={"ignore_eos": True}
    )
    assert figure(tokens) == before + 9
    assert figure('gpt2_requests_total{path="/v1/completions",status="200"}') > 0
    assert figure("gpt2_time_to_first_token_seconds_count") > 0


BAD = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"\xff\xfe", None),
    (b"[" * 100_000, None),
    (b'{"temperature": NaN}', None),
    (b'{"seed": ' + b"9" * 5000 + b"}", None),
    ({"temperatur": 1}, "temperatur"),
    ({"model": 3}, "model"),
    ({"prompt": 3}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [300]}, "prompt"),
    ({"prompt": [10**30]}, "prompt"),
    (b'{"prompt": "\\ud800"}', "prompt"),
    ({"prompt": ["a"] * 65}, "prompt"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    (b'{"temperature": 1e999}', "temperature"),
    (b'{"prompt": "a", "prompt": "b"}', "prompt"),
    (b'{"seed": 1, "max_tokens": 1, "seed": 1}', "seed"),
    (b'{"logit_bias": {"3": -5, "3": 5}}', "3"),
    ({"logit_bias": {"3": -5, "03": 5}}, "logit_bias"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": 10**6}, "top_k"),
    ({"n": 0}, "n"),
    ({"n": 65}, "n"),
    ({"n": 3, "best_of": 2}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"echo": "yes"}, "echo"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": 1}}, "stream_options"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": "a" * 1001}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"seed": -1}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"300": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"suffix": "end"}, "suffix"),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"min_tokens": 17}, "min_tokens"),
    ({"frequency_penalty": []}, "frequency_penalty"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=lambda value: str(value)[:40])
def test_a_wrong_body_is_400_and_names_the_field(served: Served, body, field) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{served.url}/v1/completions", content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    assert field is None or field in error["message"]
    assert error["message"].isprintable()


def test_unknown_paths_and_methods_have_openais_error_object(served: Served) -> None:
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/completions", 405)):
        answer = httpx.request(method, served.url + path)
        assert answer.status_code == status
        assert path in answer.json()["error"]["message"]


def test_a_client_that_goes_away_frees_its_slots(served: Served) -> None:
    scheduler = served.models.get("small").scheduler
    for stream in (True, False):
        body = {"model": "small", "prompt": "a", "n": 8, "max_tokens": 2048, "stream": stream}
        content = json.dumps(body | {"ignore_eos": True}).encode()
        with socket.create_connection(served.address) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            connection.sendall(head + b"%d\r\n\r\n" % len(content) + content)
            until(lambda: scheduler.running == 8)
        until(lambda: scheduler.running == 0)
        assert scheduler.waiting == 0


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_full_queue_is_429_and_a_late_answer_504(models_dir: Path) -> None:
    limits = RequestLimits(most_waiting=1, seconds=0.3, most_tokens=10**6)
    with serving(models_dir, ("small",), limits=limits, slots=1) as served:
        long = {"prompt": "a", "max_tokens": 10**6, "ignore_eos": True}

        async def all_answers() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=30) as client:
                posts = [client.post(f"{served.url}/v1/completions", json=long) for _ in range(8)]
                return await asyncio.gather(*posts)

        answers = asyncio.run(all_answers())
        errors = {answer.status_code: answer.json()["error"] for answer in answers}
        assert set(errors) == {429, 504}
        assert errors[429]["type"] == "rate_limit_error"
        assert errors[504]["type"] == "timeout_error"
        lines = httpx.post(f"{served.url}/v1/completions", json=long | {"stream": True}).text
        *_, error, done = lines.strip().split("\n\n")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout"
        assert done == "data: [DONE]"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_of_the_docs_works(served: Served) -> None:
    page = (DOCS / "serving.md").read_text(encoding="utf-8")
    line = re.search(r"^curl .*?(?<!\\)$", page, re.MULTILINE | re.DOTALL)[0]
    line = line.replace("http://127.0.0.1:7860", served.url).replace("run1", "small")
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["finish_reason"] in ("length", "stop")


@pytest.mark.slow
def test_32_clients_for_20_seconds_get_what_their_seeds_give_alone(
    served: Served, alone: LanguageModel
) -> None:
    from benchmarks import serving as load

    requests = load.small_requests(200, "small")
    expected = {
        index: generated(alone, body["prompt"], length=body["max_tokens"], seed=body["seed"])[0]
        for index, body in enumerate(requests)
    }
    measured = asyncio.run(load.measure(served.url, requests, clients=32, seconds=20))
    assert measured.errors == []
    assert len(measured.texts) > 200
    for index, text in measured.texts:
        assert text == expected[index % len(requests)]
    assert math.isfinite(measured.first_token(0.95))
