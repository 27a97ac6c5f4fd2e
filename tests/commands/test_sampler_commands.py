"""The samplers, on a run by its name and on its files copied as in 2019."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys

import pytest

from tests.commands.toolkit_copy import DATA, INDEX, Home, Toolkit
from tests.support import waiting

BANNER = re.compile(r"^={40} SAMPLE (\d+) ={40}\n", re.MULTILINE)
INTERACTIVE = "python src/interactive_conditional_samples.py"
UNCONDITIONAL = "python src/generate_unconditional_samples.py"


def samples(shown: str) -> dict[int, str]:
    """The text below each banner, by the number in it."""
    before, *parts = BANNER.split(shown)
    assert before == ""
    return dict(zip(map(int, parts[::2]), parts[1::2], strict=True))


@pytest.fixture(scope="session")
def copied(trained: Toolkit) -> str:
    """The name of a model folder made by hand from seven files, as in the tutorials of 2019."""
    root = trained.root
    run, model = root / "checkpoint" / "short", root / "models" / "copied"
    last = (run / "counter").read_text().strip()
    model.mkdir()
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        shutil.copy(root / "models" / "117M" / name, model)
    for name in ("checkpoint", *(f"model-{last}{ending}" for ending in (DATA, INDEX, ".meta"))):
        shutil.copy(run / name, model)
    return model.name


def test_prompts_are_answered_as_in_2019_until_the_input_ends(
    trained: Toolkit, copied: str
) -> None:
    done, again = trained.run_all(
        f"{INTERACTIVE} --model_name short --batch_size 2 --nsamples 3 --length 6 --seed 4",
        f"{INTERACTIVE} --model_name {copied} --nsamples 3 --length 6 --seed 4",
        typed="Hello\n\n" + "far too long " * 20 + "\nThe",
    )
    done.says(0, "window is 32 tokens; continuing with the most recent part")
    before, first, empty, long, second, end = done.out.split("Model prompt >>> ")
    assert (before, empty, end) == ("", "Prompt should not be empty!\n", "\n")
    for answer in (first, long, second):
        assert answer.endswith("\n" + "=" * 80 + "\n")
        assert list(samples(answer)) == [1, 2, 3]
        assert len(set(samples(answer).values())) == 3
    # The same seed gives the same texts, whatever the batch, and so do files copied by hand.
    assert again == done


def test_texts_that_exceed_the_context_window_continue_with_one_notice(trained: Toolkit) -> None:
    done = trained.run(
        f"{UNCONDITIONAL} --model_name short --length 80 --nsamples 2 --ignore_eos --seed 4"
    )
    done.says(0, "window is 32 tokens; continuing with the most recent part")
    assert list(samples(done.out)) == [1, 2]


def test_samples_end_before_stop_and_truncate(trained: Toolkit) -> None:
    flags = "--model_name short --length 30 --nsamples 2 --ignore_eos --seed 4"
    whole, stopped, truncated = trained.run_all(
        f"{UNCONDITIONAL} {flags}",
        f"{UNCONDITIONAL} {flags} --stop e",
        f"{UNCONDITIONAL} {flags} --truncate e",
    )
    for number, text in samples(whole.succeeds().out).items():
        assert samples(stopped.succeeds().out)[number] == text.partition("e")[0].rstrip("\n") + "\n"
        assert samples(truncated.succeeds().out)[number] == samples(stopped.out)[number]


def test_samples_without_a_prompt_are_as_many_as_asked_for(trained: Toolkit) -> None:
    flags = "--model_name short --length 6 --seed 5"
    done = trained.run(f"{UNCONDITIONAL} {flags} --nsamples 3 --batch_size 2").succeeds()
    three = samples(done.out)
    assert list(three) == [1, 2, 3]
    assert len(set(three.values())) == 3

    # Without a number they continue until Ctrl+C. Called from inside src/ this time.
    command = f"python generate_unconditional_samples.py {flags}"
    with trained.start(command, folder="src") as running:
        running.send_when(signal.SIGINT, lambda: " SAMPLE 5 " in running.out)
        endless = running.finish()
    endless.says(130, "^interrupted$")
    assert list(samples(endless.out))[:5] == [1, 2, 3, 4, 5]
    assert [samples(endless.out)[number] for number in three] == list(three.values())


def test_broken_checkpoints_are_reported(toolkit: Toolkit) -> None:
    models = toolkit.root / "models"
    for name in ("cut", "changed", "foreign"):
        shutil.copytree(models / "117M", models / name)
    content = (models / "117M" / f"model.ckpt{DATA}").read_bytes()
    (models / "cut" / f"model.ckpt{DATA}").write_bytes(content[:20000])
    changed = content[:-7] + bytes([content[-7] ^ 1]) + content[-6:]
    (models / "changed" / f"model.ckpt{DATA}").write_bytes(changed)
    hparams = (models / "foreign" / "hparams.json").read_text()
    two_layers = hparams.replace('"n_layer": 1', '"n_layer": 2')
    (models / "foreign" / "hparams.json").write_text(two_layers)
    sentences = {
        "cut": r"ckpt\.data-00000-of-00001 is cut off after 20,000 of 34,496 bytes, in .*model/wte",
        "changed": r"model\.ckpt\.data-\S+: the tensor model/wte is damaged",
        "foreign": r"n_layer 1.*hparams\.json says n_layer 2",
    }
    answers = toolkit.run_all(
        *(f"{UNCONDITIONAL} --nsamples 1 --model_name {name}" for name in sentences)
    )
    for done, sentence in zip(answers, sentences.values(), strict=True):
        done.says(1, sentence)
        assert done.out == ""


def test_an_empty_sample_is_explained_once_on_standard_error(toolkit: Toolkit) -> None:
    vocabulary = json.loads((toolkit.root / "models" / "117M" / "encoder.json").read_text())
    only = f"--logit_bias '{{{vocabulary['<|endoftext|>']}: 1000}}' --length 3 --nsamples 2"
    done = toolkit.run(f"{UNCONDITIONAL} --model_name 117M {only}")
    done.says(0, r"<\|endoftext\|> as the first token.*--min_length N or --ignore_eos")
    assert samples(done.out) == {1: "\n", 2: "\n"}


def test_flags_are_checked_before_tensorflow_is_imported(home: Home, no_tensorflow: str) -> None:
    sentences = {
        "--top_k x": (2, "--top_k must be a whole number, not 'x'"),
        "--top_k 1.5": (2, "--top_k must be a whole number, not '1.5'"),
        "--nsample 1": (2, "no flag --nsample .did you mean --nsamples"),
        "117M": (2, "did you mean --model_name 117M"),
        "--engine gpu": (2, "--engine must be one of auto, tensorflow, litert"),
        "--beams 2": (2, "--beams needs a prompt"),
        "--seed 1 --seed 2": (2, "--seed is given twice"),
        "--temperature -1": (1, "temperature must be a number at least 0, not -1"),
        "--engine tensorflow --quantize int8": (1, "int8 .* tensorflow"),
        "--engine numpy --speculate": (1, "speculate .* engine numpy"),
        "--model_name gone": (1, "no model 'gone' .*117M"),
        "--model_name 117M --top_k 301": (1, "top_k is 301, .* 300 tokens"),
        "--model_name 117M --min_length 9 --length 8": (1, "min_length is 9, .* 8"),
        "--model_name 117M --truncate '[\"\"]'": (1, "--truncate"),
    }
    lines = (f"{no_tensorflow} {UNCONDITIONAL} {flags}" for flags in sentences)
    answers = home.toolkit.run_in_one_process(*lines)
    for done, (code, sentence) in zip(answers, sentences.values(), strict=True):
        done.says(code, sentence)
        assert done.out == ""


def test_speculation_with_beams_is_refused_before_the_model_is_loaded(
    home: Home, no_tensorflow: str
) -> None:
    flags = "--model_name 117M --beams 2 --speculate"
    (done,) = home.toolkit.run_in_one_process(f"{no_tensorflow} {INTERACTIVE} {flags}")
    done.says(1, "speculate cannot be combined with beams")
    assert done.out == ""


def test_none_stands_for_the_default_of_2019(trained: Toolkit) -> None:
    flags = "--model_name short --nsamples 1"
    done = trained.run(f"{UNCONDITIONAL} {flags} --seed None --length None --ignore_eos")
    done.succeeds()
    assert list(samples(done.out)) == [1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_piped_lines_have_no_byte_order_mark_and_no_carriage_return(
    home: Home, encoding: str
) -> None:
    command = f"{INTERACTIVE} --length 3 --seed 1 --include_prefix".split()
    typed = "ROMEO:\r\né\r\n".encode(encoding)
    done = waiting.run([sys.executable, *command[1:]], typed, text=False, cwd=home.toolkit.root)
    assert done.returncode == 0, done
    out = done.stdout.decode().replace("\r\n", "\n")
    first, second = (part.partition("=\n")[2] for part in out.split("Model prompt >>> ")[1:3])
    assert first.startswith("ROMEO:") and second.startswith("é")
    assert "\r" not in out and "\ufeff" not in out


def test_a_piped_line_that_is_not_text_is_named_and_the_others_are_answered(home: Home) -> None:
    command = f"{INTERACTIVE} --length 3 --seed 1 --include_prefix".split()
    lines = b"One\n\xff\xfe\ncaf\xe9\n\xed\xa0\x80\nTwo\n"
    done = waiting.run([sys.executable, *command[1:]], lines, text=False, cwd=home.toolkit.root)
    assert done.returncode == 0, done
    named = re.findall(r"not UTF-8 text \(byte 0x(..) at character (\d)", done.stderr.decode())
    assert named == [("ff", "0"), ("e9", "3"), ("ed", "0")]
    shown = re.findall(r"SAMPLE 1 =+\r?\n(...)", done.stdout.decode())
    assert shown == ["One", "Two"]


def test_banned_words_may_be_a_list_as_stop_sequences(home: Home) -> None:
    start = f"{UNCONDITIONAL} --model_name 117M --nsamples 1 --length 90 --ignore_eos --seed 1"
    values = ("a,e", '["a", "e"]', '["a,e"]', '["a", 5]')
    done = home.toolkit.run_in_one_process(*(f"{start} --banned_words '{one}'" for one in values))
    assert done[0].out == done[1].out
    assert not set("ae") & set(samples(done[1].out)[1])
    assert set("ae") & set(samples(done[2].out)[1])
    done[3].says(1, "--banned_words must be a list of strings only")


def test_flags_are_read_as_people_write_them(home: Home) -> None:
    lines = (
        f"{UNCONDITIONAL} --model_name 117M --nsamples 1 --length 4 --ignore_eos --seed 1 {flags}"
        for flags in (
            "",
            "--stop '[Verse'",
            "--stop '[1]'",
            "--stop '---'",
            "--stop=---",
            "--include_prefix=no",
            "--include_prefix no",
            "--logit_bias '{\"198\": -5}'",
            "--stop e --min_length 4",
        )
    )
    done = home.toolkit.run_in_one_process(*lines)
    for one in done[:5]:
        assert one.succeeds().out == done[0].out
    for one in done[5:]:
        assert one.code in (0, 2), one
    assert done[5].succeeds().out == done[0].out
    done[6].says(2, "unexpected argument 'no'")
    done[7].succeeds()
    assert done[8].succeeds().out == done[0].out
