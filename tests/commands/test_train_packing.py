"""Packed training resumes exactly, and a run keeps to the packing that it was begun with."""

from __future__ import annotations

import json

import pytest

from tests.commands.toolkit_copy import DATA, Toolkit

pytestmark = pytest.mark.slow

RUN = (
    "python src/train.py --dataset text.txt --lines --save_every 2 --sample_every 100 --seed 3"
    " --learning_rate 0.01 --val_split 0.1 --val_every 2 --val_batch_count 2"
)


def calls(toolkit: Toolkit, run: str) -> list[dict]:
    config = toolkit.contents(f"checkpoint/{run}")["config.json"]
    return json.loads(config)["calls"]


def test_a_packed_run_resumes_exactly_and_stays_packed(toolkit: Toolkit) -> None:
    whole, first = (
        done.succeeds()
        for done in toolkit.run_all(
            f"{RUN} --run_name whole --max_steps 4", f"{RUN} --run_name cut --max_steps 2"
        )
    )
    assert "packed into" in whole.out and "packed into" in first.out
    second = toolkit.run(f"{RUN} --run_name cut --max_steps 4 --no_packing")
    second.says(0, r"begun with packing and continues with it\..* --run_name")
    assert "packed into" in second.out
    expected, found = (toolkit.contents(f"checkpoint/{run}") for run in ("whole", "cut"))
    for name in (f"model-4{DATA}", f"state-4{DATA}", "state-4.json"):
        assert found[name] == expected[name]
    assert [call["packing"] for call in calls(toolkit, "cut")] == [True, True]


def test_a_run_of_an_earlier_version_continues_without_packing(toolkit: Toolkit) -> None:
    run = f"{RUN} --run_name old"
    first = toolkit.run(f"{run} --max_steps 2 --no_packing").succeeds()
    assert "packed into" not in first.out
    folder = toolkit.root / "checkpoint" / "old"
    # Earlier versions recorded no packing.
    for name, records in (("state-2.json", "facts"), ("config.json", "calls")):
        content = json.loads((folder / name).read_text())
        for record in content["calls"] if records == "calls" else [content["facts"]]:
            assert record.pop("packing") is False
        (folder / name).write_text(json.dumps(content))
    second = toolkit.run(f"{run} --max_steps 4")
    second.says(0, r"begun without packing and continues without it\..* --run_name")
    assert "packed into" not in second.out
    assert calls(toolkit, "old")[-1]["packing"] is False
    toolkit.run(f"{run} --max_steps 5 --no_packing").succeeds()
    # Without the state, config.json says it.
    for file in folder.glob("state-*"):
        file.unlink()
    third = toolkit.run(f"{run} --max_steps 6")
    assert "packed into" not in third.out
    assert any("begun without packing" in sentence for sentence in third.sentences)
