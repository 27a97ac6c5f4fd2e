"""A conversation with a model: its history as the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2.data.templates import SYSTEM, Message, Template
from gpt2.errors import UserError, quoted
from gpt2.tokenizer import Tokenizer


class Chat:
    """The messages of a conversation, and the prompts that continue it.

    Attributes:
        system: the system message, which is never dropped; empty for none.
        exchanges: what the user said and the model replied, the oldest first.
        dropped: number of exchanges that were dropped to fit into the context window.
    """

    def __init__(
        self, template: Template, tokenizer: Tokenizer, n_ctx: int, *, history: bool = True
    ):
        """Begin a conversation.

        Args:
            template: with the fields of the user and of the model, in this order, and perhaps
                `{system}`.
            tokenizer: of the model.
            n_ctx: context window of the model, in tokens.
            history: whether prompts contain the earlier exchanges.

        Raises:
            UserError: the template has other fields.
        """
        self._turns = [field for field in template.fields if field != SYSTEM]
        if len(self._turns) != 2:
            raise UserError(
                f"Template {quoted(template.text)} is not one of a chat. Give it two fields, what "
                "you type and the reply, such as {user} and {assistant}."
            )
        self._template, self._tokenizer, self._n_ctx = template, tokenizer, n_ctx
        self._history = history
        self.system = ""
        self.exchanges: list[tuple[str, str]] = []
        self.dropped = 0

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop sequences: a reply ends before any of them, and at `<|endoftext|>`."""
        return self._template.stop

    def set_system(self, text: str) -> None:
        """Change the system message.

        Raises:
            UserError: the template has no place for it.
        """
        if text and SYSTEM not in self._template.fields:
            raise UserError(
                f"Template {quoted(self._template.text)} has no field {{system}}. Omit the system "
                "message, or give --chat a template with that field."
            )
        self.system = text

    def prompt(self, text: str, length: int) -> list[int]:
        """Return the tokens that ask for the reply to a message.

        If the conversation and the reply do not fit into the context window, the oldest exchanges
        are dropped. Of the window, at most half is kept for the reply.

        Args:
            text: the message of the user.
            length: most tokens of the reply.
        """
        room = self._n_ctx - min(length, self._n_ctx // 2)
        if not self._history:
            self.exchanges.clear()
        while len(tokens := self._encode(text)) > room and self.exchanges:
            del self.exchanges[0]
            self.dropped += 1
        return tokens

    def add(self, text: str, reply: str) -> None:
        """Add an exchange to the history."""
        self.exchanges.append((text, reply.strip()))

    def reset(self) -> None:
        """Forget all exchanges; the system message stays."""
        self.exchanges.clear()

    def _encode(self, text: str) -> list[int]:
        """Return the tokens of all messages, as an example of the training begins."""
        messages = [Message(SYSTEM, self.system)] if self.system else []
        for exchange in [*self.exchanges, (text, "")]:
            messages += self._messages(exchange)
        start = self._tokenizer.endoftext
        tokens = [] if start is None else [start]
        for span in self._template.spans(messages):
            tokens += self._tokenizer.encode(span.text)
        return tokens

    def _messages(self, exchange: Sequence[str]) -> list[Message]:
        return [Message(*turn) for turn in zip(self._turns, exchange, strict=True)]
