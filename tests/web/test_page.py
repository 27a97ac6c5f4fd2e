"""The page in a real browser, and what its server gives to others."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gpt2.generation.language_model import LanguageModel
from gpt2.training.run_log import HISTORY
from gpt2.web.page_pictures import curves_html, runs_with_curves
from gpt2.web.page_writing import PageSettings, Writing, as_text
from gpt2.web.settings import Access, RequestLimits
from tests.web.conftest import Served, load_numpy_at, serving, write_model

pytestmark = pytest.mark.slow

REQUIRED = os.environ.get("CI") == "true"  # elsewhere, tests are skipped for lack of a package
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HOSTILE = "<script>hacked=1</script><img src=x onerror='hacked=1'>\x1b[2J\u202eabc"
SHOWN = "<script>hacked=1</script><img src=x onerror='hacked=1'>\\x1b[2J\\u202eabc"
ENDLESS = "1000000"  # tokens; nobody waits for the end
MILLISECONDS = 20_000  # how long the browser waits for what should happen at once


def write_history(run: Path, steps: int) -> None:
    lines = [{"step": step, "loss": 5 - step / 10, "average": 5.0} for step in range(1, steps + 1)]
    run.mkdir(parents=True, exist_ok=True)
    (run / HISTORY).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def page_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not REQUIRED:
        pytest.importorskip("gradio", reason="Gradio is not installed: pip install gradio==6.31.0")
    folder = tmp_path_factory.mktemp("page") / "models"
    folder.mkdir()
    write_model(folder / "small", 1)
    write_model(folder / "other", 2)
    write_history(folder.parent / "checkpoint" / "run1", 3)
    return folder


@pytest.fixture(scope="module")
def with_page(page_models: Path) -> Iterator[Served]:
    from gpt2.web import page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "REFRESH_SECONDS", 0.2)
        limits = RequestLimits(most_tokens=int(ENDLESS))
        with serving(page_models, ("small",), limits=limits, with_page=True) as running:
            yield running


@pytest.fixture(scope="module")
def browser():
    if not REQUIRED:
        reason = "Playwright is not installed: pip install playwright"
        pytest.importorskip("playwright", reason=reason)
    if not BROWSER and not REQUIRED:
        pytest.skip("there is no chromium; install it with: apt-get install chromium")
    assert BROWSER, "CI needs a browser: apt-get install chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield running
        running.close()


class Tab:
    """A tab of the browser that shows the page, and everything it asked the network for."""

    def __init__(self, context, url: str):
        self.page = context.new_page()
        self.page.set_default_timeout(MILLISECONDS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("#generate")

    def open(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def fill(self, box: str, text: str) -> None:
        self.page.locator(f"#{box} :is(input, textarea)").first.fill(text)

    def value(self, box: str) -> str:
        return self.page.locator(f"#{box} :is(input, textarea)").first.input_value()

    def wait(self, box: str, condition: str) -> str:
        """Wait until a condition in JavaScript on `value` holds for a box; return its value."""
        self.page.wait_for_function(
            f"() => {{ const value = document.querySelector('#{box} :is(input, textarea)').value;"
            f" return {condition}; }}"
        )
        return self.value(box)

    def generate(self, prompt: str, length: str = "20", seed: str = "7") -> None:
        self.fill("write-length", length)
        self.fill("write-seed", seed)
        self.fill("write-prompt", prompt)
        self.page.click("#generate")

    def finished(self, tokens: int = 20, name: str = "write") -> str:
        """Wait until so many tokens were generated; return the text."""
        self.wait(f"{name}-status", f"value.startsWith('{tokens} tokens')")
        return self.value(f"{name}-output")


@pytest.fixture(scope="module")
def context(browser):
    """One for all tabs, which then share the browser's cache."""
    return browser.new_context()


@pytest.fixture
def tab(context, with_page: Served) -> Iterator[Tab]:
    opened = Tab(context, with_page.url)
    yield opened
    opened.page.close()
    assert opened.errors == []
    foreign = [
        url for url in opened.requests if not url.startswith((with_page.url, "data:", "blob:"))
    ]
    assert foreign == []


