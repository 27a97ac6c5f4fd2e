"""Pairs and conversations from training to the chat, with the commands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.commands.toolkit_copy import REPOSITORY, Toolkit

TRAIN = "python src/train.py"
CHAT = "python src/interactive_conditional_samples.py --length 4 --seed 1"
QA = r"'Q: {question}\nA: {answer}'"


@pytest.fixture
def records(toolkit: Toolkit) -> Path:
    """Files of records in the folder of a toolkit."""
    pairs = [{"question": f"{n}+1", "answer": n + 1} for n in range(30)]
    talks = [
        {
            "messages": [
                {"role": "user", "content": pair["question"]},
                {"role": "assistant", "content": str(pair["answer"])},
            ]
            * 2
        }
        for pair in pairs
    ]
    for name, content in (("pairs", pairs), ("talks", talks)):
        lines = "".join(json.dumps(record) + "\n" for record in content)
        (toolkit.root / f"{name}.jsonl").write_text(lines)
    return toolkit.root


@pytest.mark.slow
def test_the_template_is_kept_and_the_chat_uses_it(toolkit: Toolkit, records: Path) -> None:
    flags = "--max_steps 2 --batch_size 4 --val_split 0.2 --val_every 2 --val_batch_count 1"
    lines = (
        f"{TRAIN} --dataset pairs.jsonl --template {QA} --loss_on completion --run_name a {flags}",
        f"{TRAIN} --dataset talks.jsonl --loss_on completion --run_name b {flags}",
    )
    for done in toolkit.run_all(*lines):
        done.succeeds()
        assert "documents or lines" in done.out
    expected = {
        "a": {"template": "Q: {question}\nA: {answer}", "conversations": False},
        "b": {
            "template": "System: {system}\nUser: {user}\nAssistant: {assistant}\n",
            "conversations": True,
        },
    }
    for run, content in expected.items():
        for folder in (run, f"{run}/best"):
            path = toolkit.root / "checkpoint" / folder / "template.json"
            assert json.loads(path.read_text()) == content
    # A run that starts from another keeps the template; a dataset without one changes nothing.
    more = f"{TRAIN} --dataset text.npz --model_name checkpoint/a --run_name c --max_steps 1"
    toolkit.run(more).succeeds()
    copied = toolkit.root / "checkpoint" / "c" / "template.json"
    assert json.loads(copied.read_text()) == expected["a"]
    answers = toolkit.run_all(
        f"{CHAT} --model_name a --chat",
        f"{CHAT} --model_name b/best --chat --system Brief.",
        f"{CHAT} --model_name 117M --chat {QA}",
        typed="1+1\n2+1\n",
    )
    for done in answers:
        assert done.code == 0, done
        assert done.out.count("You >>> ") == 3 and "=====" not in done.out, done
    # The window of this model is short: the second prompt of a conversation does not fit.
    assert "oldest messages are dropped" in answers[1].err


def test_what_does_not_fit_is_an_error(toolkit: Toolkit, records: Path, no_tensorflow: str) -> None:
    (toolkit.root / "bad.jsonl").write_text('{"question": "a", "reply": "b"}\n')
    completion = "--loss_on completion"
    sentences = {
        f"{TRAIN} --dataset text.txt {completion}": r"^text\.txt has no completions",
        f"{TRAIN} --dataset text.npz {completion}": r"^text\.npz contains tokens.*text itself",
        f"{TRAIN} --dataset text.txt --template {QA}": r"^text\.txt is plain text.*\.jsonl",
        f"{TRAIN} --dataset bad.jsonl --template {QA}": r"^bad\.jsonl line 1.*'answer'.*'reply'",
        f"{TRAIN} --dataset bad.jsonl": r"^bad\.jsonl line 1.*'text'.*'reply'",
        f"{TRAIN} --dataset pairs.jsonl --template question": "has no field",
        f"{TRAIN} --dataset pairs.jsonl --template {QA} --field question": "Omit field",
        f"{CHAT} --chat": r"117M has no template.*--chat",
        f"{CHAT} --chat --temperature 0": r"117M has no template.*--chat",
        f"{CHAT} --chat question": "has no field",
    }
    before = toolkit.contents()
    lines = (f"{no_tensorflow} {line}" for line in sentences)
    answers = toolkit.run_in_one_process(*lines)
    for done, sentence in zip(answers, sentences.values(), strict=True):
        done.says(1, sentence)
    for line in (f"{CHAT} --chat {QA} --nsamples 2", f"{CHAT} --system x"):
        done = toolkit.run(f"{no_tensorflow} {line}")
        assert done.code == 2, done
        assert "--chat" in done.err
    done = toolkit.run(f"{TRAIN} --dataset pairs.jsonl --loss_on answers")
    assert done.code == 2 and "completion" in done.err
    assert toolkit.contents() == before


def test_encoded_pairs_are_examples_of_documents(toolkit: Toolkit, records: Path) -> None:
    toolkit.run(f"python src/encode.py pairs.jsonl pairs.npz --template {QA}").succeeds()
    done = toolkit.run(f"{TRAIN} --dataset pairs.npz --respect_documents --max_steps 1")
    done.succeeds()
    assert "in 30 documents" in done.out


@pytest.mark.slow
def test_the_example_answers_questions_that_it_was_not_asked_in_training(tmp_path: Path) -> None:
    toolkit = Toolkit(tmp_path / "toolkit")
    folder = toolkit.root / "examples" / "questions"
    folder.mkdir(parents=True)
    for name in ("questions.py", "README.md"):
        shutil.copy(REPOSITORY / "examples" / "questions" / name, folder)
    text = (folder / "README.md").read_text().replace("\\\n", " ")
    *commands, chat = re.findall(r"^python .*", text, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        toolkit.run(command).succeeds()
    test = [json.loads(line) for line in (folder / "data" / "test.jsonl").open()]
    typed = "".join(record["question"] + "\n" for record in test)
    done = toolkit.run(chat, typed=typed).succeeds()
    replies = re.findall(r"You >>> (.*?)\n\n(?=You >>> )", done.out, re.DOTALL)
    right = [reply.strip() == record["answer"] for reply, record in zip(replies, test, strict=True)]
    assert sum(right) > 0.8 * len(right), f"{sum(right)} of {len(right)}"
