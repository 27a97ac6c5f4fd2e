"""Work that is divided among machines with --shard and merged with --merge."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.parts import Part, in_order
from gpt2.stories.grammar import write_stories
from tests.commands.toolkit_copy import Toolkit

ENCODE = "python src/encode.py texts"


@pytest.fixture
def corpus(encoding_toolkit: Toolkit) -> Toolkit:
    """A toolkit with texts of several kinds, and one that has tokens already."""
    folder = encoding_toolkit.root / "texts"
    folder.mkdir()
    for number in range(7):
        text = "\n".join(write_stories(5 + number, seed=number))
        (folder / f"{number}.txt").write_text(text + "<|endoftext|>Äöü 你好 one more.\n")
    np.savez_compressed(folder / "tokens.npz", np.arange(250), np.arange(9))
    (folder / "x.jsonl").write_text('{"text": "A record."}\n{"text": "Another."}\n')
    return encoding_toolkit


def parts_of(count: int, command: str, name: str) -> list[str]:
    """The commands of all parts; {} in the name is the number of a part."""
    return [f"{command} {name.format(i)} --shard {i}/{count}" for i in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_merged_parts_of_a_dataset_are_the_bytes_of_the_whole(corpus: Toolkit, count: int) -> None:
    command = f"{ENCODE} --combine 900"
    for done in corpus.run_in_one_process(
        f"{command} whole.npz",
        f"{command} whole/",
        *parts_of(count, command, "part-{}.npz"),
        f"{command} merged.npz --merge part-*.npz",
        f"{command} merged/ --merge part-*.npz",
    ):
        assert done.code == 0, done
    root = corpus.root
    with np.load(root / "whole.npz") as whole:
        assert 8 < len(whole.files) < 40  # so that with 40 parts some are empty
    assert (root / "merged.npz").read_bytes() == (root / "whole.npz").read_bytes()
    assert corpus.contents("merged") == corpus.contents("whole")
    sizes = []
    for number in range(1, count + 1):
        with np.load(root / f"part-{number}.npz") as part:  # NumPy reads a part as any dataset
            sizes.append(len(part.files))
    assert max(sizes) - min(sizes) <= 1


def test_parts_that_do_not_belong_together_are_refused(corpus: Toolkit) -> None:
    root = corpus.root
    (root / "empty").mkdir()
    (root / "empty" / "a.txt").write_text(" ")
    merge = f"{ENCODE} merged.npz --merge"
    for done in corpus.run_in_one_process(
        *parts_of(3, ENCODE, "part-{}.npz"),
        f"{ENCODE} other-2.npz --shard 2/2",
        f"{ENCODE} combine-3.npz --shard 3/3 --combine 7",
        f"{ENCODE} whole.npz",
        *parts_of(2, "python src/encode.py empty", "empty-{}.npz"),
    ):
        assert done.code == 0, done
    (root / "texts" / "0.txt").write_text("changed")
    assert corpus.run(f"{ENCODE} changed-3.npz --shard 3/3").code == 0
    shutil.copy(root / "part-2.npz", root / "part-2-copy.npz")
    (root / "damaged.npz").write_bytes((root / "part-1.npz").read_bytes()[:-9])
    before = corpus.contents()
    refused = {
        "part-[13].npz": r"Part 2/3 is missing",
        "part-1.npz": r"Parts 2/3, 3/3 are missing",
        "part-*.npz": r"part-2\.npz: part 2/3, as part-2-copy\.npz\. Give each part once",
        "[op]*[12].npz": r"part-1\.npz: part 1/3, but other-2\.npz is one of 2 parts",
        "[cp][oa]*-[123].npz": r"combine is 7, but 50000 expected",
        "[cp][ah]*-[123].npz": r"text is '\w+', but '\w+' in changed-3\.npz",
        "whole.npz": r"whole\.npz: not a part",
        "damaged.npz": r"damaged\.npz: not a part",
        "texts/0.txt": r"0\.txt: not a part",
        "none-*.npz": r"no part matches 'none-\*\.npz'",
        "empty-*.npz": r"no text to encode",
    }
    done = corpus.run_in_one_process(*(f"{merge} '{pattern}'" for pattern in refused))
    for pattern, each in zip(refused, done, strict=True):
        each.says(1, refused[pattern])
    assert not (root / "merged.npz").exists()
    assert corpus.contents() == before


MISUSE = {
    "out.npz --shard 0/3": "--shard must be a part such as 1/4 or 4/4, not '0/3'",
    "out.npz --shard 4/3": "not '4/3'",
    "out.npz --shard 2": "not '2'",
    "out.npz --shard ٢/٣": "must be a part",
    "out.npz --shard 1/2 --merge x": "cannot be combined",
    "out/ --shard 1/2": "--shard writes a .npz file",
}


def test_flags_that_do_not_go_together_are_refused(corpus: Toolkit) -> None:
    done = corpus.run_in_one_process(*(f"{ENCODE} {flags}" for flags in MISUSE))
    for sentence, each in zip(MISUSE.values(), done, strict=True):
        each.says(2, sentence)


def test_the_parts_share_all_items() -> None:
    for count in range(1, 9):
        parts = [Part(number, count) for number in range(1, count + 1)]
        for item in range(20):
            assert [part.has(item) for part in parts].count(True) == 1
    assert [item for item in range(7) if Part(2, 3).has(item)] == [1, 4]


def test_the_order_is_that_of_the_parts_not_of_their_names() -> None:
    facts = {Path("b"): {"shard": "1/2", "x": 1}, Path("a"): {"shard": "2/2", "x": 1}}
    assert in_order(facts, {"x": 1}) == [Path("b"), Path("a")]
    with pytest.raises(UserError, match=r"b: x is 1, but 2 expected here"):
        in_order(facts, {"x": 2})
    with pytest.raises(UserError, match=r"y is None, but 3 in b"):
        in_order({Path("b"): {"shard": "1/2", "y": 3}, Path("a"): {"shard": "2/2"}}, {})
