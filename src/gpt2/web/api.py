"""The routes of the endpoint: completions, models, tokens, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gpt2.checks import is_count
from gpt2.errors import UserError, quoted
from gpt2.web.completion_request import (
    CompletionRequest,
    check_names,
    parse_completion,
    parse_json,
    text_field,
)
from gpt2.web.completion_response import Answer
from gpt2.web.errors import ApiError
from gpt2.web.metrics import Metrics
from gpt2.web.registry import ModelRegistry, ServedModel
from gpt2.web.scheduler import Generation, QueueFull, Request, Scheduler, Stopped
from gpt2.web.settings import RequestLimits

Handler = Callable[[HttpRequest], Awaitable[Response]]


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Endpoint:
    """Answers requests with the models of a registry."""

    def __init__(
        self,
        models: ModelRegistry,
        limits: RequestLimits,
        report: Callable[[BaseException], object],
    ):
        """Prepare the endpoint.

        Args:
            report: called with an exception that is a bug; its request is answered with 500.
        """
        self.models = models
        self.limits = limits
        self.metrics = Metrics(models)
        self.report = report

    def app(self) -> Starlette:
        """Return the application; a page may be mounted on it."""
        routes = [
            ("/v1/completions", "POST", self.completions),
            ("/v1/models", "GET", self.list_models),
            ("/v1/models/{name:path}", "GET", self.show_model),
            ("/tokenize", "POST", self.tokenize),
            ("/detokenize", "POST", self.detokenize),
            ("/healthz", "GET", self.health),
            ("/metrics", "GET", self.show_metrics),
        ]
        return Starlette(
            routes=[
                Route(path, self._answering(path, handler), methods=[method])
                for path, method, handler in routes
            ],
            exception_handlers={HTTPException: _http_error},
        )

    def _answering(self, path: str, handler: Handler) -> Handler:
        """Return a handler that turns exceptions into answers and counts both."""

        async def handle(request: HttpRequest) -> Response:
            try:
                response = await handler(request)
            except ApiError as error:
                response = error_response(error)
            except (ClientGone, ClientDisconnect):
                response = Response(status_code=499)  # nginx's code; nobody reads it
            except Exception as error:
                self.report(error)
                response = error_response(_internal_error())
            self.metrics.count_request(path, response.status_code)
            return response

        return handle

    async def completions(self, request: HttpRequest) -> Response:
        """POST /v1/completions."""
        body = parse_json(await request.body())
        describe = Answer.chunk if body.get("stream") else _when_finished
        wanted, answer, results = await self.submit(body, self.models.names, describe)
        stream = wanted.options.stream
        items = self._timed(results.items(request, self.limits.seconds))
        if stream:
            return StreamingResponse(
                self._events(items, answer, wanted),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache"},
            )
        async with contextlib.aclosing(items):
            async for _ in items:
                pass
        return JSONResponse(answer.whole())

    async def submit(
        self,
        body: dict[str, Any],
        names: Sequence[str],
        describe: Callable[[Answer, Generation], Any | None],
    ) -> tuple[CompletionRequest, Answer, Results]:
        """Submit a request to the scheduler of its model.

        Args:
            body: see `parse_completion`.
            names: models that the request may name.
            describe: see `Results`.

        Raises:
            ApiError: the request is not valid, or cannot be served now.
        """
        while True:
            served = await self.model(body, names)
            wanted = await asyncio.to_thread(parse_completion, body, served.model, self.limits)
            answer = Answer(wanted, served.name, served.model.tokenizer)
            results = Results(wanted.generations, functools.partial(describe, answer))
            try:
                results.start(served.scheduler)
                return wanted, answer, results
            except Stopped as error:  # unless the model has just been replaced by a newer one
                if self.models.stopped:
                    raise _stopping() from error
            except QueueFull as error:
                raise ApiError(
                    429, "The queue is full. Try again later.", None, "queue_full"
                ) from error

    async def _timed(self, items: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """Pass items on, and record when the first and the last one came."""
        start, first = time.perf_counter(), True
        async for item in items:
            if first:
                self.metrics.time_first_token(time.perf_counter() - start)
            first = False
            yield item
        self.metrics.time_request(time.perf_counter() - start)

    async def _events(
        self, chunks: AsyncIterator[dict[str, Any]], answer: Answer, wanted: CompletionRequest
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events; an error comes last, because the status is sent already."""
        try:
            async for chunk in chunks:
                yield _event(chunk)
            if wanted.include_usage:
                yield _event(answer.usage_chunk())
        except ApiError as error:
            yield _event(error.body)
        except ClientGone:
            return
        except Exception as error:
            self.report(error)
            yield _event(_internal_error().body)
        yield b"data: [DONE]\n\n"

    async def list_models(self, request: HttpRequest) -> Response:
        """GET /v1/models."""
        listed = [_model_object(name, self.models.get(name)) for name in self.models.names]
        return JSONResponse({"object": "list", "data": listed})

    async def show_model(self, request: HttpRequest) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        self._check_name(name, self.models.names)
        return JSONResponse(_model_object(name, self.models.get(name)))

    async def tokenize(self, request: HttpRequest) -> Response:
        """POST /tokenize: {"model", "prompt"} -> {"tokens", "count", "max_model_len"}."""
        body = parse_json(await request.body())
        check_names(body, ["model", "prompt"])
        served = await self.model(body, self.models.names)
        text = text_field(body, "prompt")
        try:
            tokens = await asyncio.to_thread(served.model.tokenizer.encode, text)
        except UserError as error:
            raise ApiError(400, f"prompt: {error}", "prompt") from error
        n_ctx = served.model.hparams.n_ctx
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": n_ctx})

    async def detokenize(self, request: HttpRequest) -> Response:
        """POST /detokenize: {"model", "tokens"} -> {"prompt"}."""
        body = parse_json(await request.body())
        check_names(body, ["model", "tokens"])
        served = await self.model(body, self.models.names)
        tokens = body.get("tokens")
        known = range(served.model.hparams.n_vocab)
        if not isinstance(tokens, list) or not all(
            is_count(each) and each in known for each in tokens
        ):
            raise ApiError(
                400,
                f"tokens must be a list of token ids (0 to {known[-1]}), not {quoted(tokens)}.",
                "tokens",
            )
        return JSONResponse({"prompt": served.model.tokenizer.decode(tokens)})

    async def health(self, request: HttpRequest) -> Response:
        """GET /healthz."""
        if self.models.stopped:
            raise _stopping()
        return JSONResponse({"status": "ok"})

    async def show_metrics(self, request: HttpRequest) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def model(self, body: dict[str, Any], names: Sequence[str]) -> ServedModel:
        """Return the model that a body names, loading it if necessary.

        Args:
            names: models that it may name; without a name, it is the first one.

        Raises:
            ApiError: it names another one, or the model cannot be loaded.
        """
        name = body.get("model", names[0])
        if not isinstance(name, str):
            raise ApiError(400, f"model must be a string, not {quoted(name)}.", "model")
        self._check_name(name, names)
        if self.models.stopped:
            raise _stopping()
        try:
            if served := self.models.get(name):
                return served
            return await asyncio.to_thread(self.models.open, name)
        except UserError as error:
            raise ApiError(503, f"{name} cannot be loaded: {error}", "model") from error

    def _check_name(self, name: str, names: Sequence[str]) -> None:
        if name not in names:
            raise ApiError(
                404,
                f"There is no model {quoted(name)}. Use one of: {', '.join(names)}.",
                "model",
                "model_not_found",
            )


