"""Models are downloaded, completed and verified; complete files are not downloaded again."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from gpt2 import download
from gpt2.download import models, releases
from gpt2.errors import UserError
from gpt2.locks import download_lock
from gpt2.workspace import ALIASES, Workspace
from tests.download import misbehaving_server as server_
from tests.download.misbehaving_server import PAGE, File, Server

DATA, INDEX = releases.DATA_FILE, releases.INDEX_FILE
NO_WAITING = download.RetryPolicy(tries=2, sleep=lambda seconds: None)


class Progress(download.DownloadProgress):
    """Records the reported progress."""

    def __init__(self) -> None:
        self.plan: tuple[int, int] | None = None
        self.bytes = 0
        self.files: list[str] = []

    def planned(self, missing: int, present: int) -> None:
        self.plan = missing, present

    def file(self, path: Path) -> None:
        self.files.append(path.name)

    def advance(self, size: int) -> None:
        self.bytes += size


def get(server: Server, tmp_path: Path, *names: str) -> Progress:
    progress = Progress()
    workspace = Workspace(tmp_path / "models")
    wanted = [download.Download(name, workspace, server.address) for name in names]
    download.download(wanted, progress, NO_WAITING)
    return progress


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_several_models_have_one_total_of_bytes(server: Server, tmp_path: Path, tiny) -> None:
    progress = get(server, tmp_path, "124M", "1558M")
    size = sum(map(len, tiny.values()))
    assert contents(tmp_path / "models" / "124M") == tiny
    assert contents(tmp_path / "models" / "1558M") == tiny
    assert progress.plan == (2 * size, 0)
    assert progress.bytes == 2 * size
    assert progress.files == [*download.FILES, *download.FILES]


def test_leftovers_of_a_kill_beside_a_complete_file_are_removed(
    server: Server, tmp_path: Path, tiny
) -> None:
    get(server, tmp_path, "124M")
    folder = tmp_path / "models" / "124M"
    # As after a kill between the rename of the file and the deletion of its note.
    (folder / "hparams.json.partial.json").write_text("{}")
    get(server, tmp_path, "124M")
    assert contents(folder) == tiny


def test_complete_files_are_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path, "124M", "124M")
    asked = len(server.requests)
    assert asked == 7
    assert get(server, tmp_path, "124M").plan is None
    assert get(server, tmp_path, "117M").plan is None  # the model's other name
    assert len(server.requests) == asked
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["124M"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in download.FILES
        for damage in ("missing", "page", "cut", "empty")
        if name != "model.ckpt.meta"  # it is never read
        and (name, damage) != ("vocab.bpe", "empty")  # a vocabulary may have no merges
    ],
)
def test_only_missing_and_damaged_files_are_downloaded_again(
    server: Server, tmp_path: Path, write, tiny, name: str, damage: str
) -> None:
    path = write("124M") / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        cut = whole[: len(whole) // 2] if name != "checkpoint" else whole[:20]
        if name == "vocab.bpe":
            cut = cut[: cut.rindex(b" ") + 1]  # within a line; cut at a line end, it would be valid
        path.write_bytes(cut)
    elif damage != "missing":
        path.write_bytes(PAGE if damage == "page" else b"")
    progress = get(server, tmp_path, "124M")
    assert contents(path.parent) == tiny
    assert [place for place, _ in server.asked] == [f"/124M/{name}"]
    if name != INDEX:  # without it, the data cannot be verified at first
        assert progress.plan == (len(whole), 0)


def test_a_flipped_bit_in_a_tensor_is_found_by_its_checksum(
    server: Server, tmp_path: Path, write, tiny
) -> None:
    path = write("124M") / DATA
    for place in (0, len(tiny[DATA]) // 2, len(tiny[DATA]) - 1):
        damaged = bytearray(tiny[DATA])
        damaged[place] ^= 1
        path.write_bytes(damaged)
        get(server, tmp_path, "124M")
        assert path.read_bytes() == tiny[DATA]
    assert len(server.requests) == 3


def test_data_that_do_not_match_the_index_are_refused(server: Server, tmp_path: Path, tiny) -> None:
    damaged = bytearray(tiny[DATA])
    damaged[99] ^= 1
    server.files[f"/124M/{DATA}"] = File(bytes(damaged))
    with pytest.raises(UserError, match=r"unusable file \(the file: the tensor .* is damaged"):
        get(server, tmp_path, "124M")
    assert sorted(contents(tmp_path / "models" / "124M")) == sorted(set(tiny) - {DATA})


def test_files_of_two_models_are_refused(server: Server, tmp_path: Path, tiny) -> None:
    other = tiny["hparams.json"].replace(b'"n_layer": 1', b'"n_layer": 3')
    assert other != tiny["hparams.json"]
    server.files["/124M/hparams.json"] = File(other)
    with pytest.raises(UserError, match=r"n_layer 1, .*says n_layer 3"):
        get(server, tmp_path, "124M")


def test_a_call_resumes_the_download_of_another(server: Server, tmp_path: Path, tiny) -> None:
    server.script = [*[server_.well] * 6, server_.drop_after(1000), *[server_.status(500)] * 9]
    with pytest.raises(UserError, match="status 500"):
        get(server, tmp_path, "124M")
    server.script = []
    progress = get(server, tmp_path, "124M")
    missing, present = progress.plan
    assert 0 < present <= 1000
    assert missing + present == len(tiny[DATA])
    assert progress.bytes == missing
    assert progress.files == [DATA]
    assert contents(tmp_path / "models" / "124M") == tiny


def test_a_model_of_another_server_may_have_any_name(server: Server, tmp_path: Path, tiny) -> None:
    for name, content in tiny.items():
        server.files[f"/poems/{name}"] = File(content)
        server.files[f"/345M/{name}"] = File(content)
    get(server, tmp_path, "poems", "345M")
    assert contents(tmp_path / "models" / "poems") == tiny
    assert contents(tmp_path / "models" / "345M") == tiny  # not under its new name


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "C:x", "a\\b", "x\0y"])
def test_a_name_that_points_outside_the_folder_is_refused(
    server: Server, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UserError, match="not a valid name for a model"):
        get(server, tmp_path, name)
    assert not list(tmp_path.iterdir())
    assert server.requests == []


def test_a_failed_download_leaves_no_empty_folder(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="status 404"):
        get(server, tmp_path, "355M")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_disk_without_space_for_all_models_is_reported_before_any_request(
    server: Server, tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * sum(map(len, tiny.values()))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match="Free some space, or choose a folder on another disk"):
        get(server, tmp_path, "124M", "1558M")
    assert server.requests == []
    assert list((tmp_path / "models").iterdir()) == []


# --- OpenAI's files ---


@pytest.fixture
def released(server: Server, tiny, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server in place of OpenAI's, with the tiny model as the released 124M."""
    release = releases.Release(
        "124M",
        {name: len(content) for name, content in tiny.items()},
        {name: {hashlib.sha256(content).hexdigest()} for name, content in tiny.items()},
    )
    monkeypatch.setattr(models, "RELEASES", {"124M": release, "117M": release})
    places = (f"{server.address}/gone", server.address)
    monkeypatch.setattr(models, "ADDRESSES", places)
    return server


