"""generate_conditional_samples.py: files of prompts in, samples out, resumed after a kill."""

from __future__ import annotations

import json

from tests.commands.toolkit_copy import Done, Home, Toolkit

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
    files = sorted((toolkit.root / "answers").iterdir())
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
    half.says(2, "--examples and --template")
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
    well(toolkit.run(f"{COMMAND} --prompts prompts.txt --out out.jsonl {flags}"))
    after = (toolkit.root / "out.jsonl").read_text(encoding="utf-8")
    assert after.startswith(before)
    first, second = records(after)
    assert second["number"] == 2 and second["settings"] == first["settings"]
