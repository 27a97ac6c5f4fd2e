"""Checkpoints that PyTorch and transformers wrote are read, or refused by what makes them differ.

The files and their logits in tests/golden/interop come from make_interop.py beside it.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.interop import from_huggingface, safetensors_file, torch_file
from gpt2.interop.from_huggingface import ReadingOptions, open_model
from gpt2.interop.hub_tokenizer import Vocabulary
from gpt2.interop.stored import StoredTensor
from gpt2.interop.weights import PortableModel, write_model
from gpt2.tokenizer import Tokenizer

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop"
HF = GOLDEN / "transformers"
VOCABULARY = from_huggingface._vocabulary(HF, ReadingOptions())
ANY = ReadingOptions(n_head=2, vocabulary=lambda: VOCABULARY)
EXACT = ReadingOptions(approximate_gelu=True, vocabulary=lambda: VOCABULARY)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Tokens [1, 12], and logits of each kind of model."""
    with np.load(GOLDEN / "logits.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    """A copy of the folder that transformers wrote, to be changed."""
    return Path(shutil.copytree(HF, tmp_path / "hf"))


def logits(model: PortableModel, tokens: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    from gpt2 import model as reference

    weights = {name: tf.constant(values) for name, values in model.tensors()}
    return reference.logits(weights, model.hparams, tf.constant(tokens, tf.int32)).numpy()


def alone(folder: Path, name: str) -> Path:
    """A copy of one golden file in a folder of its own."""
    folder.mkdir()
    return Path(shutil.copy(GOLDEN / name, folder / name))


def change(path: Path, **changes: object) -> None:
    """Change the object in a JSON file; None deletes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


# --- what is read ---


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("transformers", "logits"),
        ("sharded", "logits"),
        ("zip.bin", "logits"),
        ("old.bin", "logits"),
        ("half.bin", "logits_half"),
        ("bfloat16.bin", "logits_bfloat16"),
        ("mingpt.pt", "logits"),
    ],
)
def test_logits_are_those_of_transformers(
    file: str, expected: str, arrays: dict[str, np.ndarray]
) -> None:
    model = open_model(GOLDEN / file, ANY)
    np.testing.assert_allclose(logits(model, arrays["tokens"]), arrays[expected], atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}, "inverse"),
        ({"scale_attn_weights": False}, "unscaled"),
    ],
)
def test_another_scale_of_attention_goes_into_the_queries(
    changes: dict[str, object], expected: str, hf: Path, arrays: dict[str, np.ndarray]
) -> None:
    change(hf / "config.json", **changes)
    found = logits(open_model(hf, ANY), arrays["tokens"])
    assert np.abs(found - arrays["logits"]).max() > 0.001  # the change matters
    np.testing.assert_allclose(found, arrays[f"logits_{expected}"], atol=1e-4)


def test_nanogpt_is_read_with_its_missing_biases_as_zeros(arrays: dict[str, np.ndarray]) -> None:
    model = open_model(GOLDEN / "nanogpt.pt", EXACT)
    assert not model.read("model/h1/mlp/c_fc/b").any()
    found = logits(model, arrays["tokens"])
    difference = np.abs(found - arrays["logits_nanogpt"]).max()
    assert 0 < difference < 0.02  # the tanh form of GELU, in two layers of large weights


def test_nanogpts_exact_gelu_is_refused_unless_allowed() -> None:
    with pytest.raises(UserError, match=r"exact GELU.*approximate_gelu"):
        open_model(GOLDEN / "nanogpt.pt", ANY)


def test_a_converted_model_is_the_same_after_writing(tmp_path: Path) -> None:
    source = open_model(HF, ANY)
    write_model(tmp_path / "model", source)
    written = ModelFolder(tmp_path / "model")
    expected = dict(source.tensors())
    assert written.weights().keys() == expected.keys()
    for name, values in written.weights().items():
        np.testing.assert_array_equal(values, expected[name])


def test_the_tokenizer_gives_the_ids_of_transformers() -> None:
    model = open_model(HF, ANY)
    tokenizer = Tokenizer(model.vocabulary, model.merges)
    for text, ids in json.loads((GOLDEN / "ids.json").read_text()).items():
        assert tokenizer.encode(text) == ids


