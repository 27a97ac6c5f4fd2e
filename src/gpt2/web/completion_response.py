"""The answers of `POST /v1/completions`, whole or as a stream of chunks.

Source: https://platform.openai.com/docs/api-reference/completions/object
"""

from __future__ import annotations

import codecs
import secrets
import time
from typing import Any

from gpt2.generation.token_scores import TokenScore
from gpt2.tokenizer import Tokenizer
from gpt2.web.completion_request import CompletionRequest
from gpt2.web.scheduler import Generation

LEAST_LOGPROB = -9999.0  # JSON has no minus infinity
FINISH_REASONS = {"endoftext": "stop", "stop": "stop", "length": "length"}


class Choice:
    """One choice of an answer: how much of a completion has been sent.

    With `echo`, its text begins with the prompt.
    """

    def __init__(self, generation: Generation, index: int, tokenizer: Tokenizer, echo: bool):
        """Begin with nothing sent."""
        self._generation = generation
        self._index = index
        self._tokenizer = tokenizer
        self._echo = echo
        self._prompt = generation.completion.prompt if echo else []
        self._prompt_text = tokenizer.decode(self._prompt)
        self._sent = 0  # characters
        self._sent_tokens = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0  # characters before the next token
        self._in_completion = False

    def advance(self) -> dict[str, Any] | None:
        """Return the part that is new since the last call, or None if there is nothing to send."""
        completion = self._generation.completion
        text = self._prompt_text + completion.text
        stable = len(self._prompt_text) + completion.stable_length
        piece = text[self._sent : stable]
        finished = self._generation.finished
        if not piece and not finished:
            return None
        self._sent = max(self._sent, stable)
        return {
            "index": self._index,
            "text": piece,
            "logprobs": self._logprobs(stable),
            "finish_reason": FINISH_REASONS[completion.finish_reason or "stop"]
            if finished
            else None,
        }

    def _logprobs(self, end: int) -> dict[str, Any] | None:
        """Return the scores of the tokens that begin before a character and were not sent yet."""
        generation = self._generation
        if not generation.wants_scores:
            return None
        first: list[TokenScore | None] = [None] if self._prompt else []
        prompt_scores = generation.prompt_scores if self._echo else []
        scores = [*first, *prompt_scores, *generation.scores]
        tokens = [*self._prompt, *generation.completion.tokens]
        shown = Logprobs(self._tokenizer)
        while self._sent_tokens < min(len(scores), len(tokens)):
            if self._sent_tokens >= len(self._prompt) and not self._in_completion:
                self._in_completion = True
                self._decoder.reset()
                self._offset = len(self._prompt_text)
            if self._offset >= end:
                break
            token = tokens[self._sent_tokens]
            shown.add(token, scores[self._sent_tokens], self._offset)
            self._offset += len(self._decoder.decode(self._tokenizer.decode_bytes([token])))
            self._sent_tokens += 1
        return shown.columns


class Logprobs:
    """Scores of tokens in OpenAI's form."""

    def __init__(self, tokenizer: Tokenizer):
        """Begin with no token."""
        self._tokenizer = tokenizer
        self.columns: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }

    def add(self, token: int, score: TokenScore | None, offset: int) -> None:
        """Add a token; the first one of a prompt has no score."""
        row = {
            "tokens": self._name(token),
            "token_logprobs": score and max(score.logprob, LEAST_LOGPROB),
            "top_logprobs": score
            and {self._name(each): max(value, LEAST_LOGPROB) for each, value in score.top},
            "text_offset": offset,
        }
        for column, value in row.items():
            self.columns[column].append(value)

    def _name(self, token: int) -> str:
        r"""Return the text of a token, or `bytes:\xe2\x80` if it is not whole characters."""
        content = self._tokenizer.decode_bytes([token])
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


class Answer:
    """The answer to a request."""

    def __init__(self, request: CompletionRequest, model_name: str, tokenizer: Tokenizer):
        """Begin an answer with an id of its own."""
        self._request = request
        self._tokenizer = tokenizer
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model_name,
        }
        self._choices = {
            generation: self._choice(generation, index)
            for index, generation in enumerate(request.generations)
        }

    def _choice(self, generation: Generation, index: int) -> Choice:
        return Choice(generation, index, self._tokenizer, self._request.options.echo)

    def chunk(self, generation: Generation) -> dict[str, Any] | None:
        """Return a chunk of the stream with what is new of a completion, if anything is."""
        piece = self._choices[generation].advance()
        return piece and self._head | {"choices": [piece], **self._no_usage}

    @property
    def _no_usage(self) -> dict[str, None]:
        return {"usage": None} if self._request.include_usage else {}

    def usage_chunk(self) -> dict[str, Any]:
        """Return the last chunk of a stream whose client asked for the number of tokens."""
        return self._head | {"choices": [], "usage": self.usage}

    def whole(self) -> dict[str, Any]:
        """Return the answer when all completions are finished."""
        choices = [
            self._choice(generation, index).advance()
            for index, generation in enumerate(self._best())
        ]
        return self._head | {"choices": choices, "usage": self.usage}

    def _best(self) -> list[Generation]:
        """Return the n most probable completions of each prompt, per token."""
        n, of_each = self._request.options.n, self._request.of_each
        found = []
        for start in range(0, len(self._request.generations), of_each):
            group = self._request.generations[start : start + of_each]
            if n < of_each:
                group = sorted(group, key=_mean_logprob, reverse=True)
            found += group[:n]
        return found

    @property
    def usage(self) -> dict[str, Any]:
        """The number of tokens of prompts and completions."""
        prompt = sum(map(len, self._request.prompts))
        generations = self._request.generations
        completion = sum(len(each.completion.tokens) for each in generations)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": sum(each.reused for each in generations[:: self._request.of_each])
            },
        }


def _mean_logprob(generation: Generation) -> float:
    completion = generation.completion
    return completion.logprob / max(len(completion.tokens), 1)