def get_released(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "models")
    download.download([download.Download("117M", workspace)], None, NO_WAITING)


def test_a_file_missing_at_the_first_address_comes_from_the_mirror(
    released: Server, tmp_path: Path, tiny
) -> None:
    get_released(tmp_path)
    assert contents(tmp_path / "models" / "117M") == tiny


@pytest.mark.parametrize("name", download.FILES)
def test_a_valid_file_that_differs_from_the_released_one_is_refused(
    released: Server, tmp_path: Path, tiny, name: str
) -> None:
    other = tiny[name].replace(b"\n", b"\r\n") if name == "hparams.json" else tiny[name][:-1] + b"x"
    released.files[f"/124M/{name}"] = File(other)
    with pytest.raises(UserError, match=r"its SHA-256 differs|bytes; expected"):
        get_released(tmp_path)
    assert not (tmp_path / "models" / "117M" / name).exists()


def test_a_users_checkpoint_in_the_folder_of_a_released_model_is_not_overwritten(
    released: Server, tmp_path: Path, write
) -> None:
    folder = write("117M", without=("encoder.json",))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model-500"\n')
    before = contents(folder)
    with pytest.raises(UserError, match=r"checkpoint: valid, but not .* Move it away"):
        get_released(tmp_path)
    assert contents(folder) == before
    assert released.requests == []


