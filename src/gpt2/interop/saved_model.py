"""Export as a TensorFlow SavedModel that runs without this project, and in TensorFlow Serving.

Signatures (B batch, T tokens of the longest prompt, S positions of the KV cache):

    prefill    tokens int32 [B, T], lengths int32 [B]
               -> logits [B, V], cache [B, L, 2, H, T, D]
    decode     tokens int32 [B], lengths int32 [B], cache [B, L, 2, H, S, D]
               -> logits [B, V], cache [B, L, 2, H, S + 1, D]
    generate   tokens int32 [B, T], lengths int32 [B], and scalars: new_tokens int32,
               temperature float32, top_k int32, seed int32
               -> tokens int32 [B, N], lengths int32 [B], text_bytes string [B]

Prompts of different lengths are padded at the end with any token. `decode` takes one more token of
each sequence, `lengths` being the number of tokens before it. Prompts are token ids: GPT-2 splits
text by a regular expression with a lookahead, which TensorFlow's operations do not have, so a
tokenizer inside would not be exact. Token ids become text exactly, by a table of bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from gpt2 import files, model
from gpt2.errors import UserError, in_short
from gpt2.hparams import HParams
from gpt2.interop.weights import SAVED_MODEL_FILES, PortableModel
from gpt2.tokenizer import ENCODER_FILE, ENDOFTEXT, MERGES_FILE, write_vocabulary
from gpt2.tokenizer.vocabulary import spelled, token_bytes

DEFAULT = "serving_default"  # the signature of a request that names none

_ID = tf.int32


def write_saved_model(path: Path, portable: PortableModel, overwrite: bool = False) -> None:
    """Write a SavedModel folder, atomically.

    Args:
        overwrite: replace a SavedModel of that name.

    Raises:
        UserError: the folder exists or cannot be written, its name is not UTF-8, or a tensor cannot
            be read.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}: TensorFlow needs a name in UTF-8. Use another name, then rename the folder."
        ) from error
    with files.atomic_folder(path, SAVED_MODEL_FILES if overwrite else ()) as folder:
        assets = folder / "vocabulary"
        assets.mkdir()
        write_vocabulary(assets, portable.vocabulary, portable.merges)
        exported = ExportedModel(portable, assets)
        signatures = {
            "prefill": exported.prefill,
            "decode": exported.decode,
            "generate": exported.generate,
            DEFAULT: exported.generate,
        }
        try:
            tf.saved_model.save(exported, str(folder), signatures=signatures)
        except tf.errors.OpError as error:
            raise UserError(
                f"{path} cannot be written: {in_short(error.message)}. Check the folder, its "
                "permissions and the free disk space."
            ) from error
        for name in (ENCODER_FILE, MERGES_FILE):  # TensorFlow has copied them to assets/
            (assets / name).unlink()
        assets.rmdir()
        for file in folder.glob("*/*"):
            files.sync(file)