@pytest.mark.parametrize("merges", ["strings", "lists"])
def test_vocab_json_and_merges_txt_give_the_same_vocabulary(
    merges: str, hf: Path, tmp_path: Path
) -> None:
    content = json.loads((hf / "tokenizer.json").read_text())
    pairs = [m.split(" ") if isinstance(m, str) else m for m in content["model"]["merges"]]
    content["model"]["merges"] = pairs if merges == "lists" else [" ".join(p) for p in pairs]
    (hf / "tokenizer.json").write_text(json.dumps(content))
    expected = open_model(hf, ANY)
    (hf / "tokenizer.json").unlink()
    vocabulary = content["model"]["vocab"]
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    (hf / "vocab.json").write_text(
        json.dumps({text: n for text, n in vocabulary.items() if text not in added})
    )
    (hf / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, pairs), ""]))
    (hf / "added_tokens.json").write_text(json.dumps(added))
    found = open_model(hf, ANY)
    assert found.vocabulary == expected.vocabulary
    assert found.merges == expected.merges == [tuple(pair) for pair in pairs]


def test_a_vocabulary_of_characters_gives_each_its_id(tmp_path: Path) -> None:
    path = alone(tmp_path / "nano", "nanogpt.pt")
    characters = {character: number for number, character in enumerate("\n 'abcé→😀")}
    table = {"vocab_size": 9, "itos": {n: c for c, n in characters.items()}, "stoi": characters}
    (path.parent / "meta.pkl").write_bytes(pickle.dumps(table))
    model = open_model(path, EXACT)
    text = "ab→😀😀 é'c\n→→é a"
    encoded = Tokenizer(model.vocabulary, model.merges).encode(text)
    assert encoded == [characters[character] for character in text]


def test_the_user_is_told_of_embeddings_and_tokens_that_text_never_uses(hf: Path) -> None:
    content = json.loads((hf / "tokenizer.json").read_text())
    content["added_tokens"][1]["content"] = "[PAD]"
    content["model"]["vocab"].pop("<|poem|>", None)
    content["model"]["vocab"].pop(next(reversed(content["model"]["vocab"])))
    content["model"]["merges"].pop()
    (hf / "tokenizer.json").write_text(json.dumps(content))
    said: list[str] = []
    model = open_model(hf, ReadingOptions(notice=said.append))
    assert model.vocabulary["[PAD]"] == 280
    assert any("[PAD]" in sentence for sentence in said)
    assert any("1 of 281 embeddings" in sentence for sentence in said)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "bert"}, "'bert', not GPT-2"),
        ({"model_type": "gpt_neo"}, "'gpt_neo', not GPT-2"),
        ({"model_type": "llama"}, "'llama', not GPT-2"),
        ({"activation_function": "gelu"}, "exact GELU"),
        ({"activation_function": "relu"}, "'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon is 'small'"),
        ({"n_inner": 20}, "n_inner is 20"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"n_embd": 16}, "n_embd is 16, but the tensor wte has 8"),
        ({"n_layer": 3}, r"n_layer is 3, but the tensor h\.\* has 2"),
        ({"n_positions": 1024}, "n_positions is 1024, but the tensor wpe has 12"),
        ({"vocab_size": 50257}, "vocab_size is 50257, but the tensor wte has 281"),
        ({"n_head": 3}, r"n_embd \(8\) must be divisible by n_head \(3\)"),
        ({"n_head": None}, "set n_head"),
        ({"n_head": "2"}, "n_head is '2'; expected a whole number"),
        ({"n_head": 0}, "n_head is 0; expected"),
        ({"scale_attn_weights": 0}, "scale_attn_weights is 0; expected true or false"),
        ({"scale_attn_by_inverse_layer_idx": "true"}, "'true'; expected true or false"),
    ],
)
def test_a_model_that_openai_cannot_express_is_refused_by_name(
    changes: dict[str, object], reason: str, hf: Path
) -> None:
    change(hf / "config.json", **changes)
    with pytest.raises(UserError, match=reason):
        open_model(hf, ReadingOptions())


def test_an_untied_head_is_refused() -> None:
    with pytest.raises(UserError, match="lm_head is not the token embedding"):
        open_model(GOLDEN / "untied.pt", ANY)


