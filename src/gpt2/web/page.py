"""The page: a form to generate text with, and views of a model, mounted on the endpoint.

The page uses the schedulers, limits and checks of the endpoint. Gradio serves it; everything that
the browser needs comes from this server.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import html
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2.errors import UserError
from gpt2.web import page_pictures
from gpt2.web.api import Endpoint
from gpt2.web.errors import ApiError
from gpt2.web.page_writing import (
    PROBABILITY_CLASSES,
    ColoredToken,
    PageSettings,
    Stop,
    Writing,
    color_tokens,
    token_count,
    write,
)

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
import gradio as gr

PATH = "/page"
TITLE = "GPT-2"
SYSTEM_FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]
SYSTEM_MONO_FONTS = ["ui-monospace", "Consolas", "monospace"]
EXAMPLES = [
    "In a shocking finding, scientists discovered",
    "Once upon a time, in a small village by the sea,",
    "Q: What is the capital of France?\nA:",
    "def fibonacci(n):\n",
]
COLORS = ("#2e9e6b", "#c9a227", "#e0762e", "#d0342c")  # from probable to improbable
REFRESH_SECONDS = 5
# Gradio has more routes: uploads, files of this machine, a proxy, log-ins. The page needs these.
NEEDED = {
    "GET": ("/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/queue/data"),
    "POST": ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"),
}
NEEDED_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
# A second barrier: the browser loads nothing from elsewhere, whatever the page asks for. Gradio's
# own scripts are partly inline.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
DOWNLOAD = """
(text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/plain"}));
    link.download = "sample.txt";
    link.click();
    URL.revokeObjectURL(link.href);
}
"""


def mount(app: Starlette, endpoint: Endpoint, models_dir: str | None = None) -> None:
    """Mount the page on the application of an endpoint; `/` leads to it."""
    blocks = Page(endpoint, models_dir).build()
    gr.mount_gradio_app(
        app,  # any Starlette application will do
        blocks,
        PATH,
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        theme=gr.themes.Default(font=SYSTEM_FONTS, font_mono=SYSTEM_MONO_FONTS),
        css=page_pictures.STYLE,
    )
    app.add_route("/", lambda request: RedirectResponse(f"{PATH}/"), methods=["GET"])
    app.add_middleware(NeededRoutes)


class NeededRoutes:
    """ASGI middleware that hides the routes of Gradio that the page does not need."""

    def __init__(self, app: ASGIApp):
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{PATH}/"):
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(PATH)
        is_below = scope["method"] == "GET" and path.startswith(NEEDED_BELOW)
        if not is_below and path not in NEEDED.get(scope["method"], ()):
            response: Response = PlainTextResponse("Not found", 404)
            await response(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, send_with_policy)


class Page:
    """The components of the page and what they do."""

    def __init__(self, endpoint: Endpoint, models_dir: str | None):
        """Prepare a page."""
        self._endpoint = endpoint
        self._models = endpoint.models
        self._models_dir = models_dir
        self._model_menus: list[gr.Dropdown] = []
        # What each tab of a browser is generating, by the session that Gradio gives it. Gradio's
        # own way to cancel an event can lose the iterator, which then generates to its end.
        self._running: dict[str | None, set[Stop]] = collections.defaultdict(set)

    def build(self) -> gr.Blocks:
        """Return the page."""
        with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
            gr.Markdown(f"# {TITLE}")
            with gr.Tab("Write"):
                output = self._build_writing()
            with gr.Tab("Compare"):
                self._build_comparison()
            with gr.Tab("Tokens"):
                self._build_tokens(output)
            with gr.Tab("Attention"):
                self._build_attention()
            with gr.Tab("Training"):
                menu = self._build_training()
            blocks.load(
                lambda: [
                    *[gr.Dropdown(choices=self._models.available()) for _ in self._model_menus],
                    gr.Dropdown(choices=page_pictures.runs_with_curves(self._models_dir)),
                ],
                outputs=[*self._model_menus, menu],
                api_visibility="private",
            )
            blocks.unload(self._stop)
        blocks.queue(
            max_size=self._endpoint.limits.most_waiting,
            default_concurrency_limit=None,  # the scheduler has its own limits
            api_open=False,
        )
        return blocks

    # --- Write and Compare ---

    def _build_writing(self) -> gr.Textbox:
        prompt = _prompt_box("write-prompt")
        # gr.Examples needs a route that runs functions without the queue, which is hidden.
        examples = gr.Dataset(
            components=[prompt], samples=[[text] for text in EXAMPLES], label="Examples"
        )
        _on(examples.click, lambda sample: sample[0], [examples], [prompt])
        with gr.Row():
            generate = _button("Generate", "generate", variant="primary")
            stop = _button("Stop", "stop")
            proceed = _button("Continue", "continue")
            again = _button("Regenerate", "regenerate")
            download = _button("Download", "download")
        output, status, state = self._build_output("write")
        with gr.Accordion("Settings", open=True):
            settings = self._build_settings("write")
        inputs, outputs = [prompt, *settings], [output, status, state]
        _on(generate.click, self._generate, inputs, outputs)
        _on(prompt.submit, self._generate, inputs, outputs)
        _on(proceed.click, self._continue, [state, *settings], outputs)
        _on(again.click, self._regenerate, [state, *settings], outputs)
        _on(stop.click, self._stop, [], [])
        download.click(None, output, js=DOWNLOAD, api_visibility="private")
        return output

    def _build_comparison(self) -> None:
        prompt = _prompt_box("compare-prompt")
        with gr.Row():
            generate = gr.Button("Generate both", variant="primary", elem_id="compare")
            stop = gr.Button("Stop")
        _on(stop.click, self._stop, [], [])
        with gr.Row():
            for side in ("left", "right"):
                with gr.Column(min_width=280):
                    outputs = self._build_output(side)
                    inputs = [prompt, *self._build_settings(side)]
                    for event in (generate.click, prompt.submit):
                        _on(event, self._generate, inputs, outputs)

    def _build_output(self, name: str) -> list[Any]:
        return [
            gr.Textbox(
                label="Text", lines=8, max_lines=24, interactive=False, buttons=["copy"],
                elem_id=f"{name}-output",
            ),
            gr.Textbox(label="Status", interactive=False, elem_id=f"{name}-status"),
            gr.State(Writing()),
        ]  # fmt: skip

    def _build_settings(self, name: str) -> list[Any]:
        """Return the components of `PageSettings`, in its order."""
        most = self._endpoint.limits.most_tokens
        model = self._build_model_menu(f"{name}-model")
        with gr.Row():
            temperature = gr.Slider(
                0,
                2,
                1,
                step=0.05,
                label="Temperature",
                min_width=200,
                elem_id=f"{name}-temperature",
            )
            top_k = gr.Number(40, label="top_k (0: off)", precision=0, min_width=120)
            top_p = gr.Slider(0, 1, 1, step=0.01, label="top_p (1: off)", min_width=200)
            penalty = gr.Slider(1, 2, 1, step=0.05, label="Repetition penalty", min_width=200)
        with gr.Row():
            length = gr.Number(
                min(100, most), label="Length (tokens)", precision=0,
                min_width=120, elem_id=f"{name}-length",
            )  # fmt: skip
            stop = gr.Textbox(
                label="Stop sequences", lines=1, max_lines=4, min_width=160,
                info=r"one a line (Shift+Enter); \n is a line end",
            )  # fmt: skip
            seed = gr.Textbox(
                label="Seed (empty: random)", max_lines=1, min_width=120, elem_id=f"{name}-seed"
            )
            samples = gr.Number(1, label="Samples", precision=0, min_width=120)
        return [model, temperature, top_k, top_p, penalty, length, stop, seed, samples]

    def _build_model_menu(self, name: str) -> gr.Dropdown:
        menu = gr.Dropdown(
            self._models.available(), value=self._models.names[0], label="Model", elem_id=name
        )
        self._model_menus.append(menu)
        return menu

    async def _generate(
        self, request: gr.Request, prompt: str, *settings: Any
    ) -> AsyncIterator[list[Any]]:
        async for update in self._updates(request, prompt, PageSettings(*settings)):
            yield update

    async def _continue(
        self, request: gr.Request, before: Writing, *settings: Any
    ) -> AsyncIterator[list[Any]]:
        if not before.texts:
            yield [gr.skip(), "Generate a text first.", gr.skip()]
            return
        wanted = PageSettings(*settings)
        async for update in self._updates(request, before.prompt, wanted, before):
            yield update

    async def _regenerate(
        self, request: gr.Request, before: Writing, *settings: Any
    ) -> AsyncIterator[list[Any]]:
        """Generate with a random seed, because the same seed would give the same text."""
        wanted = dataclasses.replace(PageSettings(*settings), seed="")
        async for update in self._updates(request, before.prompt, wanted):
            yield update

    async def _stop(self, request: gr.Request) -> None:
        """End what a tab is generating: Stop was pressed, or the tab was closed."""
        for stop in self._running[request.session_hash]:
            stop()

    async def _updates(
        self,
        request: gr.Request,
        prompt: str,
        settings: PageSettings,
        before: Writing | None = None,
    ) -> AsyncIterator[list[Any]]:
        """Yield values of the text, the status and the state."""
        stop = Stop()
        running = self._running[request.session_hash]
        running.add(stop)
        try:
            async for writing in write(self._endpoint, prompt, settings, stop, before):
                yield [writing.shown, writing.status, writing]
        except Exception as error:
            yield [gr.skip(), self._sentence(error), gr.skip()]
        finally:
            running.discard(stop)
            if not running:
                self._running.pop(request.session_hash, None)

    def _sentence(self, error: Exception) -> str:
        """Return what to show for an error; a bug is also reported."""
        if isinstance(error, ApiError):
            return error.message
        if isinstance(error, UserError):
            return str(error)
        self._endpoint.report(error)
        return "Internal error. This is a bug in retrain-gpt2; see the server's log."

    # --- Tokens ---

    def _build_tokens(self, written: gr.Textbox) -> None:
        model = self._build_model_menu("tokens-model")
        text = gr.Textbox(label="Text", lines=4, elem_id="tokens-text")
        with gr.Row():
            color = gr.Button("Color", variant="primary", elem_id="color")
            take = gr.Button("Use the generated text")
        status = gr.Textbox(label="Status", interactive=False, elem_id="tokens-status")
        names = [name for _, name in PROBABILITY_CLASSES]
        colored = gr.HighlightedText(
            label="Tokens by probability (select one for its alternatives)",
            color_map=dict(zip(names, COLORS, strict=True)),
            show_legend=True,
            show_inline_category=False,
            elem_id="colored",
        )
        place = gr.Number(1, label="Token number", precision=0, elem_id="token-number")
        alternatives = gr.HTML(elem_id="alternatives")
        tokens = gr.State([])
        take.click(lambda value: value, written, text, api_visibility="private")
        _on(color.click, self._color, [model, text], [colored, status, tokens, alternatives])
        colored.select(_selected, None, place, api_visibility="private")
        place.change(
            _alternatives, [tokens, place], [status, alternatives], api_visibility="private"
        )

    async def _color(self, model: str, text: str) -> list[Any]:
        try:
            if not text:
                raise UserError("Enter a text first.")
            tokens = await color_tokens(self._endpoint, model, text)
        except Exception as error:
            return [gr.skip(), self._sentence(error), gr.skip(), gr.skip()]
        colored = [(token.text, token.name) for token in tokens]
        return [colored, token_count(len(tokens)), tokens, ""]

    # --- Attention and Training ---

    def _build_attention(self) -> None:
        model = self._build_model_menu("attention-model")
        text = gr.Textbox(
            "The animal didn't cross the street because it was too tired",
            label=f"Text (at most {page_pictures.MOST_TOKENS} tokens)",
            elem_id="attention-text",
        )
        with gr.Row():
            layer = gr.Number(0, label="Layer, from 0", precision=0)
            head = gr.Number(0, label="Head, from 0", precision=0)
        draw = gr.Button("Draw", variant="primary", elem_id="draw")
        status = gr.Textbox(label="Status", interactive=False, elem_id="attention-status")
        picture = gr.HTML(elem_id="attention-picture")
        inputs, outputs = [model, text, layer, head], [picture, status]
        _on(draw.click, self._attention, inputs, outputs, concurrency_limit=1)

    async def _attention(self, model: str, text: str, *indices: int | None) -> list[Any]:
        layer, head = (-1 if index is None else index for index in indices)  # empty boxes
        try:
            await self._endpoint.model({"model": model}, self._models.available())
            picture = await asyncio.to_thread(
                page_pictures.attention_html, model, self._models_dir, text, layer, head
            )
        except Exception as error:
            return [gr.skip(), self._sentence(error)]
        return [picture, ""]

    def _build_training(self) -> gr.Dropdown:
        runs = page_pictures.runs_with_curves(self._models_dir)
        menu = gr.Dropdown(runs, value=[], multiselect=True, label="Runs", elem_id="runs")
        status = gr.Textbox(label="Status", interactive=False, elem_id="training-status")
        picture = gr.HTML(elem_id="curves")
        drawn = gr.State([])
        timer = gr.Timer(REFRESH_SECONDS)
        for event in (menu.change, timer.tick):
            _on(event, self._curves, [menu, drawn], [picture, status, drawn], concurrency_limit=1)
        return menu

    async def _curves(self, runs: list[str], drawn: list[Any]) -> list[Any]:
        """Draw the curves if there is something new."""
        try:
            stamp = page_pictures.history_stamp(runs, self._models_dir)
            if stamp == drawn:
                return [gr.skip()] * 3
            picture = ""
            if runs:
                picture = await asyncio.to_thread(page_pictures.curves_html, runs, self._models_dir)
        except Exception as error:
            return [gr.skip(), self._sentence(error), gr.skip()]
        return [picture, f"Refreshed every {REFRESH_SECONDS} s while training.", stamp]


def _prompt_box(name: str) -> gr.Textbox:
    return gr.Textbox(
        label="Prompt", lines=4, max_lines=12, elem_id=name, info="Shift+Enter generates"
    )


def _button(label: str, name: str, **options: Any) -> gr.Button:
    """Return a button so narrow that phones show several in a row."""
    return gr.Button(label, elem_id=name, min_width=100, size="md", **options)


def _on(event: Any, action: Any, inputs: list[Any], outputs: list[Any], **options: Any) -> Any:
    """Call an action when an event happens, and show no spinner over its outputs."""
    return event(
        action, inputs, outputs, show_progress="hidden", api_visibility="private", **options
    )


def _selected(event: gr.SelectData) -> int:
    return int(event.index) + 1


def _alternatives(tokens: list[ColoredToken], place: float | None) -> tuple[Any, Any]:
    """Return the status and, as HTML, the table of a token, counted from 1."""
    if not tokens:  # the browser asks when it shows the number for the first time
        return gr.skip(), gr.skip()
    if place is None or not 1 <= place <= len(tokens):
        return f"Enter a token number from 1 to {len(tokens)}.", ""
    token = tokens[int(place) - 1]
    if token.probability is None:
        return "The first token has no probability.", ""
    rows = "".join(
        f"<tr><td><code>{html.escape(_in_quotes(text))}</code></td>"
        f"<td>{100 * value:.2f} %</td></tr>"
        for text, value in token.alternatives
    )
    table = (
        "<table><caption>Most probable tokens in its place</caption>"
        f"<tr><th>token</th><th>probability</th></tr>{rows}</table>"
    )
    quoted = _in_quotes(token.text)
    return f"Token {int(place)}, {quoted}: {100 * token.probability:.2f} %", table


def _in_quotes(text: str) -> str:
    r"""Return a token on one line; other control characters are escaped already.

    Example:
        >>> print(_in_quotes(" a\n"))
        ' a\n'
    """
    line = text.replace("\n", "\\n").replace("\t", "\\t")
    return f"'{line}'"