class Results:
    """What a scheduler makes of a request, for the event loop."""

    def __init__(self, generations: list[Generation], describe: Callable[[Generation], Any | None]):
        """Prepare a request.

        Args:
            describe: called in the scheduler's thread when a completion has grown or ended; what it
                returns, unless it is None, is an item.
        """
        self._left = len(generations)
        self._describe = describe
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[Any, bool]] = asyncio.Queue()
        self._request = Request(generations, self._update)

    def start(self, scheduler: Scheduler) -> None:
        """Submit the request; raises as `Scheduler.submit` does."""
        scheduler.submit(self._request)

    def cancel(self) -> None:
        """Free the slots of the request after the current step."""
        self._request.cancelled = True

    def stop(self) -> None:
        """Cancel the request, and end `items` as if all completions had ended."""
        self.cancel()
        self._left = 0
        self._queue.put_nowait((None, False))  # wakes it up

    def _update(self, generation: Generation) -> None:
        """Pass the news of a completion to the event loop."""
        try:
            item = generation.error or self._describe(generation)
        except Exception as error:  # a bug must not end the scheduler's thread
            item = error
        if item is not None or generation.finished:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._queue.put_nowait, (item, generation.finished))

    async def items(self, http: HttpRequest | None, seconds: float) -> AsyncGenerator[Any, None]:
        """Yield the items until all completions have ended; leaving early cancels the request.

        Args:
            http: the request whose client may go away; None if the caller notices that itself.
            seconds: time limit.

        Raises:
            ApiError: a completion failed, or the time limit is reached.
            ClientGone: the client closed the connection.
        """
        end = self._loop.time() + seconds
        gone = asyncio.create_task(_disconnected(http)) if http else None
        if gone:
            gone.add_done_callback(lambda _: self._queue.put_nowait((ClientGone(), True)))
        try:
            while self._left > 0:
                remaining = end - self._loop.time()
                item, finished = await asyncio.wait_for(self._queue.get(), max(remaining, 0))
                if isinstance(item, Exception):
                    raise _as_api_error(item)
                self._left -= finished
                if item is not None:
                    yield item
        except asyncio.TimeoutError as error:
            message = f"The request took longer than {seconds:g} seconds. Ask for fewer tokens."
            raise ApiError(504, message, None, "timeout") from error
        finally:
            self.cancel()
            if gone:
                gone.cancel()


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _when_finished(answer: Answer, generation: Generation) -> Generation | None:
    return generation if generation.finished else None


def _as_api_error(error: Exception) -> Exception:
    if isinstance(error, UserError):
        return ApiError(400, str(error))
    return _stopping() if isinstance(error, Stopped) else error


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def _model_object(name: str, served: ServedModel | None) -> dict[str, Any]:
    created = served.created if served else 0
    return {"id": name, "object": "model", "created": created, "owned_by": "retrain-gpt2"}


def error_response(error: ApiError) -> Response:
    """Return the answer for an error."""
    headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
    if error.status in (408, 413):  # the rest of the body is not read
        headers["Connection"] = "close"
    return JSONResponse(error.body, error.status, headers)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    """Answer an unknown path or method in OpenAI's form, too."""
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}."
    return error_response(ApiError(error.status_code, message))


def _internal_error() -> ApiError:
    return ApiError(500, "Internal error. This is a bug in retrain-gpt2; see the server's log.")


def _stopping() -> ApiError:
    return ApiError(503, "The server is shutting down.", None, "stopping")