def test_a_pickle_that_names_anything_else_is_refused_by_that_name() -> None:
    with pytest.raises(UserError, match=r"'torch\.optim\.adamw\.AdamW'.*nothing was run"):
        torch_file.read(GOLDEN / "hostile.pt")


class Shell:
    """What an attacker puts into a pickle."""

    def __init__(self, *call: object):
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", ["plain", "zip"])
def test_no_protocol_of_pickle_runs_anything(protocol: int, form: str, tmp_path: Path) -> None:
    witness, path = tmp_path / "ran", tmp_path / "model.bin"
    content = pickle.dumps({"wte.weight": Shell(Path.touch, str(witness))}, protocol)
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        head = b"".join(pickle.dumps(n, 2) for n in (torch_file._MAGIC, torch_file._VERSION, {}))
        path.write_bytes(head + content)
    with pytest.raises(UserError, match=r"model\.bin"):
        torch_file.read(path)
    assert not witness.exists()


def test_a_compressed_zip_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (20 << 20))
    with pytest.raises(UserError, match=r"is compressed|bytes"):
        torch_file.read(path)


def test_several_kinds_of_weights_are_asked_about(hf: Path) -> None:
    shutil.copy(GOLDEN / "zip.bin", hf / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.safetensors, pytorch_model\.bin.*Give the path"):
        open_model(hf, ANY)
    assert open_model(hf / "pytorch_model.bin", ANY).hparams.n_layer == 2


def test_training_files_are_no_weights(hf: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (hf / name).write_bytes(b"anything")
    assert open_model(hf, ANY).hparams.n_layer == 2


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "sharded", tmp_path / "sharded"))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors missing; 1 of 2"):
        open_model(folder, ANY)


def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "sharded", tmp_path / "sharded"))
    change(folder / "model.safetensors.index.json", weight_map={"wte.weight": "../secret"})
    with pytest.raises(UserError, match="other folders"):
        open_model(folder, ANY)


def test_a_folder_of_another_framework_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"tf_model\.h5 is of another format"):
        open_model(tmp_path, ANY)


def test_a_vocabulary_larger_than_the_embedding_is_refused(hf: Path) -> None:
    content = json.loads((hf / "tokenizer.json").read_text())
    content["added_tokens"].append({"id": 281, "content": "<|more|>"})
    (hf / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"<\|more\|>.*281.*has 281 embeddings"):
        open_model(hf, ANY)


def test_a_model_without_a_tokenizer_asks_for_a_vocabulary(hf: Path) -> None:
    (hf / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="set vocabulary"):
        open_model(hf, ReadingOptions())
    assert open_model(hf, ANY).vocabulary == VOCABULARY.tokens


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model"])
def test_another_kind_of_tokenizer_is_refused(name: str, hf: Path) -> None:
    (hf / "tokenizer.json").unlink()
    (hf / name).write_bytes(b"")
    with pytest.raises(UserError, match="another kind than GPT-2's"):
        open_model(hf, ReadingOptions())


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("normalizer", {"type": "NFC"}, "normalizer 'NFC'"),
        ("pre_tokenizer", {"type": "Whitespace"}, "'Whitespace', not ByteLevel"),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}, "add_prefix_space"),
        ("post_processor", {"type": "BertProcessing"}, "adds tokens"),
        ("model", {"type": "WordPiece"}, "'WordPiece'"),
    ],
)
def test_a_tokenizer_that_gives_other_ids_is_refused(
    part: str, value: object, reason: str, hf: Path
) -> None:
    change(hf / "tokenizer.json", **{part: value})
    with pytest.raises(UserError, match=reason):
        open_model(hf, ANY)


