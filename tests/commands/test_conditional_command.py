"""generate_conditional_samples.py: files of prompts in, samples out, resumed after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2.commands import conditional
from gpt2.errors import UserError
from gpt2.jsonl import RecordFile
from tests.commands.toolkit_copy import SIZES, Done, Home, Toolkit

PLAIN = "python src/generate_conditional_samples.py --model_name 117M --length 8"
COMMAND = f"{PLAIN} --top_k 20 --ignore_eos"


def records(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def well(done: Done) -> str:
    """What a command showed that ended well."""
    assert (done.code, done.sentences) == (0, []), done
    return done.out


def test_every_prompt_gets_its_samples_whatever_the_batch_size(home: Home) -> None:
    prompts = "The\nA longer prompt\nimport\n"
    one, several = home.toolkit.run_all(
        f"{COMMAND} --prompts - --nsamples 2 --seed 3 --batch_size 1",
        f"{COMMAND} --prompts - --nsamples 2 --seed 3 --batch_size 4",
        typed=prompts,
    )
    samples = records(well(one))
    assert [(sample["number"], sample["sample"]) for sample in samples] == [
        (number, sample) for number in (1, 2, 3) for sample in (0, 1)
    ]
    assert [sample["prompt"] for sample in samples[::2]] == prompts.splitlines()
    assert all(sample["finish_reason"] == "length" for sample in samples)
    assert all(sample["tokens"] == 8 and sample["logprob"] < 0 for sample in samples)
    assert len({sample["text"] for sample in samples}) == 6
    texts = {(s["number"], s["sample"]): s["text"] for s in samples}
    assert texts == {(s["number"], s["sample"]): s["text"] for s in records(well(several))}


def test_an_interrupted_output_is_resumed(toolkit: Toolkit) -> None:
    (toolkit.root / "prompts.txt").write_text("The\nA\nimport\nIf\n")
    command = f"{COMMAND} --prompts prompts.txt --seed 3"
    well(toolkit.run(f"{command} --out whole.jsonl"))
    whole = (toolkit.root / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    # Killed in the middle of the third line.
    (toolkit.root / "cut.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    (toolkit.root / "other.jsonl").write_bytes(lines[0])
    (toolkit.root / "foreign.jsonl").write_text("something else\n")
    cut, other, foreign = toolkit.run_all(
        # Without a seed it uses that of the samples that are there.
        f"{COMMAND} --prompts prompts.txt --out cut.jsonl",
        f"{command} --out other.jsonl --temperature 0.5",
        f"{command} --out foreign.jsonl",
    )
    well(cut)
    assert sorted((toolkit.root / "cut.jsonl").read_bytes().splitlines()) == sorted(
        whole.splitlines()
    )
    other.says(1, r"other\.jsonl line 1: .*temperature 1\.0, not 0\.5")
    foreign.says(1, r"foreign\.jsonl line 1: not a sample")
    assert (toolkit.root / "other.jsonl").read_bytes() == lines[0]
    assert (toolkit.root / "foreign.jsonl").read_text() == "something else\n"


def test_parts_of_the_prompts_make_the_samples_of_the_whole(toolkit: Toolkit) -> None:
    (toolkit.root / "prompts.txt").write_text("The\nA\nimport\nIf\nWhile\n")
    command = f"{COMMAND} --prompts prompts.txt --seed 3"
    whole, first, second, wrong = toolkit.run_all(
        command, f"{command} --shard 1/2", f"{command} --shard 2/2", f"{command} --shard 3/2"
    )
    parts = records(well(first)) + records(well(second))
    assert sorted(map(str, parts)) == sorted(map(str, records(well(whole))))
    assert [sample["number"] for sample in records(first.out)] == [1, 3, 5]
    wrong.says(2, "--shard must be a part such as 1/4 or 4/4, not '3/2'")


def test_a_bad_line_is_reported_and_the_others_run(toolkit: Toolkit) -> None:
    (toolkit.root / "prompts.jsonl").write_text('{"prompt": "The"}\n{"prompt": \n{"prompt": "A"}\n')
    done = toolkit.run(f"{COMMAND} --prompts prompts.jsonl")
    done.says(1, r"prompts\.jsonl line 2: invalid JSON .* skipped")
    assert [sample["number"] for sample in records(done.out)] == [1, 3]


def test_examples_come_first_and_a_folder_gets_a_file_for_each_prompt(toolkit: Toolkit) -> None:
    (toolkit.root / "examples.jsonl").write_text('{"q": "1+1", "a": "2"}\n')
    (toolkit.root / "prompts.txt").write_text("2+2\n3+3\n")
    done = toolkit.run(
        f"{COMMAND} --prompts prompts.txt --examples examples.jsonl --nsamples 2 --seed 1"
        r" --template 'Q: {q}\nA: {a}' --include_prefix --out answers/"
    )
    well(done)
    files = sorted((toolkit.root / "answers").glob("*.txt"))
    assert [file.name for file in files] == ["00001.txt", "00002.txt"]
    samples = files[1].read_text(encoding="utf-8").split("=" * 20 + "\n")
    assert len(samples) == 2
    assert all(sample.startswith("Q: 1+1\nA: 2\n\nQ: 3+3\nA:") for sample in samples)


def test_beams_find_the_most_probable_texts(home: Home) -> None:
    command = f"{PLAIN} --prompts -"
    found, greedy, conflicting = home.toolkit.run_all(
        f"{command} --beams 4 --nsamples 2",
        f"{command} --temperature 0",
        f"{command} --beams 4 --temperature 0",
        typed="The\n",
    )
    best, second = records(well(found))
    assert best["logprob"] / max(best["tokens"], 1) >= second["logprob"] / max(second["tokens"], 1)
    assert best["logprob"] >= records(well(greedy))[0]["logprob"] - 1e-3
    conflicting.says(1, "temperature cannot be combined with beams")


def test_missing_prompts_and_templates_are_reported(home: Home) -> None:
    none, half, gone = home.toolkit.run_all(
        COMMAND, f"{COMMAND} --prompts - --examples e.jsonl", f"{COMMAND} --prompts gone.txt"
    )
    none.says(2, "--prompts is missing")
    half.says(2, "--examples needs --template")
    gone.says(1, r"gone\.txt cannot be read")


def test_a_file_of_samples_from_before_flags_were_settings_is_resumed(toolkit: Toolkit) -> None:
    """Its settings hold --stop and --truncate as typed, and None for no --logit_bias."""
    (toolkit.root / "prompts.txt").write_text("The\nA\n")
    record = {
        **{"number": 1, "sample": 0, "prompt": "The", "text": "x", "finish_reason": "length"},
        **{"tokens": 1, "logprob": -1.0, "seed": 3},
        "settings": {
            **{"model_name": "117M", "seed": 3, "nsamples": 1, "length": 8, "temperature": 1},
            **{"top_k": 20, "top_p": 1, "quantize": "none", "min_p": 0, "typical_p": 0},
            **{"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0},
            **{"no_repeat_ngram": 0, "banned_words": "zebra", "logit_bias": {"5": 1}},
            **{"stop": '["\\n", "###"]', "min_length": 0, "ignore_eos": True},
            **{"truncate": "a\\tb", "beams": 0, "length_penalty": 1, "include_prefix": False},
        },
    }
    before = json.dumps(record) + "\n"
    (toolkit.root / "out.jsonl").write_text(before)
    flags = (
        r"""--banned_words zebra --logit_bias '{5: 1}' --truncate 'a\tb' --stop '["\n", "###"]'"""
    )
    done = toolkit.run(f"{COMMAND} --prompts prompts.txt --out out.jsonl {flags}")
    done.says(0, r"out\.jsonl: .*earlier version.*fingerprint")
    after = (toolkit.root / "out.jsonl").read_text(encoding="utf-8")
    assert after.startswith(before)
    first, second = records(after)
    fingerprint = second["settings"].pop("model_fingerprint")
    assert len(fingerprint) == 64
    assert second["number"] == 2 and second["settings"] == first["settings"]


def test_each_prompt_gets_its_own_answer_when_the_file_changes(toolkit: Toolkit) -> None:
    prompts, out = toolkit.root / "prompts.txt", toolkit.root / "o.jsonl"
    command = f"{COMMAND} --prompts prompts.txt --out o.jsonl --seed 3"
    prompts.write_text("The\nA\nThe\n")
    first = well(toolkit.run(command)) or out.read_text()
    prompts.write_text("import\nThe\nA\nThe\nIf\n")
    inserted = well(toolkit.run(command)) or out.read_text()
    assert inserted.startswith(first)
    assert [(r["number"], r["prompt"]) for r in records(inserted)] == [
        *((1, "The"), (2, "A"), (3, "The")),
        *((4, "import"), (5, "If")),
    ]
    prompts.write_text("The\nB\nThe\n")
    well(toolkit.run(f"{COMMAND} --prompts prompts.txt --out folder/"))
    done = toolkit.run(command)
    done.says(1, r"o\.jsonl line 2: .*prompt 'A', which is not in prompts\.txt .*--overwrite")
    assert out.read_text() == inserted
    well(toolkit.run(f"{command} --overwrite"))
    assert [r["prompt"] for r in records(out.read_text())] == ["The", "B", "The"]
    prompts.write_text("The\n")
    toolkit.run(f"{COMMAND} --prompts prompts.txt --out folder/").says(1, "prompt 'B'")


@pytest.mark.slow
def test_samples_of_other_weights_templates_and_settings_are_refused(toolkit: Toolkit) -> None:
    (toolkit.root / "prompts.txt").write_text("The\nA\n")
    commands = [f"{COMMAND} --prompts prompts.txt --out {out}" for out in ("o.jsonl", "folder/")]
    for command in commands:
        well(toolkit.run(command))
    before = toolkit.contents()
    others = {
        "--temperature 0.5": r"\.jsonl line 1: .*temperature 1\.0, not 0\.5.*--overwrite",
        "--nsamples 2": "nsamples 1, not 2",
        "--seed 1234567": "seed .*, not 1234567",
        "--template 'Q: {q}'": "prompt 'The', which is not in prompts.txt .*--template",
    }
    for command in commands:
        for flags, sentence in others.items():
            toolkit.run(f"{command} {flags}").says(1, sentence)
    new = f"python src/new_model.py 117M --dataset text.txt {SIZES} --seed 2"
    (toolkit.root / "models" / "117M").rename(toolkit.root / "models" / "old")
    toolkit.run(new)
    for command in commands:
        toolkit.run(command).says(1, "model_fingerprint")
    after = toolkit.contents()
    assert {name: after[name] for name in before if "models" not in name} == {
        name: before[name] for name in before if "models" not in name
    }
    well(toolkit.run(f"{commands[1]} --nsamples 2 --overwrite"))
    assert "=" * 20 in (toolkit.root / "folder" / "00001.txt").read_text(encoding="utf-8")


def test_a_folder_is_resumed_prompt_by_prompt(toolkit: Toolkit) -> None:
    folder = toolkit.root / "folder"
    command = f"{COMMAND} --prompts prompts.txt --out folder/"
    (toolkit.root / "prompts.txt").write_text("The\nA\n")
    well(toolkit.run(f"{command} --seed 3"))
    before = toolkit.contents("folder")
    (folder / "00001.txt").unlink()
    well(toolkit.run(command))
    assert toolkit.contents("folder")["00001.txt"] == before["00001.txt"]
    # A folder from before prompts were recorded.
    (folder / ".samples.jsonl").unlink()
    (folder / "00002.txt").unlink()
    (folder / "00001.txt").write_text("old")
    toolkit.run(f"{command} --seed 3").says(0, "1 text files from an earlier version")
    assert (folder / "00001.txt").read_text() == "old"
    assert toolkit.contents("folder")["00002.txt"] == before["00002.txt"]


def test_one_bad_prompt_does_not_stop_the_others_and_stays_reported(toolkit: Toolkit) -> None:
    lines = ['{"prompt": "The"}', '{"prompt": "\\ud800"}', '{"text": "A"}', '{"prompt": "A"}']
    (toolkit.root / "p.jsonl").write_text("\n".join(lines))
    command = f"{COMMAND} --prompts p.jsonl --out o.jsonl --seed 1"
    contents = []
    for _ in range(2):
        done = toolkit.run(command)
        assert done.code == 1
        wrong_key, surrogate = done.sentences
        assert wrong_key.startswith("p.jsonl line 3: no field 'prompt'; the fields are 'text'.")
        assert surrogate.startswith("p.jsonl line 2: ")
        contents.append((toolkit.root / "o.jsonl").read_bytes())
        assert [r["number"] for r in records(contents[-1].decode())] == [1, 4]
    assert contents[0] == contents[1]

    (toolkit.root / "p.txt").write_text("The\n" + "far too long " * 20 + "\nA\n")
    done = toolkit.run(f"{PLAIN} --prompts p.txt --beams 2")
    done.says(1, r"p\.txt line 2: Beam search is limited .* skipped")
    assert [r["number"] for r in records(done.out)] == [1, 3]


def test_prompts_are_read_in_every_form(toolkit: Toolkit) -> None:
    expected = ["ROMEO:", "é"]
    forms = {
        "bom.txt": "\ufeffROMEO:\r\né\r\n".encode(),
        "utf16.txt": "ROMEO:\r\né\r\n".encode("utf-16"),
        "list.json": json.dumps(expected).encode(),
        "bom.jsonl": b'\xef\xbb\xbf{"prompt": "ROMEO:"}\r\n{"prompt": "\\u00e9"}\r\n',
    }
    for name, content in forms.items():
        (toolkit.root / name).write_bytes(content)
        done = toolkit.run(f"{COMMAND} --prompts {name}")
        assert [r["prompt"] for r in records(well(done))] == expected, name
    done = toolkit.run(f"{COMMAND} --prompts -", typed="\ufeffROMEO:\r\né\r\n")
    assert [r["prompt"] for r in records(well(done))] == expected
    (toolkit.root / "word.docx").write_bytes(b"PK\x03\x04" + bytes(20))
    toolkit.run(f"{COMMAND} --prompts word.docx").says(1, r"word\.docx: a zip file")


def test_one_prompt_can_be_given_as_a_flag(home: Home) -> None:
    given, filled, both, none = home.toolkit.run_all(
        f"{COMMAND} --prompt 'The end'",
        f"{COMMAND} --prompt '2+2' --template 'Q: {{q}}\\nA:'",
        f"{COMMAND} --prompt a --prompts b",
        f"{COMMAND} --prompt ''",
    )
    assert records(well(given))[0]["prompt"] == "The end"
    assert records(well(filled))[0]["prompt"] == "Q: 2+2\nA:"
    both.says(2, "--prompts and --prompt cannot be combined")
    assert records(well(none))[0]["prompt"] == ""


@pytest.mark.parametrize(
    ("texts", "earlier", "expected"),
    [
        ("ABC", {}, {1: 1, 2: 2, 3: 3}),
        ("ABC", {1: "A", 3: "C"}, {1: 1, 2: 2, 3: 3}),
        ("AXBC", {1: "A", 2: "B", 3: "C"}, {1: 1, 2: 4, 3: 2, 4: 3}),
        ("XABCD", {1: "A", 2: "B", 3: "C"}, {1: 4, 2: 1, 3: 2, 4: 3, 5: 5}),
        ("AAA", {1: "A", 2: "A"}, {1: 1, 2: 2, 3: 3}),
        ("BAA", {1: "A", 2: "A"}, {1: 3, 2: 2, 3: 1}),
        ("CBA", {1: "A", 2: "B", 3: "C"}, {1: 3, 2: 2, 3: 1}),
        ("AB", {1: None}, {1: 1, 2: 2}),
    ],
)
def test_prompts_keep_their_numbers(texts: str, earlier: dict, expected: dict) -> None:
    by_position = dict(enumerate(texts, start=1))
    assert conditional.assign_numbers(by_position, earlier) == expected


def test_shortened_files_of_a_folder_do_not_count_as_done(toolkit: Toolkit) -> None:
    (toolkit.root / "prompts.txt").write_text("The\nA\nimport\nIf\n")
    command = f"{COMMAND} --prompts prompts.txt --seed 3 --out out/"
    well(toolkit.run(command))
    folder = toolkit.root / "out"
    whole = toolkit.contents("out")
    cut, edited = whole["00002.txt"][:-3], b"My own and longer text, which nobody may lose.\n" * 9
    (folder / "00001.txt").write_bytes(b"")
    (folder / "00002.txt").write_bytes(cut)
    (folder / "00003.txt").write_bytes(edited)
    done = toolkit.run(command)
    done.says(0, r"00002\.txt.* kept as .*00002-1\.txt")
    after = toolkit.contents("out")
    assert after["00002-1.txt"] == cut
    assert after["00003.txt"] == edited
    for name in ("00001.txt", "00002.txt", "00004.txt"):
        assert after[name] == whole[name], name
    well(toolkit.run(command))


@pytest.mark.parametrize(
    "changed",
    [
        *({"number": number} for number in (-1, 0, 1.5, "1", True, None, 10**300, [1])),
        *({"sample": sample} for sample in (-1, "0", 2**60)),
        *({"text": None}, {"text": 5}, {"prompt": 5}),
    ],
    ids=str,
)
def test_a_record_that_is_no_sample_is_refused(tmp_path: Path, changed: dict) -> None:
    record = {"number": 1, "sample": 0, "prompt": "The", "text": "end", "settings": {}}
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert RecordFile(path, {}, conditional.sample_of).records == [(1, 0, "The", None)]
    missing = next(iter(changed))
    for bad in (record | changed, {key: record[key] for key in record if key != missing}):
        if bad.keys() == record.keys() - {"sample"}:
            continue  # older versions had one sample for each prompt
        path.write_text(json.dumps(record) + "\n" + json.dumps(bad) + "\n")
        with pytest.raises(UserError, match=r"out\.jsonl line 2: not a sample"):
            RecordFile(path, {}, conditional.sample_of)


def test_a_prompt_without_a_possible_token_is_reported_once_and_the_others_run(
    toolkit: Toolkit,
) -> None:
    """The logits overflow for prompts that contain the token of "O"."""
    vocabulary = json.loads((toolkit.root / "models/117M/encoder.json").read_text("utf-8"))
    overflow = f"--logit_bias '{{{vocabulary['O']}: 3e38}}' --repetition_penalty 1e-9"
    (toolkit.root / "p.txt").write_text("x\nO\ny\n")
    one = PLAIN.replace("--length 8", "--length 1")
    line = f"{one} --prompts p.txt --out o.jsonl --nsamples 2 {overflow}"
    for _ in range(2):  # it stays reported
        toolkit.run(line).says(1, r"^p\.txt line 2: The logits overflow.*This prompt is skipped")
        lines = (toolkit.root / "o.jsonl").read_text("utf-8").splitlines()
        assert sorted(json.loads(each)["prompt"] for each in lines) == ["x", "x", "y", "y"]
