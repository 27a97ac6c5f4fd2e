"""The samplers, on a run by its name and on its files copied as in 2019."""

from __future__ import annotations

import re
import shutil
import signal

import pytest

from tests.commands.toolkit_copy import DATA, INDEX, Toolkit

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
    """The name of a model put together by hand from seven files, as the tutorials tell."""
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
    done.says(0, "looks at 32 tokens at most; of a longer text it is given the last part")
    before, first, empty, long, second, end = done.out.split("Model prompt >>> ")
    assert (before, empty, end) == ("", "Prompt should not be empty!\n", "\n")
    for answer in (first, long, second):
        assert answer.endswith("\n" + "=" * 80 + "\n")
        assert list(samples(answer)) == [1, 2, 3]
        assert len(set(samples(answer).values())) == 3
    # The same seed gives the same texts, whatever the batch, and so do files copied by hand.
    assert again == done


def test_texts_longer_than_the_window_go_on_and_say_so_once(trained: Toolkit) -> None:
    done = trained.run(
        f"{UNCONDITIONAL} --model_name short --length 80 --nsamples 2 --ignore_eos --seed 4"
    )
    done.says(0, "looks at 32 tokens at most; of a longer text it is given the last part")
    assert list(samples(done.out)) == [1, 2]


def test_samples_end_where_they_are_told_to(trained: Toolkit) -> None:
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

    # Without a number they go on until Ctrl+C. Called from inside src/ this time.
    command = f"python generate_unconditional_samples.py {flags}"
    with trained.start(command, folder="src") as running:
        running.send_when(signal.SIGINT, lambda: " SAMPLE 5 " in running.out)
        endless = running.finish()
    endless.says(130, "^interrupted$")
    assert list(samples(endless.out))[:5] == [1, 2, 3, 4, 5]
    assert [samples(endless.out)[number] for number in three] == list(three.values())


def test_broken_checkpoints_are_told(toolkit: Toolkit) -> None:
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
        "foreign": r"checkpoint \(1 layer, width 16\); .*hparams\.json says 2 layers, width 16",
    }
    answers = toolkit.run_all(
        *(f"{UNCONDITIONAL} --nsamples 1 --model_name {name}" for name in sentences)
    )
    for done, sentence in zip(answers, sentences.values(), strict=True):
        done.says(1, sentence)
        assert done.out == ""
