"""Records with prompts and completions become examples that know which tokens are completions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import datasets, tokenization
from gpt2.data.datasets import DatasetSettings, DocumentSet, TokenStream, find_template
from gpt2.data.readers import ReaderSettings, read_pieces
from gpt2.data.samplers import DocumentSampler, make_validation_sampler
from gpt2.errors import UserError
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from tests.data.conftest import BYTES

QA = r"Q: {question}\nA: {answer}"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "more"},
    {"role": "assistant", "content": "bye"},
]


def texts(path: Path, **reading) -> list[str]:
    """Each document, its completions in brackets."""
    found, parts = [], []
    for piece in read_pieces(path, ReaderSettings(**reading)):
        parts.append(f"[{piece.text}]" if piece.completion else piece.text)
        if piece.ends:
            found.append("".join(parts))
            parts = []
    assert not parts
    return found


def json_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


# --- records ---


def test_records_with_prompt_and_completion_are_joined(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", {"prompt": "1+1=", "completion": "2", "id": 7})
    assert texts(path) == ["1+1=[2]"]


def test_a_template_joins_any_fields_and_numbers(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl",
        {"question": "1+1", "answer": 2},
        {"answer": "a\r\nb", "question": "é", "text": "other"},
    )
    assert texts(path, template=QA) == ["Q: 1+1\nA:[ 2]", "Q: é\nA:[ a\nb]"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz"])
def test_all_forms_of_json_have_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    records = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
    content = (
        json.dumps(records, indent=1) if name == "a.json" else "\n".join(map(json.dumps, records))
    )
    if name.endswith(".gz"):
        import gzip

        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)
    assert texts(path) == ["a[b]", "c[d]"]


@pytest.mark.parametrize("field", ["messages", "dialog"])
def test_conversations_are_read_from_their_field(tmp_path: Path, field: str) -> None:
    path = json_lines(tmp_path / "a.jsonl", {field: TALK})
    reading = {} if field == "messages" else {"field": field}
    assert texts(path, **reading) == [
        "System: Be brief.\nUser: hi\nAssistant:[ hello\nUser:] more\nAssistant:[ bye\n]"
    ]


def test_the_roles_take_the_form_of_a_template(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", {"messages": TALK[1:3]})
    assert texts(path, template="<{user}>{assistant}.") == ["<hi>[hello.]"]


def test_a_field_with_text_is_preferred_as_before(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl", {"text": "plain", "prompt": "a", "completion": "b", "messages": TALK}
    )
    assert texts(path) == ["plain"]
    assert texts(path, template="{prompt}{completion}") == ["a[b]"]


@pytest.mark.parametrize(
    ("content", "reading", "expected"),
    [
        ("prompt,completion\na,b\n", {}, ["a[b]"]),
        ("completion;id;prompt\nb;1;a\nd;2;c\n", {}, ["a[b]", "c[d]"]),
        ('question,answer\n"a, b",c\n', {"template": QA}, ["Q: a, b\nA:[ c]"]),
        ("id,answer,question\n1,c,a\n", {"template": QA}, ["Q: a\nA:[ c]"]),
        ("a b,c d\n", {"template": "{1}={2}", "header": "no"}, ["a b=[c d]"]),
        ("prompt,completion,text\na,b,c\n", {}, ["c"]),
        ("prompt,completion\na,b\n", {"column": "prompt"}, ["a"]),
    ],
)
def test_columns_of_a_table_are_fields(tmp_path, content, reading, expected) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    assert texts(path, **reading) == expected


@pytest.mark.parametrize(
    ("record", "reading", "fact"),
    [
        ({"question": "a"}, {"template": QA}, "line 1: no field 'answer'.*has 'question'"),
        ({"question": "a", "answer": ["b"]}, {"template": QA}, "'answer' is a list"),
        ({"question": "a", "answer": True}, {"template": QA}, "'answer' is true or false"),
        ("text", {"template": QA}, "record is a string.*'question', 'answer'"),
        ({"messages": TALK}, {"template": QA}, "no field 'question'.*has 'messages'"),
        ({"messages": TALK}, {"template": "{user}{assistant}"}, "message 1 .*'system'"),
        ({"messages": "hi"}, {}, "not a list"),
        ({"messages": [{"role": "tool", "content": ""}]}, {}, "line 1: message 1 .*'tool'.*system"),
        ({"prompt": "a", "Completion": "b"}, {}, "no field 'text'.*'prompt', 'Completion'"),
        ({"prompt": "a", "completion": "\ud800"}, {}, "lone surrogate"),
    ],
)
def test_a_bad_record_is_named_with_its_line(tmp_path, record, reading, fact) -> None:
    path = json_lines(tmp_path / "a.jsonl", record)
    with pytest.raises(UserError, match=fact):
        texts(path, **reading)


def test_a_missing_column_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,reply\na,b\n")
    with pytest.raises(UserError, match=r"no column 'answer', which the template.*'reply'"):
        texts(path, template=QA)


def test_records_without_a_completion_are_skipped_with_their_count(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl",
        {"prompt": "a", "completion": ""},
        {"prompt": "", "completion": "b"},
        {"prompt": "c", "completion": None},
        {"messages": [{"role": "user", "content": "hi"}]},
    )
    notices: list[str] = []
    pieces = list(read_pieces(path, ReaderSettings(), notice=notices.append))
    assert [piece.text for piece in pieces] == ["b"]
    assert len(notices) == 1 and "3 records without a completion" in notices[0]


def test_a_template_needs_records(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    with pytest.raises(UserError, match=r"a.txt is plain text.*\.jsonl"):
        texts(path, template=QA)


@pytest.mark.parametrize("other", [{"column": "a"}, {"field": "a"}])
def test_a_template_contradicts_a_single_field(other: dict) -> None:
    with pytest.raises(UserError, match=f"Omit {next(iter(other))}"):
        ReaderSettings(template=QA, **other)


# --- tokens ---


def read(path: Path, tokenizer: Tokenizer, **settings) -> DocumentSet | TokenStream:
    reading = ReaderSettings(template=settings.pop("template", ""))
    n_vocab = len(tokenizer.vocabulary)
    return datasets.read(
        str(path), DatasetSettings(**settings), tokenizer, n_vocab, reading=reading
    )


def shown(dataset: DocumentSet) -> list[str]:
    """Each document; a token that counts in the loss is followed by a dot, 256 is $."""
    found = []
    for chunk, begin, end in dataset.places.tolist():
        tokens = dataset.chunks[chunk][begin:end].tolist()
        counts = dataset.masks[chunk][begin:end].tolist()
        letters = ["$" if token == 256 else chr(token) for token in tokens]
        found.append(
            "".join(letter + "." * count for letter, count in zip(letters, counts, strict=True))
        )
    return found


def test_the_mask_has_the_completions_and_the_end(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    path = json_lines(
        tmp_path / "a.jsonl",
        {"prompt": "ab", "completion": "cd"},
        {"messages": [*TALK[1:], {"role": "user", "content": "x"}]},
    )
    dataset = read(path, bytes_and_endoftext, loss_on="completion")
    assert isinstance(dataset, DocumentSet)
    assert shown(dataset) == [
        "abc.d.$.",
        # The conversation does not end with a reply, so its end is not learned.
        "User: hi\nAssistant: .h.e.l.l.o.\n.U.s.e.r.:. more\nAssistant: .b.y.e.\n.U.s.e.r.:. x\n$",
    ]


def test_special_tokens_are_used_for_roles_if_there_are_any(tmp_path: Path) -> None:
    names = (ENDOFTEXT, "<|user|>", "<|assistant|>")
    tokenizer = Tokenizer(BYTES | {name: 256 + n for n, name in enumerate(names)}, [])
    path = json_lines(tmp_path / "a.jsonl", {"messages": TALK[1:3]})
    dataset = read(path, tokenizer, loss_on="completion")
    assert dataset.chunks[0].tolist() == [257, *b"hi", 258, *b"hello", 256]
    assert dataset.masks[0].tolist() == [False] * 4 + [True] * 6
    assert find_template(str(path), ReaderSettings(), tokenizer).text == (
        "{system}<|user|>{user}<|assistant|>{assistant}"
    )


def test_pairs_are_examples_of_their_own_without_any_flag(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    path = json_lines(tmp_path / "a.jsonl", *[{"prompt": "a", "completion": "b"}] * 3)
    dataset = read(path, bytes_and_endoftext)
    assert isinstance(dataset, DocumentSet)
    assert dataset.lengths.tolist() == [3, 3, 3]
    assert dataset.masks is None


def test_a_prompt_has_the_same_tokens_alone_and_in_an_example(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    # As one text, "ab" would be a single token here.
    tokenizer = Tokenizer(BYTES | {"ab": 256, ENDOFTEXT: 257}, [("a", "b")])
    path = json_lines(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"})
    dataset = read(path, tokenizer, loss_on="completion")
    assert dataset.chunks[0].tolist() == [*b"ab", 257]
    assert dataset.masks[0].tolist() == [False, True, True]


def test_masks_stay_aligned_over_chunks_and_a_split(
    tmp_path: Path, bytes_and_endoftext: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "_BLOCK", 7)
    records = [{"prompt": "p" * (n % 4), "completion": "c" * (1 + n % 3)} for n in range(20)]
    path = json_lines(tmp_path / "a.jsonl", *records)
    dataset = read(path, bytes_and_endoftext, loss_on="completion")
    expected = ["p" * (n % 4) + "c." * (1 + n % 3) + "$." for n in range(20)]
    assert len(dataset.chunks) > 3
    assert shown(dataset) == expected
    training, validation = dataset.split(0.3)
    assert shown(training) + shown(validation) == expected


def test_worker_processes_give_the_same_examples(
    tmp_path: Path, bytes_and_endoftext: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "PART", 64)
    monkeypatch.setattr(tokenization, "ALONE", 1)
    records = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(50)]
    path = json_lines(tmp_path / "a.jsonl", *records)
    found = [
        [
            (document.tokens.tolist(), document.completions.tolist())
            for document in tokenization.read_documents(
                [path], bytes_and_endoftext, 257, workers=workers
            )
        ]
        for workers in (1, 2)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 50


def test_the_loss_on_completions_needs_completions(
    tmp_path: Path, bytes_and_endoftext: Tokenizer, bytes_only: Tokenizer
) -> None:
    text = tmp_path / "a.txt"
    text.write_text("some text")
    plain = json_lines(tmp_path / "a.jsonl", {"text": "some text"})
    mixed = json_lines(
        tmp_path / "b.jsonl", {"prompt": "a", "completion": "b"}, {"text": "some text"}
    )
    for path in (text, plain, mixed):
        with pytest.raises(UserError, match=f"{path.name} has no completions"):
            read(path, bytes_and_endoftext, loss_on="completion")
    npz = tmp_path / "a.npz"
    npz.touch()
    with pytest.raises(UserError, match=r"a\.npz contains tokens.*text itself"):
        read(npz, bytes_and_endoftext, loss_on="completion")
    with pytest.raises(UserError, match="endoftext"):
        read(mixed, bytes_only, loss_on="completion")
    pairs = json_lines(tmp_path / "c.jsonl", {"prompt": "a", "completion": "b"})
    with pytest.raises(UserError, match="endoftext"):
        read(pairs, bytes_only)


def test_encoded_pairs_are_joined_with_their_end(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    path = json_lines(tmp_path / "a.jsonl", *[{"prompt": "a", "completion": "b"}] * 2)
    (chunk,) = tokenization.read_chunks([path], bytes_and_endoftext, 257)
    assert chunk.tolist() == [*b"ab", 256, *b"ab", 256]


# --- batches ---


def documents(*examples: str, endoftext: int | None = None, code: str = "") -> DocumentSet:
    """Documents of letters, of which the capital ones are completions."""
    given = [
        tokenization.TokenizedDocument(
            np.array(list(example.encode()), np.uint16),
            f"{code}.txt",
            np.array([letter.isupper() for letter in example]),
        )
        for example in examples
    ]
    tokenizer = Tokenizer(BYTES, []) if code else None
    return datasets.collect(given, tokenizer, endoftext, masked=True)


def epoch(sampler: DocumentSampler) -> list[tuple[str, str]]:
    """Inputs and targets of each example, padding and masked targets as dots, 256 as $."""
    found = []
    for number in range(sampler.steps_per_epoch(1)):
        batch = sampler.batch(number, 1)
        found.append(
            tuple(
                "".join(
                    "." if token < 0 else "$" if token == 256 else chr(token) for token in row[0]
                )
                for row in (batch.inputs, batch.targets)
            )
        )
    return sorted(found)


def test_only_completions_are_targets() -> None:
    sampler = DocumentSampler(documents("abCD", "aBcDe", "A"), 100, seed=1)
    assert epoch(sampler) == [("aBcD", "B.D."), ("abCD", ".CD.")]


@pytest.mark.parametrize("endoftext", [None, 256])
@pytest.mark.parametrize("code", ["", "k"])
def test_every_completion_of_a_long_example_is_a_target(endoftext, code: str) -> None:
    # Every window has the targets that are capital letters, and no other; all of them occur.
    text = "".join(chr(97 + n % 26) if n * n % 7 < 4 else chr(65 + n % 26) for n in range(200))
    for n_ctx in (8, 13):
        sampler = DocumentSampler(
            documents(text, "abC", endoftext=endoftext, code=code), n_ctx, seed=2
        )
        seen = Counter()
        for inputs, targets in epoch(sampler):
            tokens = inputs.rstrip(".")
            for at, target in enumerate(targets):
                following = tokens[at + 1 : at + 2]
                if target == ".":
                    assert not following.isupper()
                else:
                    assert target.isupper() and following in ("", target)
                    seen[target] += 1
        counts = Counter(letter for letter in text + "abC" if letter.isupper())
        assert all(seen[letter] >= count for letter, count in counts.items())


def test_packed_examples_have_the_same_targets() -> None:
    given = documents("abCD", "aBc", "deF", "gHIJ", "kL", endoftext=256)
    alone = DocumentSampler(given, 12, seed=1)
    packed = DocumentSampler(given, 12, seed=1, packing=True)
    assert packed.steps_per_epoch(1) < alone.steps_per_epoch(1)
    found = []
    for sampler in (alone, packed):
        examples = []
        for number in range(sampler.steps_per_epoch(1)):
            for example in sampler.batch(number, 1).examples():
                counted = example.targets[0] >= 0
                inputs, targets = example.inputs[0][counted], example.targets[0][counted]
                examples.append((inputs.tolist(), targets.tolist()))
        found.append(sorted(examples))
    assert found[0] == found[1]
    assert sorted(targets for _, targets in found[1]) == sorted(
        [[*b"CD"], [*b"B"], [*b"F"], [*b"HIJ"], [*b"L"]]
    )


def test_the_sizes_tell_how_many_tokens_count() -> None:
    sampler = DocumentSampler(documents("abCD", "aBcDe", endoftext=256), 100, seed=1)
    assert sampler.description.endswith("the loss is on the 4 tokens of completions")


def test_validation_and_training_have_the_same_masks() -> None:
    training, validation = documents(*["abCD", "cdEF"] * 5, endoftext=256).split(0.5)
    for part in (training, validation):
        targets = {row[1] for row in epoch(make_validation_sampler(part, 100, 0))}
        assert targets == {"..CD", "..EF"}