def test_sizes_and_digests_of_the_releases() -> None:
    assert set(download.RELEASES) == set(ALIASES)
    sizes = {name: release.sizes[DATA] for name, release in download.RELEASES.items()}
    assert sizes["117M"] == sizes["124M"] == 497_759_232
    assert sizes["345M"] == sizes["355M"] == 1_419_292_672
    assert sizes["774M"] == sizes["762M"] == 3_096_120_320
    assert sizes["1558M"] == sizes["1542M"] == 6_230_444_800
    assert all(
        release.name in ("124M", "355M", "774M", "1558M") for release in download.RELEASES.values()
    )
    assert set(download.RELEASES["355M"].sha256) == set(download.FILES)
    for release in download.RELEASES.values():
        for digests in release.sha256.values():
            assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)


def test_the_digests_match_the_real_files(shared_data: Path) -> None:
    known = download.RELEASES["117M"].sha256
    for folder, names in {
        "gpt2": ("encoder.json", "vocab.bpe"),
        "openai-117M-index": ("checkpoint", "hparams.json", INDEX, "model.ckpt.meta"),
    }.items():
        for name in names:
            content = (shared_data / folder / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() in known[name]
            assert download.RELEASES["117M"].sizes.get(name, len(content)) == len(content)


# --- concurrent downloads ---


def test_a_second_download_into_a_folder_is_refused(server: Server, tmp_path: Path, tiny) -> None:
    folder = tmp_path / "models" / "124M"
    folder.mkdir(parents=True)
    with download_lock(folder):
        with pytest.raises(UserError, match="another download into this folder"):
            get(server, tmp_path, "124M")
        assert server.requests == []
    get(server, tmp_path, "124M")
    assert contents(folder) == tiny


def hold(folder: Path, ready) -> None:
    with download_lock(folder):
        ready.set()
        signal.pause()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_download_releases_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with (
        pytest.raises(UserError, match="another download into this folder"),
        download_lock(tmp_path),
    ):
        pass
    process.kill()
    process.join()
    with download_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


# --- verifying ---


def words(folder: Path) -> dict[str, str]:
    return {finding.path.name: finding.words for finding in download.verify(folder)}


def test_a_complete_model_is_verified_without_a_server(write) -> None:
    folder = write("small", without=("model.ckpt.meta",))
    found = list(download.verify(folder))
    assert all(finding.whole for finding in found)
    assert words(folder)[DATA] == "OK (checksum of every tensor)"
    assert {finding.path.name for finding in found} == set(download.FILES) - {"model.ckpt.meta"}


def test_every_damaged_file_is_found(write, tiny) -> None:
    folder = write("small")
    damaged = bytearray(tiny[DATA])
    damaged[-1] ^= 1
    (folder / DATA).write_bytes(damaged)
    (folder / "encoder.json").write_bytes(PAGE)
    (folder / "vocab.bpe").unlink()
    found = {finding.path.name: finding for finding in download.verify(folder)}
    assert {name for name, finding in found.items() if not finding.whole} == {
        DATA,
        "encoder.json",
        "vocab.bpe",
    }
    assert "tensor model/wte is damaged" in found[DATA].words
    assert "a web page" in found["encoder.json"].words
    assert found["vocab.bpe"].words == "is missing"


def test_verifying_finds_files_of_two_models(write, tiny) -> None:
    folder = write("small")
    other = tiny["hparams.json"].replace(b'"n_layer": 1', b'"n_layer": 3')
    (folder / "hparams.json").write_bytes(other)
    *files, together = download.verify(folder)
    assert all(finding.whole for finding in files)
    assert not together.whole
    assert "says n_layer 3" in together.words


def test_verifying_distinguishes_released_files_from_others(released: Server, write) -> None:
    folder = write("117M")
    (folder / "hparams.json").write_text((folder / "hparams.json").read_text() + "\n")
    found = words(folder)
    assert found["hparams.json"] == "OK, but not the file of the released 124M"
    assert found[DATA] == "OK (SHA-256 of the released 124M)"
