"""download_model.py, from a server on this machine."""

from __future__ import annotations

import functools
import os
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
    """The address of a server that has 124M and small whole, and of 355M two files."""
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


def test_a_model_is_fetched_under_the_name_it_was_asked_for(toolkit: Toolkit, server: str) -> None:
    original = toolkit.contents("models/117M")
    shutil.rmtree(toolkit.root / "models" / "117M")
    done = toolkit.run(f"python download_model.py 117M --url {server}").succeeds()
    assert toolkit.contents("models/117M") == original
    size = sum(map(len, original.values()))
    assert done.out.startswith(f"{in_bytes(size)} to fetch\n")
    assert done.out.endswith(f"The model is in {Path('models', '117M')}\n")
    assert "100%" in done.err


def test_several_models_come_at_once_and_what_is_there_stays(
    toolkit: Toolkit, server: str, no_tensorflow: str
) -> None:
    line = f"{no_tensorflow} python download_model.py 124M small --url {server}"
    done = toolkit.run(line).succeeds()
    assert toolkit.contents("models/small") == toolkit.contents("models/117M")
    assert not (toolkit.root / "models" / "124M").exists()
    assert str(Path("models", "117M")) in done.out
    assert toolkit.run(line).succeeds().err == ""


def test_what_the_server_does_not_have_is_told_and_only_whole_files_are_kept(
    toolkit: Toolkit, server: str
) -> None:
    done = toolkit.run(f"python download_model.py 345M --url {server}")
    done.says(1, r"/355M/vocab\.bpe was answered with status 404 .* same command again")
    assert sorted(toolkit.contents("models/345M")) == ["encoder.json", "hparams.json"]


def test_a_failed_download_leaves_no_empty_folder_that_hides_a_model(
    toolkit: Toolkit, server: str
) -> None:
    done = toolkit.run(f"python download_model.py 774M --url {server}")
    done.says(1, "was answered with status 404")
    assert sorted(toolkit.contents("models")) == ["117M", *(f"117M/{name}" for name in MODEL_FILES)]


def test_a_name_that_leads_elsewhere_is_told(toolkit: Toolkit, server: str) -> None:
    before = toolkit.contents()
    toolkit.run(f"python download_model.py ../x --url {server}").says(1, "cannot name a model")
    assert toolkit.contents() == before


def test_a_model_is_verified_offline(toolkit: Toolkit, no_tensorflow: str) -> None:
    line = f"{no_tensorflow} python download_model.py --verify 124M"
    done = toolkit.run(line).succeeds()
    assert "whole, by the checksum" not in done.out  # the digests of the released one are known
    # All but `checkpoint`, which says the same in every model.
    assert done.out.count("whole, but not the file of the released 124M") == 5
    data = toolkit.root / "models" / "117M" / MODEL_FILES[3]
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    done = toolkit.run(line)
    done.says(1, rf"^Not whole: {MODEL_FILES[3]}; run the same command without --verify")
    assert "the tensor model/wte is damaged" in done.out


@pytest.mark.skipif(os.name == "nt", reason="sends a signal that Windows does not have")
def test_ctrl_c_says_what_is_kept_and_the_next_call_goes_on(
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
        done.says(130, r"^Interrupted; .* of unfinished files are kept, and the same command goes")
        toolkit.run(line).succeeds()
    assert toolkit.contents("models/117M") == original
