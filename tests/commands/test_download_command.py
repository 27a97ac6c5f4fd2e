"""download_model.py, from a server on this machine."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.commands.toolkit_copy import MODEL_FILES, Toolkit


@pytest.fixture
def server(toolkit: Toolkit, tmp_path: Path) -> Iterator[str]:
    """The address of a server that has 124M whole and of 355M two files."""
    whole, part = tmp_path / "server" / "124M", tmp_path / "server" / "355M"
    shutil.copytree(toolkit.root / "models" / "117M", whole)
    part.mkdir()
    for name in ("checkpoint", "encoder.json"):
        shutil.copy(whole / name, part)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "server"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_model_is_fetched_under_the_name_it_was_asked_for(toolkit: Toolkit, server: str) -> None:
    original = toolkit.contents("models/117M")
    shutil.rmtree(toolkit.root / "models" / "117M")
    done = toolkit.run(f"python download_model.py 117M --url {server}").succeeds()
    assert toolkit.contents("models/117M") == original
    for name in MODEL_FILES:
        assert f"Fetching {name}: 100%" in done.err


def test_what_the_server_does_not_have_is_told_and_only_whole_files_are_kept(
    toolkit: Toolkit, server: str
) -> None:
    done = toolkit.run(f"python download_model.py 345M --url {server}")
    done.says(1, r"/355M/hparams\.json was answered with status 404")
    assert sorted(toolkit.contents("models/345M")) == ["checkpoint", "encoder.json"]


def test_a_failed_download_leaves_no_empty_folder_that_hides_a_model(
    toolkit: Toolkit, server: str
) -> None:
    done = toolkit.run(f"python download_model.py 124M --url {server}/gone")
    done.says(1, "was answered with status 404")
    assert sorted(toolkit.contents("models")) == ["117M", *(f"117M/{name}" for name in MODEL_FILES)]
