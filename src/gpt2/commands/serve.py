"""`serve`: an endpoint in OpenAI's form and a web page for models and runs."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
import sys
import traceback

from gpt2.checkpoint.resolve import find_model
from gpt2.checks import setting
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.sampling_options import load_with_progress
from gpt2.commands.signals import StopSignal, prepare_tensorflow
from gpt2.commands.terminal import notice
from gpt2.errors import UserError, escaped
from gpt2.generation.engine_settings import EngineSettings
from gpt2.web.settings import Access, RequestLimits, is_loopback

PACKAGES = ("uvicorn", "starlette", "prometheus_client")
_ORIGIN = re.compile(r"https?://[^/?#\s@]+")
INSTALL_PAGE = 'pip install "gradio==6.31.0"'
INSTALL = 'pip install "uvicorn>=0.30" "starlette>=0.40" "prometheus_client>=0.20" "gradio==6.31.0"'


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """Which models are served, where, and to whom."""

    model_name: str = setting(
        "124M",
        "models to serve, separated by commas: under models/, runs under checkpoint/, or paths",
        metavar="MODEL,MODEL",
    )
    models_dir: str | None = setting(None, "folder of the models (default: models)", metavar="PATH")
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for all of this machine")
    port: int = setting(7860, "port to listen on (0 for any that is free)", low=0, high=65535)
    auth: str | None = setting(None, "require this user name and password", metavar="USER:PASS")
    api_key: str | None = setting(None, "require this API key", metavar="KEY")
    public: bool = setting(False, "allow a --host that others can reach without a password")
    cors: str = setting(
        "", "allow web pages of this origin to use the endpoint", metavar="https://HOST"
    )
    slots: int | None = setting(
        None,
        "completions generated at once (default: as many as 1.25 GiB of KV cache hold, at most 32)",
        low=1,
        high=1024,
    )
    watch: bool = setting(False, "load the new checkpoint when training writes one")


def check(values: Values) -> None:
    """Check that a server that others can reach has a password, or is meant to have none."""
    if not all(values.model_name.split(",")):
        raise UsageError("--model_name has an empty name")
    if values.auth is not None and not all(values.auth.partition(":")):
        raise UsageError("--auth must be USER:PASS")
    if values.api_key == "":
        raise UsageError("--api_key is empty; give a key, or omit it")
    for flag, secret in (("--auth", values.auth), ("--api_key", values.api_key)):
        try:
            (secret or "").encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{flag} is not UTF-8 text; use other characters") from error
    if values.cors and not _ORIGIN.fullmatch(values.cors):
        raise UsageError(
            "--cors must be an origin such as https://example.com, without a path, not "
            f"{values.cors}"
        )
    if not values.host:
        raise UsageError("--host is empty; give an address, or omit it")
    protected = values.auth or values.api_key or values.public
    if not is_loopback(values.host) and not protected:
        raise UsageError(
            f"--host {values.host} can be reached by others; protect it with --auth USER:PASS or "
            "--api_key KEY, or give --public"
        )


def run(values: Values) -> None:
    """Load the models and answer requests until Ctrl+C."""
    engine = build(EngineSettings, values)
    limits = build(RequestLimits, values)
    names = values.model_name.split(",")
    for name in names:
        find_model(name, values.models_dir, notice)
    _check_packages()
    from gpt2.web import server
    from gpt2.web.api import Endpoint
    from gpt2.web.registry import ModelRegistry

    listener = server.listen(values.host, values.port)
    models = ModelRegistry(
        names,
        functools.partial(load_with_progress, engine=engine),
        values.models_dir,
        values.slots,
        limits.most_waiting,
        notice,
    )
    prepare_tensorflow()
    for name in models.names:
        models.open(name)
    access = Access(values.host, values.auth or "", values.api_key or "", values.cors)
    endpoint = Endpoint(models, limits, _report)
    routes = endpoint.app()
    has_page = importlib.util.find_spec("gradio") is not None
    if has_page:
        from gpt2.web import page

        page.mount(routes, endpoint, values.models_dir)
    app = server.protect(routes, access, limits)
    if values.watch:
        server.watch(models)
    if not is_loopback(values.host) and not (values.auth or values.api_key):
        notice(f"Anyone who can reach {values.host} can use this server (--public).")
    host = f"[{values.host}]" if ":" in values.host else values.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    with StopSignal(
        "Stopping: running completions end. Press Ctrl+C again to quit at once."
    ) as stop:
        server.serve(
            app,
            listener,
            models,
            stop,
            ready=lambda: print(
                f"Serving {escaped(models.list_names())} at {address}/v1 (Ctrl+C to stop)\n"
                + (f"Page: {address}" if has_page else f"For a page as well: {INSTALL_PAGE}"),
                flush=True,
            ),
        )


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"serve needs packages that are not installed ({', '.join(missing)}). Install them "
            f"with: {INSTALL}"
        )


def _report(error: BaseException) -> None:
    """Print a bug on standard error; the server goes on."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    print(
        "Internal error while answering a request:", *map(escaped, lines), sep="\n", file=sys.stderr
    )


COMMAND = Command(
    summary="Serve a web page and an endpoint in the form of OpenAI's API.",
    groups={
        "models": [
            *options_of(ServeOptions, "model_name", "models_dir"),
            *options_of(EngineSettings, "engine", "quantize", "kv_cache"),
            *options_of(ServeOptions, "slots", "watch"),
        ],
        "server": options_of(ServeOptions, "host", "port", "auth", "api_key", "public", "cors"),
        "limits": options_of(RequestLimits),
    },
    run=run,
    check=check,
)
