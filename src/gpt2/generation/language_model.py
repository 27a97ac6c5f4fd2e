"""A model that is ready to write: its vocabulary, its weights in an engine, its sizes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from gpt2.checkpoint.folder import ModelFolder
from gpt2.generation.generate import generate
from gpt2.generation.sampling import SamplingSettings
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine


class LanguageModel:
    """Writes texts that go on from a prompt."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer):
        self.engine = engine
        self.hparams = engine.hparams
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, model: ModelFolder) -> LanguageModel:
        """Read a model's folder.

        Raises:
            UserError: a file is missing or broken.
        """
        tokenizer = model.tokenizer()
        from gpt2.generation.engine import TensorFlowEngine  # TensorFlow takes seconds to load

        return cls(TensorFlowEngine(model.weights(), model.hparams), tokenizer)

    @property
    def start(self) -> int:
        """The token that a text without a prompt begins after.

        It is `<|endoftext|>`; a vocabulary without one gets its last id, where GPT-2 has its own.
        """
        endoftext = self.tokenizer.endoftext
        return self.hparams.n_vocab - 1 if endoftext is None else endoftext

    def samples(
        self,
        prompt: list[int],
        nsamples: int | None,
        length: int,
        sampling: SamplingSettings,
        seed: int,
        first_sample: int = 0,
        batch_size: int = 1,
    ) -> Iterator[str]:
        """Texts that go on from one prompt, without the prompt.

        Args:
            prompt: token ids, at least one.
            nsamples: how many; None for no end of them.
            length: tokens in each.
            seed, first_sample: see `generate`.
            batch_size: how many are made at once; changes no text.

        Raises:
            UserError: prompt and length do not fit into the window.
        """
        for done in count(0, batch_size):
            rows = batch_size if nsamples is None else min(batch_size, nsamples - done)
            if rows <= 0:
                return
            for tokens in generate(
                self.engine, [prompt] * rows, length, sampling, seed, first_sample + done
            ):
                yield self.tokenizer.decode(tokens.tolist())