def rewritten(path: Path, edit: Callable[[dict], None]) -> Path:
    """Change the header of a safetensors file."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    edit(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])
    return path


def test_a_header_longer_than_the_file_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 10**12) + b"{}")
    with pytest.raises(UserError, match="1,000,000,000,000"):
        safetensors_file.read(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda h: h["transformer.wpe.weight"].update(data_offsets=[0, 384]),  # overlaps
        lambda h: h["transformer.wpe.weight"].update(shape=[10**9, 10**9]),
        lambda h: h["transformer.wpe.weight"].update(shape=[-12, -8]),
        lambda h: h["transformer.wpe.weight"].update(dtype="F4"),
        lambda h: h["transformer.wpe.weight"].update(data_offsets=[0]),
        lambda h: h.pop("transformer.wpe.weight"),  # leaves a gap
        lambda h: h.update(more=7),
        lambda h: h["transformer.wpe.weight"].update(shape=[1] * 2_000_000),
        lambda h: h["transformer.wpe.weight"].update(shape=[10**4000] * 8),
        lambda h: h["transformer.wpe.weight"].update(shape={}),
        lambda h: h["transformer.wpe.weight"].update(dtype=[]),
    ],
)
def test_a_wrong_header_is_refused(edit: Callable[[dict], None], hf: Path) -> None:
    with pytest.raises(UserError, match="not a valid safetensors file"):
        safetensors_file.read(rewritten(hf / "model.safetensors", edit))


def test_a_header_that_names_a_tensor_twice_is_refused(tmp_path: Path) -> None:
    entry = b'"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    for header, reason in ((b"{" + entry + b"," + entry + b"}", "twice"), (b"[1]", "not a JSON")):
        path = _written(
            tmp_path / "model.safetensors", struct.pack("<Q", len(header)) + header + b"data"
        )
        with pytest.raises(UserError, match=reason):
            safetensors_file.read(path)


def test_two_tensors_with_one_name_but_for_the_prefix_are_refused(hf: Path) -> None:
    def double(header: dict) -> None:
        header["ln_f.bias"] = header.pop("transformer.h.1.ln_2.bias")

    rewritten(hf / "model.safetensors", double)
    with pytest.raises(UserError, match=r"two tensors are 'ln_f\.bias' but for a prefix"):
        open_model(hf, ANY)


@pytest.mark.parametrize("number", ["9" * 5000, "99999", "\u0661"])
def test_an_impossible_number_of_a_layer_is_an_unexpected_tensor(number: str, hf: Path) -> None:
    def rename(header: dict) -> None:
        header[f"transformer.h.{number}.ln_2.bias"] = header.pop("transformer.h.1.ln_2.bias")

    rewritten(hf / "model.safetensors", rename)
    with pytest.raises(UserError, match="unexpected tensor"):
        open_model(hf, ANY)


def test_a_missing_index_and_a_pointer_of_git_lfs_are_named(hf: Path) -> None:
    weights = hf / "model.safetensors"
    for number in (1, 2):
        shutil.copy(weights, hf / f"model-0000{number}-of-00002.safetensors")
    weights.unlink()
    with pytest.raises(UserError, match=r"index .* is missing"):
        open_model(hf, ANY)
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = _written(hf / name, b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
        with pytest.raises(UserError, match="git lfs pull"):
            open_model(path, ANY)


@pytest.mark.parametrize(
    "table", [{}, {"a": -1}, {"a": 0, "b": 0}, {"\ud800": 0}, {"ab": 0}, {"a": 0.5}, {1: 0}, [1]]
)
def test_a_wrong_table_of_characters_is_refused(table: object, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HF, tmp_path / "hf"))
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    _written(folder / "meta.pkl", pickle.dumps({"stoi": table}, 4))
    with pytest.raises(UserError, match=r"meta\.pkl: .*\. Copy the file again"):
        open_model(folder, ReadingOptions())


def test_a_missing_and_an_unexpected_tensor_are_named(hf: Path) -> None:
    def rename(header: dict) -> None:
        header["transformer.extra"] = header.pop("transformer.h.1.ln_2.weight")

    rewritten(hf / "model.safetensors", rename)
    with pytest.raises(UserError, match=r"missing tensor h\.1\.ln_2\.weight"):
        open_model(hf, ANY)

    def give_back(header: dict) -> None:
        header["transformer.h.1.ln_2.weight"] = header.pop("transformer.extra")
        header["transformer.extra.bias"] = header.pop("transformer.h.1.ln_2.bias")

    rewritten(hf / "model.safetensors", give_back)
    with pytest.raises(UserError, match=r"unexpected tensor 'extra\.bias'"):
        open_model(hf, ANY)


def test_nan_is_refused_when_it_is_read(hf: Path) -> None:
    path = hf / "model.safetensors"
    tensor = safetensors_file.read(path)["transformer.wpe.weight"]
    content = bytearray(path.read_bytes())
    content[tensor.storage.offset : tensor.storage.offset + 4] = struct.pack("<f", np.nan)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"wpe\.weight contains NaN"):
        open_model(hf, ANY).read("model/wpe")


def test_every_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    for name in ("zip.bin", "old.bin", "nanogpt.pt"):
        content = (GOLDEN / name).read_bytes()
        for length in range(0, len(content), 997):
            path = tmp_path / name
            path.write_bytes(content[:length])
            with pytest.raises(UserError):
                torch_file.read(path)


def test_a_view_with_strides_is_read_and_an_impossible_one_is_not(tmp_path: Path) -> None:
    """As `torch.save(weight.t())` stores it: the same storage, other strides."""
    values = np.arange(12, dtype="<f4")
    path = tmp_path / "values"
    path.write_bytes(values.tobytes())
    storage = torch_file.Storage(path, "float32", 12)
    np.testing.assert_array_equal(
        StoredTensor(storage, (3, 4), (1, 3)).read("t"), values.reshape(4, 3).T
    )
    np.testing.assert_array_equal(
        StoredTensor(storage, (2, 2), None, 8).read("t"), [[8, 9], [10, 11]]
    )
    for shape, strides, start in (
        ((10**9, 10**9), (0, 0), 0),
        ((3, 4), (4, 1), 1),
        ((12,), (-1,), 11),
        ((-1,), (1,), 0),
        ((3,), (1, 1), 0),
        ((1,), (1,), -1),
    ):
        with pytest.raises(ValueError, match="tensor"):
            StoredTensor(storage, shape, strides, start)


def test_numbers_of_a_billion_laughs_end_at_once(tmp_path: Path) -> None:
    """Tuples of tuples of tuples, whose hash would take forever, as a key."""
    content = b"\x80\x02}(" + b"K\x01K\x02\x86" + b"q\x00h\x00\x86" * 60 + b"K\x01u."
    with pytest.raises(UserError):
        torch_file.read_pickle(_written(tmp_path / "meta.pkl", content))


@pytest.mark.parametrize("number", [b"K\x01", b"\x8a\x0a" + b"\xff" * 9 + b"\x7f"])
def test_a_shape_of_many_or_huge_sizes_ends_at_once(number: bytes, tmp_path: Path) -> None:
    shape = b"(" + number * 200_000 + b"t"
    storage = b"((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aX\3\0\0\0cpuK\x01tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"K\0" + shape * 2 + b"\x89NtR"
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}X\1\0\0\0a" + tensor + b"s.")
        archive.writestr("m/data/a", b"0000")
    with pytest.raises(UserError, match="not a PyTorch checkpoint"):
        torch_file.read(path)


def test_arguments_of_nanogpt_that_are_nested_are_refused_unprinted(tmp_path: Path) -> None:
    value: tuple = ()
    for _ in range(60):
        value = (value, value)
    with pytest.raises(UserError, match="model_args"):
        from_huggingface._nanogpt_facts(tmp_path / "ckpt.pt", {"n_layer": value})


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_pickled_tables_of_characters_are_read_in_each_protocol(tmp_path: Path) -> None:
    table = {"stoi": {"a": 0, "b": 1}, "itos": {0: "a", 1: "b"}}
    for protocol in range(2, 6):
        path = _written(tmp_path / "meta.pkl", pickle.dumps(table, protocol))
        assert torch_file.read_pickle(path) == table
    assert isinstance(VOCABULARY, Vocabulary)
    assert torch_file._Interpreter(print).run(io.BytesIO(pickle.dumps([1, 2.5, "x"]))) == [
        1,
        2.5,
        "x",
    ]


def test_a_shard_with_a_name_too_long_for_a_file_is_missing(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "sharded", tmp_path / "sharded"))
    change(folder / "model.safetensors.index.json", weight_map={"wte.weight": "x" * 5000})
    with pytest.raises(UserError, match="missing; 0 of 1 files are there") as raised:
        open_model(folder, ANY)
    assert len(str(raised.value)) < 1000
