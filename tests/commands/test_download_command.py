"""Downloading from the command line, from a server on this machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gpt2.download.transfer import in_bytes
from tests.commands.toolkit_copy import MODEL_FILES, Toolkit
from tests.download.misbehaving_server import File, Request, serving, well


@pytest.fixture
def server(toolkit: Toolkit, tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the models 124M and small, and two files of 355M."""
    whole, part = tmp_path / "server" / "124M", tmp_path / "server" / "355M"
    shutil.copytree(toolkit.root / "models" / "117M", whole)
    part.mkdir()
    shutil.copytree(whole, tmp_path / "server" / "small")
    for name in ("hparams.json", "encoder.json"):
        shutil.copy(whole / name, part)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "server"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_model_is_downloaded_under_the_requested_name(toolkit: Toolkit, server: str) -> None:
    original = toolkit.contents("models/117M")
    shutil.rmtree(toolkit.root / "models" / "117M")
    done = toolkit.run(f"python download_model.py 117M --url {server}").succeeds()
    assert toolkit.contents("models/117M") == original
    size = sum(map(len, original.values()))
    assert done.out.startswith(f"Downloading {in_bytes(size)}\n")
    assert done.out.endswith(f" {Path('models', '117M')}\n")
    assert "100%" in done.err


def test_several_models_are_downloaded_and_complete_files_are_not_downloaded_again(
    toolkit: Toolkit, server: str, no_tensorflow: str
) -> None:
    line = f"{no_tensorflow} python download_model.py 124M small --url {server}"
    done = toolkit.run(line).succeeds()
    assert toolkit.contents("models/small") == toolkit.contents("models/117M")
    assert not (toolkit.root / "models" / "124M").exists()
    assert str(Path("models", "117M")) in done.out
    assert toolkit.run(line).succeeds().err == ""


def test_a_file_missing_on_the_server_is_an_error_and_complete_files_are_kept(
    toolkit: Toolkit, server: str
) -> None:
    done = toolkit.run(f"python download_model.py 345M --url {server}")
    done.says(1, r"/355M/vocab\.bpe.* 404\b")
    assert sorted(toolkit.contents("models/345M")) == ["encoder.json", "hparams.json"]


def test_a_failed_download_leaves_no_empty_folder_that_hides_a_model(
    toolkit: Toolkit, server: str
) -> None:
    done = toolkit.run(f"python download_model.py 774M --url {server}")
    done.says(1, r"\b404\b")
    assert sorted(toolkit.contents("models")) == ["117M", *(f"117M/{name}" for name in MODEL_FILES)]


def test_a_name_with_a_path_is_an_error(toolkit: Toolkit, server: str) -> None:
    before = toolkit.contents()
    toolkit.run(f"python download_model.py ../x --url {server}").says(1, r"'\.\./x' .*name")
    assert toolkit.contents() == before


def test_a_model_is_verified_offline(toolkit: Toolkit, no_tensorflow: str) -> None:
    line = f"{no_tensorflow} python download_model.py --verify 124M"
    done = toolkit.run(line).succeeds()
    # The model is not the released one, except for `checkpoint`, which is the same in every model.
    assert len(re.findall(r"\bnot .*released 124M", done.out)) == 5
    data = toolkit.root / "models" / "117M" / MODEL_FILES[3]
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    done = toolkit.run(line)
    done.says(1, rf"{MODEL_FILES[3]}\. .* without --verify")
    assert re.search("tensor model/wte .*(damaged|corrupt)", done.out)


@pytest.mark.skipif(os.name == "nt", reason="sends a signal that Windows does not have")
def test_after_ctrl_c_partial_files_are_kept_and_the_next_call_resumes(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    slow = {"/124M/" + path.name: path for path in (toolkit.root / "models/117M").iterdir()}
    original = toolkit.contents("models/117M")
    with serving() as server:
        for place, path in slow.items():
            server.files[place] = File(path.read_bytes())
        shutil.rmtree(toolkit.root / "models" / "117M")
        go_on = threading.Event()

        def stall(request: Request) -> None:
            request.head(200, request.whole())
            request.wfile.write(request.file.content[:1000])
            request.wfile.flush()
            go_on.wait(60)

        server.script = [*[well] * 5, stall]  # requests of sizes are not counted
        line = f"no_proxy=127.0.0.1 python download_model.py 117M --url {server.address}"
        kept = toolkit.root / "models" / "117M" / "model.ckpt.meta.partial"
        with toolkit.start(line) as running:
            running.send_when(signal.SIGINT, kept.exists)
            done = running.finish()
        go_on.set()
        done.says(130, r"^Interrupted\. .* partial files .* same command")
        toolkit.run(line).succeeds()
    assert toolkit.contents("models/117M") == original
