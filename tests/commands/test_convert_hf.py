"""convert to_hf and from_hf from the command line, and the hub as a stub on loopback."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.toolkit_copy import MODEL_FILES, Toolkit
from tests.interop.hub_stub import Hub

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop"
CONVERT = "python src/convert.py"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    with Hub().running() as hub:
        yield hub


def at(hub: Hub, folder: Path) -> str:
    """The environment of a command that uses the stub."""
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": folder / "cache",
        "HF_TOKEN": "hf_stub",
        "HF_HUB_DISABLE_PROGRESS_BARS": 1,
        "HF_HUB_DISABLE_XET": 1,
        "HF_HUB_DISABLE_TELEMETRY": 1,
    }
    return " ".join(f"{name}={value}" for name, value in settings.items())


def test_a_model_is_the_same_file_for_file_after_both_ways(toolkit: Toolkit) -> None:
    done = toolkit.run(f"{CONVERT} to_hf 117M out").succeeds()
    assert "Wrote out" in done.out
    toolkit.run(f"{CONVERT} from_hf out models/back").succeeds()
    models = toolkit.root / "models"
    _, different, missing = filecmp.cmpfiles(models / "117M", models / "back", MODEL_FILES, False)
    assert (different, missing) == ([], [])
    sample = "python src/generate_unconditional_samples.py --model_name back --nsamples 1"
    toolkit.run(f"{sample} --length 5 --seed 1").succeeds()


def test_an_output_that_exists_needs_overwrite(toolkit: Toolkit) -> None:
    for command in ("to_hf 117M out", "from_hf out back"):
        toolkit.run(f"{CONVERT} {command}").succeeds()
        toolkit.run(f"{CONVERT} {command}").says(1, "already exists")
        toolkit.run(f"{CONVERT} {command} --overwrite").succeeds()


def test_bad_input_is_one_sentence_and_writes_nothing(toolkit: Toolkit) -> None:
    shutil.copytree(GOLDEN, toolkit.root / "golden")
    before = sorted(path.name for path in (toolkit.root / "models").iterdir())
    for words, code, sentence in (
        ("from_hf nowhere/at/all new", 1, "no such folder or file"),
        ("from_hf golden new", 1, "several files of weights"),
        ("from_hf golden/hostile.pt new", 1, "AdamW.*nothing was run"),
        ("from_hf golden/nanogpt.pt new --vocabulary 117M", 1, "exact GELU"),
        ("from_hf golden/zip.bin new", 1, "set n_head"),
        ("from_hf golden/zip.bin new --n_head 2", 1, "set vocabulary"),
        ("from_hf golden/zip.bin new --n_head 2 --vocabulary 117M", 1, "281 embeddings"),
        ("from_hf golden/transformers models/117M", 1, "already exists"),
        ("to_hf nothing out", 1, "no model 'nothing'"),
        ("to_hf 117M out --dtype int8", 2, "fp32, fp16, bf16"),
        ("to_hf 117M out --push a/b/c", 2, "OWNER/NAME"),
        ("to_hf 117M", 2, "missing: OUT"),
        ("to_h 117M", 2, "did you mean to_hf"),
    ):
        toolkit.run(f"{CONVERT} {words}").says(code, sentence)
    assert sorted(path.name for path in (toolkit.root / "models").iterdir()) == before
    assert not (toolkit.root / "out").exists()


def test_a_folder_is_uploaded_and_downloaded_by_its_name(
    toolkit: Toolkit, hub: Hub, tmp_path: Path
) -> None:
    environment = at(hub, tmp_path)
    done = toolkit.run(f"{environment} {CONVERT} to_hf 117M out --push someone/small")
    assert done.code == 0, done
    assert f"{hub.address}/someone/small" in done.out
    uploaded = hub.models["someone/small"]
    for path in (toolkit.root / "out").iterdir():
        assert uploaded[path.name] == path.read_bytes()
    done = toolkit.run(f"{environment} {CONVERT} from_hf someone/small back")
    assert done.code == 0, done
    models = toolkit.root / "models"
    _, different, missing = filecmp.cmpfiles(models / "117M", models / "back", MODEL_FILES, False)
    assert (different, missing) == ([], [])


def test_a_hub_that_refuses_leaves_the_folder(toolkit: Toolkit, hub: Hub, tmp_path: Path) -> None:
    hub.fails_with = 403
    done = toolkit.run(f"{at(hub, tmp_path)} {CONVERT} to_hf 117M out --push someone/small")
    done.says(1, "someone/small: cannot be uploaded")
    assert (toolkit.root / "out" / "model.safetensors").is_file()


def test_an_unknown_name_on_the_hub_is_an_error(toolkit: Toolkit, hub: Hub, tmp_path: Path) -> None:
    done = toolkit.run(f"{at(hub, tmp_path)} {CONVERT} from_hf someone/nothing back")
    done.says(1, "someone/nothing: the hub gave no model")