def expected(model: LanguageModel, prompt: str, seed: int = 7, length: int = 20, **options) -> str:
    (completion,) = model.generate(prompt, length=length, seed=seed, top_k=40, **options)
    return as_text(completion.text)


def wait_until_idle(tab: Tab, served: Served) -> None:
    for _ in range(MILLISECONDS // 20):
        if not any(each.scheduler.running for each in served.models.loaded):
            return
        tab.page.wait_for_timeout(20)
    raise AssertionError("a completion is still running")


def test_text_for_a_seed_is_that_of_the_library(tab: Tab, alone: LanguageModel) -> None:
    tab.generate("the cat")
    assert tab.finished() == expected(alone, "the cat")
    assert re.fullmatch(r"20 tokens, [\d.]+ tokens/s, seed 7", tab.value("write-status"))


def test_text_streams_until_stopped_and_continues(tab: Tab, with_page: Served) -> None:
    tab.generate("the cat", ENDLESS)
    first = tab.wait("write-output", "value.length > 10")
    tab.wait("write-output", f"value.length > {len(first)} + 100")
    tab.page.click("#stop")
    wait_until_idle(tab, with_page)
    tab.fill("write-length", "5")
    before = tab.wait("write-output", f"value.length > {len(first)} + 100")
    tab.page.click("#continue")
    longer = tab.finished(5)
    assert longer.startswith(before) and len(longer) > len(before)
    tab.page.click("#regenerate")
    tab.wait("write-output", f"value.length < {len(first)} + 100")
    assert "seed 7" not in tab.value("write-status")


def test_closing_the_tab_frees_the_slot(context, with_page: Served) -> None:
    leaving, staying = Tab(context, with_page.url), Tab(context, with_page.url)
    leaving.generate("the cat", ENDLESS)
    leaving.wait("write-output", "value.length > 10")
    leaving.page.close()
    wait_until_idle(staying, with_page)
    staying.page.close()


def test_stop_ends_only_what_its_tab_generates(
    tab: Tab, context, with_page: Served, alone: LanguageModel
) -> None:
    other = Tab(context, with_page.url)
    tab.generate("the cat", ENDLESS)
    tab.wait("write-output", "value.length > 10")
    other.page.click("#stop")
    other.generate("the hat")
    assert other.finished() == expected(alone, "the hat")
    assert sum(each.scheduler.running for each in with_page.models.loaded) == 1
    other.page.close()
    tab.page.click("#stop")
    wait_until_idle(tab, with_page)


def test_examples_fill_the_prompt(tab: Tab) -> None:
    from gpt2.web.page import EXAMPLES

    for text in EXAMPLES:
        tab.page.get_by_role("button", name=text.split("\n")[0]).first.click()
        tab.wait("write-prompt", f"value === {json.dumps(text)}")
    assert tab.value("write-output") == ""


def test_the_text_can_be_copied_and_downloaded(tab: Tab) -> None:
    tab.generate(HOSTILE)
    text = tab.finished()
    with tab.page.expect_download() as download:
        tab.page.click("#download")
    assert download.value.suggested_filename == "sample.txt"
    assert Path(download.value.path()).read_bytes() == text.encode()
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.evaluate("navigator.clipboard.writeText('')")
    tab.page.locator("#write-output").get_by_role("button").first.click()
    tab.page.wait_for_function(
        "async text => await navigator.clipboard.readText() === text", arg=text
    )


def test_two_tabs_at_once(context, with_page: Served, alone: LanguageModel) -> None:
    tabs = [Tab(context, with_page.url) for _ in range(2)]
    for number, each in enumerate(tabs):
        each.generate("the hat", seed=str(number))
    for number, each in enumerate(tabs):
        assert each.finished() == expected(alone, "the hat", seed=number)
        each.page.close()


def test_models_are_switched_and_compared(
    tab: Tab, alone: LanguageModel, page_models: Path
) -> None:
    other = load_numpy_at(page_models / "other")
    tab.open("Compare")
    tab.page.locator("#right-model input").click()
    tab.page.get_by_role("option", name="other").click()
    for side in ("left", "right"):
        tab.fill(f"{side}-length", "20")
        tab.fill(f"{side}-seed", "7")
    tab.fill("compare-prompt", "the cat")
    tab.page.click("#compare")
    assert tab.finished(name="left") == expected(alone, "the cat")
    assert tab.finished(name="right") == expected(other, "the cat")


def test_tokens_are_colored_and_have_alternatives(tab: Tab, alone: LanguageModel) -> None:
    tab.open("Tokens")
    tab.fill("tokens-text", "the cat and the")
    tab.page.click("#color")
    tab.wait("tokens-status", "value.endsWith(' tokens')")
    count = len(alone.encode("the cat and the"))
    assert tab.value("tokens-status") == f"{count} tokens"
    tab.page.locator("#colored").get_by_text("and", exact=False).last.click()
    sentence = tab.wait("tokens-status", "value.startsWith('Token ')")
    assert "and" in sentence
    tab.page.wait_for_function("document.querySelectorAll('#alternatives td').length === 2 * 8")
    tab.fill("token-number", "1")
    tab.wait("tokens-status", "value.startsWith('The first token')")


def test_hostile_text_stays_text(tab: Tab) -> None:
    tab.open("Tokens")
    tab.fill("tokens-text", HOSTILE)
    tab.page.click("#color")
    tab.wait("tokens-status", "value.endsWith(' tokens')")
    shown = tab.page.locator("#colored").inner_text()
    assert "\x1b" not in shown and "\u202e" not in shown
    assert tab.page.evaluate("typeof hacked") == "undefined"
    tab.open("Write")
    tab.generate(HOSTILE)
    tab.finished()
    assert tab.page.evaluate("typeof hacked") == "undefined"


def test_errors_are_sentences_in_the_status(tab: Tab) -> None:
    tab.generate("the cat", seed="many")
    assert "is not a whole number" in tab.wait("write-status", "value.startsWith('Seed')")
    tab.page.get_by_label("Samples").first.fill("")
    tab.generate("the cat")
    tab.wait("write-status", "value === 'Samples must be a whole number from 1 to 8.'")
    tab.page.get_by_label("Samples").first.fill("1")
    tab.generate("the cat", length="0")
    tab.wait("write-status", "value.startsWith('Length must be a whole number from 1 to ')")
    tab.open("Attention")
    tab.fill("attention-text", "the cat")
    tab.page.get_by_label("Layer, from 0").fill("")
    tab.page.click("#draw")
    tab.wait("attention-status", "value === 'Layer must be 0 to 1 for small.'")
    tab.page.get_by_label("Layer, from 0").fill("0")
    tab.fill("attention-text", "the cat " * 50)
    tab.page.click("#draw")
    tab.wait("attention-status", "value.includes('Use 1 to 48.')")


def test_attention_is_drawn(tab: Tab) -> None:
    tab.open("Attention")
    tab.fill("attention-text", "the cat and the hat")
    tab.page.click("#draw")
    tab.page.wait_for_selector("#attention-picture img.for-light")
    assert not tab.page.locator("#attention-picture img.for-dark").is_visible()


def test_curves_refresh_while_training(tab: Tab, page_models: Path) -> None:
    tab.open("Training")
    tab.page.locator("#runs input").click()
    tab.page.get_by_role("option", name="run1").click()
    image = tab.page.locator("#curves img.for-light")
    image.wait_for()
    before = image.get_attribute("src")
    write_history(page_models.parent / "checkpoint" / "run1", 30)
    tab.page.wait_for_function(
        "before => document.querySelector('#curves img.for-light').src !== before", arg=before
    )


def test_keyboard_alone_suffices(tab: Tab, alone: LanguageModel) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(80):
            if tab.page.evaluate(f"Boolean(document.activeElement.closest({selector!r}))"):
                return
            tab.page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached")

    tab.fill("write-length", "20")
    tab.fill("write-seed", "7")
    tab.page.evaluate("document.activeElement.blur()")
    tab_to("#write-prompt")
    tab.page.keyboard.type("the bat")
    tab_to("#generate")
    tab.page.keyboard.press("Enter")
    assert tab.finished() == expected(alone, "the bat")
    tab_to("#stop")
    tab_to("#write-temperature")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_and_dark_mode(browser, with_page: Served, scheme: str) -> None:
    small = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    narrow = Tab(small, with_page.url)
    narrow.generate("the cat")
    narrow.finished()
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 360
    dark = narrow.page.evaluate("Boolean(document.querySelector('.dark'))")
    assert dark == (scheme == "dark")
    small.close()


# --- without a browser ---


def test_served_html_names_nothing_to_load_from_elsewhere(with_page: Served) -> None:
    answer = httpx.get(f"{with_page.url}/", follow_redirects=True)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    loaded = re.findall(
        r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]*)\"", answer.text
    )
    assert loaded
    assert not [address for address in loaded if re.match(r"(?:\w+:)?//", address)]
    style = httpx.get(f"{with_page.url}/page/theme.css").text
    assert not re.findall(r"url\(['\"]?(?:https?:)?//", style)
    config = httpx.get(f"{with_page.url}/page/config").json()
    assert config["analytics_enabled"] is False


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "gradio_api/file=/etc/passwd"),
        ("GET", "gradio_api/file/etc/passwd"),
        ("GET", "gradio_api/proxy=https://example.com/"),
        ("POST", "gradio_api/upload"),
        ("POST", "gradio_api/run/predict"),
        ("POST", "gradio_api/call/generate"),
        ("POST", "login"),
        ("GET", "monitoring"),
        ("GET", "static/../../../../../etc/passwd"),
    ],
)
def test_routes_that_the_page_does_not_need_are_hidden(
    with_page: Served, method: str, path: str
) -> None:
    assert httpx.request(method, f"{with_page.url}/page/{path}").status_code in (404, 403)


