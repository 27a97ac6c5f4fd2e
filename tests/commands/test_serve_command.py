"""The serve command: addresses, signals, reloading, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gpt2.commands import serve
from gpt2.commands.exits import UsageError
from gpt2.errors import UserError
from tests.commands.toolkit_copy import DATA, INDEX, Done, Home, Running, Toolkit

pytestmark = pytest.mark.slow

SERVE = "python src/serve.py --model_name 117M --engine numpy"
LONG = {"prompt": "a", "max_tokens": 10**6, "ignore_eos": True, "stream": True}

needs_signals = pytest.mark.skipif(os.name == "nt", reason="sends signals that Windows lacks")


def address(running: Running) -> str:
    """Wait until the server answers, and return where."""
    running.wait_until(lambda: "Ctrl+C to stop" in running.out)
    return re.search(r"http://\S+?:\d+", running.out)[0]


@pytest.fixture
def stream() -> Iterator:
    """Open streams of completions, which are closed at the end of the test."""
    opened = []

    def open_stream(url: str):
        client = httpx.Client(timeout=60)
        context = client.stream("POST", f"{url}/v1/completions", json=LONG)
        opened.extend([context, client])
        lines = context.__enter__().iter_lines()
        assert next(lines).startswith("data: ")
        return lines

    yield open_stream
    for each in opened:
        each.__exit__(None, None, None) if hasattr(each, "gen") else each.close()


@needs_signals
def test_ctrl_c_ends_running_completions_and_refuses_new_ones(home: Home, stream) -> None:
    with home.toolkit.start(f"{SERVE} --port 0 --max_tokens 1000000") as running:
        url = address(running)
        lines = stream(url)
        running.process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        running.wait_until(lambda: "Stopping" in running.err)
        late = httpx.post(f"{url}/v1/completions", json=LONG)
        events = [line.removeprefix("data: ") for line in lines if line]
        seconds = time.monotonic() - begin
        done = running.finish()
    if late.status_code == 200:  # it came before the server had noticed the signal
        assert '"finish_reason":"stop"' in late.text
    else:
        assert late.status_code == 503
        assert late.json()["error"]["type"] == "overloaded_error"
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "stop"
    assert seconds < 5 or os.getloadavg()[0] > 4
    assert done.code == 0
    assert "Traceback" not in done.err


@needs_signals
def test_a_second_ctrl_c_leaves_at_once(home: Home, stream) -> None:
    with home.toolkit.start(f"{SERVE} --port 0 --max_tokens 1000000") as running:
        stream(address(running))
        running.process.send_signal(signal.SIGINT)
        running.send_when(signal.SIGINT, lambda: "Stopping" in running.err)
        done = running.finish()
    assert done.code == 130
    assert "Traceback" not in done.err


@needs_signals
def test_termination_ends_an_idle_server(home: Home) -> None:
    with home.toolkit.start(f"{SERVE} --port 0") as running:
        assert httpx.get(f"{address(running)}/v1/models").json()["data"][0]["id"] == "117M"
        running.process.send_signal(signal.SIGTERM)
        done = running.finish()
    assert done.code == 0


def test_a_taken_port_names_the_process_and_the_next_free_port(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = home.toolkit.run(f"{SERVE} --port {port}")
    done.says(1, rf"^Port {port} is taken")
    if Path("/proc/net/tcp").exists():
        assert f"by process {os.getpid()} (" in done.err
    other = int(re.search(r"--port (\d+)", done.err)[1])
    assert port < other <= port + 20


def test_what_is_wrong_is_said_before_anything_is_loaded(home: Home) -> None:
    calls = {
        "--host 0.0.0.0": (
            2,
            "--host 0.0.0.0 can be reached by others.*--auth.*--api_key.*--public",
        ),
        "--host ::": (2, "can be reached by others"),
        "--auth me": (2, "--auth must be USER:PASS"),
        "--auth me:": (2, "--auth must be USER:PASS"),
        "--auth ''": (2, "--auth must be USER:PASS"),
        "--api_key ''": (2, "--api_key is empty"),
        "--cors evil": (2, "--cors must be an origin such as https://example.com.*not evil"),
        "--cors https://good.example/": (2, "--cors must be an origin"),
        "--cors '*'": (2, "--cors must be an origin"),
        "--host ''": (2, "--host is empty"),
        "--port 70000": (1, "--port must be .* from 0 to 65,535"),
        "--model_name 117M,": (2, "--model_name has an empty name"),
        "--model_name nothing": (1, "There is no model 'nothing'"),
        "--model_name 117M,nothing": (1, "There is no model 'nothing'"),
        "--slots 0": (1, "--slots must be a whole number from 1"),
        "--timeout 0": (1, "--timeout must be a number above 0"),
        "--host 203.0.113.7 --public": (1, "203.0.113.7 port 7860: cannot listen"),
        "--engine numpy --quantize int8": (1, "quantize int8 is not available"),
    }
    lines = [f"python src/serve.py --model_name 117M {flags}" for flags in calls]
    lines = [line if line.count("--model_name") == 1 else
             line.replace("--model_name 117M ", "", 1) for line in lines]  # fmt: skip
    for done, (code, sentence) in zip(
        home.toolkit.run_in_one_process(*lines), calls.values(), strict=True
    ):
        done.says(code, sentence)


def test_a_secret_that_is_not_text_is_refused() -> None:
    for flag, secret in (("--api_key", "\udcffkey"), ("--auth", "me:\udcff")):
        with pytest.raises(UsageError, match=f"{flag} is not UTF-8 text"):
            serve.COMMAND.parse([flag, secret], "serve.py")


def test_missing_packages_are_named_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    missing = lambda name: None if name in ("uvicorn", "prometheus_client") else find(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(
        UserError, match=r"\(uvicorn, prometheus_client\).*pip install .*prometheus_client>="
    ):
        serve._check_packages()


def test_the_line_to_type_has_the_versions_of_the_extra() -> None:
    page = (Path(serve.__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^web = \[(.*)\]$", page, re.MULTILINE)[1].replace(",", "")
    assert f"pip install {listed}" == serve.INSTALL


def completion(url: str, **fields) -> str:
    body = {"prompt": "the", "max_tokens": 12, "seed": 1, "ignore_eos": True} | fields
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def sample(toolkit: Toolkit, model: str) -> Done:
    return toolkit.run(
        f"python src/generate_conditional_samples.py --model_name {model} --prompt the --seed 1 "
        "--length 12 --ignore_eos --engine numpy --nsamples 1"
    ).succeeds()


def put_checkpoint(source: Path, target: Path, name: str, data: bytes | None = None) -> None:
    """Add a checkpoint to a folder as training does: the files, then the one that names them."""
    for ending in (DATA, INDEX):
        shutil.copy(source / f"model.ckpt{ending}", target / f"{name}{ending}")
    if data is not None:
        (target / f"{name}{INDEX}").write_bytes(data)
    new = target / "checkpoint.new"
    new.write_text(f'model_checkpoint_path: "{name}"\n')
    new.replace(target / "checkpoint")


@needs_signals
def test_a_new_checkpoint_is_served_without_dropping_requests(toolkit: Toolkit, stream) -> None:
    models = toolkit.root / "models"
    sizes = "--n_vocab 300 --n_ctx 32 --n_embd 16 --n_head 2 --n_layer 1"
    toolkit.run(f"python src/new_model.py other --dataset text.txt {sizes} --seed 2")
    (models / "other" / "encoder.json").write_bytes((models / "117M" / "encoder.json").read_bytes())
    with toolkit.start(f"{SERVE} --port 0 --watch --max_tokens 1000000") as running:
        url = address(running)
        before = completion(url)
        lines = stream(url)
        put_checkpoint(models / "other", models / "117M", "broken", b"nothing")
        running.wait_until(lambda: "117M: the new checkpoint cannot be loaded" in running.err)
        assert completion(url) == before
        put_checkpoint(models / "other", models / "117M", "model-2")
        running.wait_until(lambda: "117M: now serving model-2" in running.err)
        after = completion(url)
        assert next(line for line in lines if line).startswith("data: ")  # still the old model
        running.process.send_signal(signal.SIGINT)
        assert [line for line in lines if line][-1] == "data: [DONE]"
        done = running.finish()
    assert done.code == 0
    assert running.err.count("cannot be loaded") == 1
    assert after != before
    assert after in sample(toolkit, "117M").out
