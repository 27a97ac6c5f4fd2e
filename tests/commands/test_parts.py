"""Work that is divided among machines with --shard and merged with --merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.parts import Part, in_order
from gpt2.stories.grammar import write_stories
from tests.commands.toolkit_copy import Toolkit

pytestmark = pytest.mark.slow

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


# --- evaluate ---

EVALUATE = "python src/evaluate.py"
MODEL = "--model_name short"
SCORED = {
    "strided": f"perplexity {MODEL} --dataset long.txt --window 16 --stride 5 --json",
    "lambada": f"perplexity {MODEL} --dataset passages.jsonl --recipe lambada --json",
    "cloze": f"perplexity {MODEL} --dataset questions.txt --recipe cbt-cn --json",
    "score": f"score {MODEL} --file passages.jsonl --json",
}


COUNTS = {"strided": 3, "lambada": 5, "cloze": 3, "score": 2}  # of parts


@pytest.fixture(scope="module")
def scored(trained: Toolkit) -> Toolkit:
    """The trained toolkit, with test sets of several batches, evaluated whole and in parts."""
    stories = list(write_stories(130, seed=5))
    root = trained.root
    (root / "long.txt").write_text("\n".join(stories[:60]))
    passages = [{"text": " ".join(story.split()[:9])} for story in stories]
    (root / "passages.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in passages))
    question = "1 A cat .\n2 The XXXXX ran {} .\tcat\t\tcat|dog|fox\n\n"
    questions = map(question.format, ("home", "away", "off", "in a circle", "up"))
    (root / "questions.txt").write_text("".join(questions))
    lines = []
    for name, command in SCORED.items():
        lines += [f"{command} {name}-whole.json"]
        lines += parts_of(COUNTS[name], command, f"{name}-part-{{}}.jsonl")
        lines += [f"{command} {name}-merged.json --merge {name}-part-*.jsonl"]
    for done in trained.run_in_one_process(*(f"{EVALUATE} {line}" for line in lines)):
        assert done.code == 0, done
    return trained


@pytest.mark.parametrize("name", SCORED)
def test_merged_parts_of_an_evaluation_are_the_figures_of_the_whole(
    scored: Toolkit, name: str
) -> None:
    whole, merged = (scored.root / f"{name}-{kind}.json" for kind in ("whole", "merged"))
    assert whole.read_bytes() == merged.read_bytes()
    count = COUNTS[name]
    parts = [batches(scored.root / f"{name}-part-{i}.jsonl") for i in range(1, count + 1)]
    total = sum(map(len, parts))
    assert parts == [list(range(first, total, count)) for first in range(count)]
    assert total >= 3
    assert (parts[-1] == []) == (name == "lambada")  # a part without a batch is valid


def batches(path: Path) -> list[int]:
    """The numbers of the batches in a part."""
    records = map(json.loads, path.read_text().splitlines())
    return [record["batch"] for record in records if record["batch"] is not None]


def test_a_killed_part_is_refused_until_it_has_been_resumed(scored: Toolkit) -> None:
    root = scored.root
    whole = (root / "strided-part-2.jsonl").read_bytes()
    for number in (1, 3):
        shutil.copy(root / f"strided-part-{number}.jsonl", root / f"cut-{number}.jsonl")
    part = root / "cut-2.jsonl"
    part.write_bytes(whole[: whole.index(b"\n", whole.index(b"\n") + 1) + 50])
    merge = f"{EVALUATE} {SCORED['strided']} cut.json --merge cut-*.jsonl"
    unfinished, resumed, merged = scored.run_in_one_process(
        merge, f"{EVALUATE} {SCORED['strided']} {part.name} --shard 2/3", merge
    )
    unfinished.says(1, r"cut-2\.jsonl: unfinished part 2/3, without batch 5")
    assert "(1 existed already)" in resumed.out
    assert part.read_bytes() == whole
    assert merged.code == 0
    assert (root / "cut.json").read_bytes() == (root / "strided-whole.json").read_bytes()


def test_parts_of_other_evaluations_are_refused(scored: Toolkit) -> None:
    command = SCORED["strided"]
    shutil.copy(scored.root / "strided-part-1.jsonl", scored.root / "copy.jsonl")
    shutil.copy(scored.root / "long.txt", scored.root / "other.txt")
    with open(scored.root / "other.txt", "a") as file:
        file.write("!")
    other = command.replace("long.txt", "other.txt")
    before = scored.contents()
    parts = "strided-part-"
    wider = command.replace("stride 5", "stride 7")
    refused = {
        f"{wider} x.json --merge {parts}*.jsonl": r"stride is 5, but 7 expected",
        f"{other} x.json --merge {parts}*.jsonl": r"bytes is '?\d+'?, but '?\d+'? expected",
        f"{command} x.json --merge {parts}[12].jsonl": r"Part 3/3 is missing",
        f"{command} x.json --merge [sc][to]*[1py].jsonl": r"part 1/3, as copy\.jsonl",
        f"{command} x.json --merge strided-whole.json": r"strided-whole\.json: not a part",
        f"{command} {parts}1.jsonl --merge {parts}*": r"one of the parts to merge",
        f"{command} {parts}1.jsonl --shard 2/3": r"shard '1/3', not '2/3'",
        f"{command} {parts}1.jsonl --shard 1/4": r"shard '1/3', not '1/4'",
        f"{command} long.txt --shard 1/3": r"long\.txt.*not ",
        f"perplexity {MODEL} --dataset none.txt --json y.jsonl --shard 1/2": "none.txt is not a",
    }
    done = scored.run_in_one_process(*(f"{EVALUATE} {line}" for line in refused))
    for sentence, each in zip(refused.values(), done, strict=True):
        each.says(1, sentence)
    misuse = {
        f"perplexity {MODEL} --dataset long.txt --shard 1/2": "--shard needs --json FILE",
        f"score {MODEL} --text a --json x.json --shard 1/2": "need --file",
        f"{command} x.json --shard 3/2": "not '3/2'",
    }
    done = scored.run_in_one_process(*(f"{EVALUATE} {line}" for line in misuse))
    for sentence, each in zip(misuse.values(), done, strict=True):
        each.says(2, sentence)
    assert scored.contents() == before


# --- samples ---

PROMPTS = "python src/generate_conditional_samples.py --prompts prompts.txt --nsamples 2 --length 6"
GRID = f"{EVALUATE} grid --temperature 0.7,1 --nsamples 5 --length 6"


def lines(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


def test_merged_samples_are_those_of_one_machine(toolkit: Toolkit) -> None:
    root, command = toolkit.root, f"{PROMPTS} --seed 3"
    (root / "prompts.txt").write_text("The\nA\nimport\nIf\nWhile\n")
    done = toolkit.run_in_one_process(
        f"{command} --out whole.jsonl",
        *(f"{command} --out part-{i}.jsonl --shard {i}/3" for i in (1, 2, 3)),
        f"{PROMPTS} --out merged.jsonl --merge part-*.jsonl",
        f"{command} --out texts/ --merge part-*.jsonl",
        f"{command} --out seven-7.jsonl --shard 7/7",  # has no prompt
        f"{command} --out half.jsonl --shard 1/2",
        f"{command} --out x.jsonl --merge part-[12].jsonl",
        f"{command} --out x.jsonl --merge [hp]a*.jsonl",
        f"{PROMPTS} --seed 4 --out x.jsonl --merge part-*.jsonl --temperature 0.5",
        f"{command} --out part-1.jsonl --merge part-*.jsonl",
        f"{command} --out x.jsonl --merge prompts.txt",
    )
    assert [each.code for each in done] == [0] * 8 + [1] * 5
    assert lines(root / "merged.jsonl") == lines(root / "whole.jsonl")
    numbers = [json.loads(line)["number"] for line in (root / "merged.jsonl").open()]
    assert numbers == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert len(list((root / "texts").glob("*.txt"))) == 5
    assert (root / "seven-7.jsonl").read_text() == ""
    refused = done[-5:]
    refused[0].says(1, r"2 of 10 samples are in no part, the first of them sample 0 of prompt 3")
    refused[1].says(1, r"part-1\.jsonl line 1: .* is in half\.jsonl, too")
    refused[2].says(1, r"part-1\.jsonl line 1: .*temperature 1\.0, not 0\.5")
    refused[3].says(1, r"part-1\.jsonl: one of the parts to merge")
    refused[4].says(1, r"prompts\.txt line 1: not a sample")
    assert not (root / "x.jsonl").exists()


def test_a_merged_grid_is_that_of_one_machine(toolkit: Toolkit) -> None:
    root = toolkit.root
    done = toolkit.run_in_one_process(
        f"{GRID} --out whole --json whole.json",
        *(f"{GRID} --out part-{i} --shard {i}/3" for i in (1, 2, 3)),
        *(f"{GRID} --out many-{i} --shard {i}/12" for i in (1, 11)),
        f"{GRID} --out merged --json merged.json --merge part-*",
        f"{GRID} --out x --merge part-[13]",
        f"{GRID} --out x --merge [mp]a[nr]*-1",
        f"{GRID} --out x --seed 5 --merge part-*",
        f"{GRID} --out x --merge whole.json",
        f"{GRID} --shard 1/2",
        f"{GRID} --shard 1/2 --out y --json y.json",
    )
    assert [each.code for each in done] == [0] * 7 + [1] * 4 + [2] * 2
    assert (root / "merged.json").read_bytes() == (root / "whole.json").read_bytes()
    names = [path.name for path in (root / "whole").iterdir()]
    assert len(names) == 2
    for name in names:
        assert lines(root / "merged" / name) == lines(root / "whole" / name)
    assert list((root / "many-11").iterdir()) == []  # there are ten samples
    refused = done[7:]
    refused[0].says(1, r"3 of 10 samples are in no part, the first of them sample 1 of temp")
    refused[1].says(1, r"part-1/temp.*: sample 0 is in many-1/temp.*, too")
    refused[2].says(1, r"part-1/temp.* line 1: .*seed 1, not 5")
    refused[3].says(1, r"whole\.json: not a part")
    refused[4].says(2, "--shard needs --out FOLDER")
    refused[5].says(2, "--shard and --json cannot be combined")
    assert list((root / "x").iterdir()) == []


# --- parts ---


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