def test_access_checks_apply_to_the_page(page_models: Path) -> None:
    with serving(page_models, ("small",), Access("127.0.0.1", "me:secret"), with_page=True) as one:
        address = f"{one.url}/page/"
        assert httpx.get(address).status_code == 401
        assert httpx.get(f"{one.url}/page/config").status_code == 401
        assert httpx.get(address, auth=("me", "secret")).status_code == 200
        rebound = httpx.get(address, auth=("me", "secret"), headers={"Host": "evil.example"})
        assert rebound.status_code == 403


def test_control_characters_are_shown_as_escapes() -> None:
    assert as_text(HOSTILE) == SHOWN
    assert as_text("a\n\tb\u00a0ü猫\U0001f431") == "a\n\tb\u00a0ü猫\U0001f431"
    assert Writing("", ("a\x07", "b")).shown == (
        "======== SAMPLE 1 ========\na\\x07\n\n======== SAMPLE 2 ========\nb"
    )


def test_stop_sequences_are_lines() -> None:
    settings = PageSettings("small", 1.0, 40.0, 1.0, 1.0, 5.0, "\\n\n###\n", "", 1.0)
    body = settings.body(["a"], 3)
    assert body["stop"] == ["\n", "###"]
    assert (body["top_k"], body["max_tokens"], body["seed"]) == (40, 5, 3)


def test_run_names_are_escaped_in_html(tmp_path: Path) -> None:
    name = "a' onerror=hacked=1 b='&lt;"
    write_history(tmp_path / "checkpoint" / name, 3)
    models = str(tmp_path / "models")
    assert runs_with_curves(models) == [name]
    assert 'alt="Loss and perplexity of a&#x27; onerror=hacked=1 b=&#x27;&amp;lt;"' in (
        curves_html([name], models)
    )
    write_history(tmp_path / "checkpoint" / "<script>hacked=1", 3)
    assert runs_with_curves(models) == [name]
