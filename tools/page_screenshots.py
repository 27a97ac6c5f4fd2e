#!/usr/bin/env python3
"""Take the pictures of docs/serving.md: the page in Chromium, with a text that a model wrote.

gpt2 demo
python tools/page_screenshots.py --model_name demo --prompt "One day," --seed 3
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WIDTH, HEIGHT, TOKENS_HEIGHT = 1000, 1180, 1100  # pixels
PAUSE = 1500  # milliseconds without a new token after which a text is complete


def fill(page: Page, box: str, text: str) -> None:
    """Type a text into a box of the page."""
    page.locator(f"#{box} :is(input, textarea)").first.fill(text)


def wait_for_status(page: Page, box: str, pattern: str) -> None:
    """Wait until a status line matches a pattern of JavaScript."""
    page.wait_for_function(
        f"() => /{pattern}/.test(document.querySelector('#{box} textarea, #{box} input').value)"
    )


def wait_until_written(page: Page) -> None:
    """Wait until the text has stopped growing."""
    output = page.locator("#write-output textarea")
    before, now = "", output.input_value()
    while not now or now != before:
        page.wait_for_timeout(PAUSE)
        before, now = now, output.input_value()


def take(page: Page, url: str, args: argparse.Namespace) -> None:
    """Generate a text and color its tokens, and save a picture of each."""
    page.goto(url)
    page.wait_for_selector("#generate")
    fill(page, "write-prompt", args.prompt)
    fill(page, "write-seed", str(args.seed))
    page.click("#generate")
    wait_until_written(page)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=PICTURES / "serving.png")

    page.get_by_role("tab", name="Tokens").click()
    page.get_by_role("button", name="Use the generated text").click()
    page.wait_for_function("() => document.querySelector('#tokens-text textarea').value")
    page.click("#color")
    wait_for_status(page, "tokens-status", "tokens$")
    fill(page, "token-number", str(args.token))
    wait_for_status(page, "tokens-status", "^Token ")
    page.set_viewport_size({"width": WIDTH, "height": TOKENS_HEIGHT})
    page.wait_for_selector("#alternatives td")
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=PICTURES / "serving-tokens.png")


def main() -> None:
    """Start a server and a browser, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model_name", default="demo")
    parser.add_argument("--prompt", default="One day,")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--token", type=int, default=5, help="whose alternatives are shown")
    args = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    command = [sys.executable, str(ROOT / "src" / "serve.py"), "--port", "0"]
    command += ["--model_name", args.model_name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            lines = (re.match(r"Page: (\S+)", line) for line in server.stdout)
            url = next(filter(None, lines))[1]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                take(page, url, args)
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