class ExportedModel(tf.Module):
    """The functions of a SavedModel over the weights as variables; see the module."""

    def __init__(self, portable: PortableModel, vocabulary: Path):
        """Read the weights.

        Args:
            vocabulary: folder with `encoder.json` and `vocab.bpe`, to be copied into `assets/`.
        """
        super().__init__()
        self._hparams = portable.hparams
        self._weights = {
            name: tf.Variable(values, trainable=False, name=name)
            for name, values in portable.tensors()
        }
        self._bytes = tf.constant(_token_table(portable), tf.string)  # [V]
        # A token that no vocabulary has, so that sequences never end, without <|endoftext|>.
        self._endoftext = portable.vocabulary.get(spelled(ENDOFTEXT), -1)
        self._assets = [
            tf.saved_model.Asset(str(vocabulary / name)) for name in (ENCODER_FILE, MERGES_FILE)
        ]
        self.decode = tf.function(
            self._decode,
            autograph=False,
            input_signature=[
                tf.TensorSpec([None], _ID, "tokens"),
                tf.TensorSpec([None], _ID, "lengths"),
                tf.TensorSpec(cache_shape(portable.hparams), tf.float32, "cache"),
            ],
        )

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, None], _ID, "tokens"),
            tf.TensorSpec([None], _ID, "lengths"),
        ],
    )
    def prefill(self, tokens: tf.Tensor, lengths: tf.Tensor) -> dict[str, tf.Tensor]:
        """Process prompts; see the module."""
        with tf.control_dependencies([self._fits(tf.shape(tokens)[1])]):
            positions = tf.range(tf.shape(tokens)[1])
        stored: list[tf.Tensor] = []

        def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
            stored.append(tf.stack([key, value], axis=1))  # [B, 2, H, T, D]
            return model.causal_attention(layer, query, key, value)

        x = model.hidden_states(self._weights, self._hparams, tokens, positions, attend)
        last = tf.gather(x, lengths - 1, axis=1, batch_dims=1)  # [B, C]
        return {"logits": model.head(self._weights, last), "cache": tf.stack(stored, axis=1)}

    def _decode(
        self, tokens: tf.Tensor, lengths: tf.Tensor, cache: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Take one more token of each sequence into a cache with one more position."""
        cache = tf.pad(cache, [[0, 0]] * 4 + [[0, 1], [0, 0]])
        logits, cache = self._step(tokens, lengths, cache)
        return {"logits": logits, "cache": cache}

    def _step(
        self, tokens: tf.Tensor, lengths: tf.Tensor, cache: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Run one decode step in a cache that has room: logits [B, V], cache as it was."""
        with tf.control_dependencies([self._fits(tf.reduce_max(lengths) + 1)]):
            places = tf.range(tf.shape(cache)[4])  # [S]
        here = (places == lengths[:, None])[:, None, :, None]  # [B, 1, S, 1]
        visible = (places <= lengths[:, None])[:, None, None, :]  # [B, 1, 1, S]
        stored: list[tf.Tensor] = []

        def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
            keys = tf.where(here, key, cache[:, layer, 0])  # [B, H, S, D]
            values = tf.where(here, value, cache[:, layer, 1])
            stored.append(tf.stack([keys, values], axis=1))
            return model.scaled_dot_product(query, keys, values, visible)

        x = model.hidden_states(
            self._weights, self._hparams, tokens[:, None], lengths[:, None], attend
        )
        return model.head(self._weights, x[:, 0]), tf.stack(stored, axis=1)

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, None], _ID, "tokens"),
            tf.TensorSpec([None], _ID, "lengths"),
            tf.TensorSpec([], _ID, "new_tokens"),
            tf.TensorSpec([], tf.float32, "temperature"),
            tf.TensorSpec([], _ID, "top_k"),
            tf.TensorSpec([], _ID, "seed"),
        ],
    )
    def generate(
        self,
        tokens: tf.Tensor,
        lengths: tf.Tensor,
        new_tokens: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Continue prompts until `<|endoftext|>`, `new_tokens`, or the context window is full.

        Temperature 0 is greedy decoding; top_k 0 keeps all tokens.
        """
        begun = self.prefill(tokens, lengths)
        steps = tf.minimum(new_tokens, self._hparams.n_ctx - tf.reduce_max(lengths))
        cache = tf.pad(begun["cache"], [[0, 0]] * 4 + [[0, steps], [0, 0]])
        batch = tf.shape(tokens)[0]
        places = tf.range(steps)
        state = (
            tf.constant(0),
            begun["logits"],
            cache,
            tf.fill([batch, steps], self._endoftext),  # tokens
            tf.zeros([batch], tf.bool),  # ended
        )

        def goes_on(step, logits, cache, found, ended):  # type: ignore[no-untyped-def]
            return (step < steps) & ~tf.reduce_all(ended)

        def one_more(step, logits, cache, found, ended):  # type: ignore[no-untyped-def]
            chosen = _choose(logits, temperature, top_k, tf.stack([seed, step]))
            ended |= chosen == self._endoftext
            chosen = tf.where(ended, tf.maximum(self._endoftext, 0), chosen)
            found = tf.where(~ended[:, None] & (places == step), chosen[:, None], found)
            logits, cache = self._step(chosen, lengths + step, cache)
            return step + 1, logits, cache, found, ended

        cached = tf.TensorShape(cache_shape(self._hparams))
        shapes = (state[0].shape, state[1].shape, cached, state[3].shape, state[4].shape)
        *_, found, _ = tf.while_loop(goes_on, one_more, state, shapes)
        is_text = found != self._endoftext
        parts = tf.where(is_text, tf.gather(self._bytes, tf.maximum(found, 0)), "")
        return {
            "tokens": found,
            "lengths": tf.reduce_sum(tf.cast(is_text, _ID), axis=1),
            "text_bytes": tf.strings.reduce_join(parts, axis=1),
        }

    def _fits(self, length: tf.Tensor) -> tf.Operation:
        """Return an operation that fails if a sequence is longer than the context window."""
        limit = self._hparams.n_ctx
        return tf.debugging.Assert(
            length <= limit, [f"more tokens than the context window of {limit}:", length]
        )


def cache_shape(hparams: HParams) -> list[int | None]:
    """Return the shape of the KV cache, [B, L, 2, H, S, D]."""
    head_size = hparams.n_embd // hparams.n_head
    return [None, hparams.n_layer, 2, hparams.n_head, None, head_size]


def _token_table(portable: PortableModel) -> np.ndarray:
    """Return the bytes of each token id, empty for ids without a token."""
    table = [b""] * portable.hparams.n_vocab
    for token, number in portable.vocabulary.items():
        if number < len(table):
            table[number] = token_bytes(token)
    return np.array(table, object)


def _choose(
    logits: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Return a token id for each sequence: [B, V] -> int32 [B]."""
    vocabulary = tf.shape(logits)[1]
    kept = tf.where(top_k > 0, tf.minimum(top_k, vocabulary), vocabulary)
    least = tf.math.top_k(logits, kept).values[:, -1:]  # [B, 1]
    filtered = tf.where(logits < least, logits.dtype.min, logits)
    scaled = filtered / tf.where(temperature > 0, temperature, 1.0)
    sampled = tf.random.stateless_categorical(scaled, 1, seed, _ID)[:, 0]
    return tf.where(temperature > 0, sampled, tf.argmax(logits, axis=1, output_type=_ID))
