"""`stories`: writes stories that it accepts, and counts those that are malformed."""

from __future__ import annotations

from tests.commands.toolkit_copy import Home


def test_written_stories_are_well_formed_and_broken_ones_are_counted(
    home: Home, no_tensorflow: str
) -> None:
    toolkit = home.toolkit
    command = f"{no_tensorflow} python src/stories.py"
    toolkit.run(f"{command} tales.txt --count 40 --seed 3").succeeds()
    path = toolkit.root / "tales.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 40
    broken = [line.replace(" the ", " a ", 1) for line in lines[:4]]
    (toolkit.root / "broken.txt").write_text("\n".join([*lines[4:], *broken]), encoding="utf-8")
    (toolkit.root / "blank.txt").write_text("\n\n", encoding="utf-8")
    good, bad, blank, again, gone = toolkit.run_in_one_process(
        f"{command} tales.txt --check",
        f"{command} broken.txt --check",
        f"{command} blank.txt --check",
        f"{command} tales.txt",
        f"{command} gone/tales.txt",
    )
    assert "40 of 40 stories are well-formed" in good.succeeds().out
    assert "36 of 40 stories are well-formed (90.0%)" in bad.succeeds().out
    blank.says(1, "blank.txt contains no text")
    again.says(1, "tales.txt already exists.*--overwrite")
    gone.says(1, "no folder")
    assert path.read_text(encoding="utf-8").splitlines() == lines
