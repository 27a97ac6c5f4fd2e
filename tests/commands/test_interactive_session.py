"""interactive_conditional_samples.py on a real terminal, with somebody typing."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands.toolkit_copy import Home
from tests.support.waiting import LIMIT, Patience, wait_for

pty = pytest.importorskip("pty", reason="terminals of this kind are not on this system")

PROMPT = "Model prompt >>> "


class Terminal:
    """A command on a terminal, and what has been shown there."""

    def __init__(self, root: Path, *words: str, closed: int | None = None):
        """Start it.

        Args:
            closed: descriptor of a standard stream that is closed.
        """
        ours, theirs = pty.openpty()
        self._terminal = ours
        self.shown = ""
        command = [sys.executable, "src/interactive_conditional_samples.py", *words]
        if closed is not None:
            command = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command]
        self.process = subprocess.Popen(
            command,
            cwd=root,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_own_terminal,
            env=os.environ | {"TERM": "dumb"},
        )
        os.close(theirs)

    def read_until(self, pattern: str) -> str:
        """What is shown from here to the first match of a pattern, inclusive."""
        patience = Patience(self.process.pid, lambda: self.shown)
        while not (found := re.search(pattern, self.shown)):
            if not select.select([self._terminal], [], [], 1)[0]:
                patience.check()
                continue
            try:
                part = os.read(self._terminal, 1 << 16)
            except OSError:  # raised by Linux when the command has exited
                raise AssertionError(self.shown) from None
            self.shown += part.decode("utf-8", "replace")
            self.shown = self.shown.replace("\r\n", "\n")
        part, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return part

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    def end(self) -> None:
        """Kill the command if it still runs, and close the terminal."""
        self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._terminal)

    def ask(self, text: str) -> str:
        """Type a line at the prompt; what is shown until the next one."""
        self.type(text + "\n")
        return self.read_until(re.escape(PROMPT))


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl+C reaches the command


@pytest.fixture
def terminal(home: Home):
    flags = "--model_name 117M --length 12 --ignore_eos --seed 2"
    terminal = Terminal(home.toolkit.root, *flags.split())
    yield terminal
    terminal.end()


def test_a_session_with_settings_several_lines_and_interruptions(
    terminal: Terminal, home: Home
) -> None:
    greeting = terminal.read_until(re.escape(PROMPT))
    assert "/help for commands" in greeting and "/quit" in greeting
    assert "/set NAME VALUE" in terminal.ask("/help")
    unknown = terminal.ask("/hlep")
    assert "no command /hlep" in unknown and "/settings" in unknown and "SAMPLE" not in unknown
    assert "no prompt yet" in terminal.ask("/again")
    assert "name and a value" in terminal.ask("/set temperature")

    first = terminal.ask("The")
    assert first.count(" SAMPLE 1 ") == 1
    assert re.search(r"\n12 tokens, \d+\.\d per second\n", first)

    # The same prompt with another number draws another text; the seed starts it over.
    assert terminal.ask("/again") != first
    assert "temperature cannot be" not in terminal.ask("/set temperature 0")
    likeliest = terminal.ask("The").partition("SAMPLE")[2].partition("=\n1")[0]
    assert terminal.ask("/again").partition("SAMPLE")[2].partition("=\n1")[0] == likeliest
    assert "temperature must be a number at least 0, not -1" in terminal.ask("/set temperature -1")
    assert "engine cannot be set here" in terminal.ask("/set engine litert")
    assert "did you mean top_k" in terminal.ask("/set topk 3")
    assert "top_k is 301" in terminal.ask("/set top_k 301")
    assert "--nsamples must be a whole number at least 1" in terminal.ask("/set nsamples 0")
    settings = terminal.ask("/settings")
    assert "\ntemperature 0\n" in settings and "\nlength 12\n" in settings
    assert "\nignore_eos yes\n" in settings and "\ntop_k 0\n" in settings

    terminal.ask("/set include_prefix True")
    terminal.type('"""One\n')
    terminal.read_until(r"\n\.\.\. ")
    terminal.type("two\n")
    terminal.read_until(r"\n\.\.\. ")
    assert "One\ntwo" in terminal.ask('three"""').partition("SAMPLE 1")[2]
    terminal.type("One\\\n")
    terminal.read_until(r"\n\.\.\. ")
    assert "One\nfour" in terminal.ask("four").partition("SAMPLE 1")[2]
    assert "Saved to kept.txt" in terminal.ask("/save kept.txt")
    kept = (home.toolkit.root / "kept.txt").read_text(encoding="utf-8")
    assert kept.startswith("One\nfour\nOne\nfour") and kept.endswith("=" * 20 + "\n")

    # Ctrl+C ends a sample and not the program, and at the prompt it ends nothing.
    terminal.ask("/set length 1000000")
    terminal.type("On and on\n")
    terminal.read_until("SAMPLE 1 =+\n(?s:.){40}")
    terminal.type("\x03")
    stopped = terminal.read_until(re.escape(PROMPT))
    assert re.search(r"={80}\n\d+ tokens", stopped)
    terminal.type("half a line\x03")
    terminal.read_until(re.escape(PROMPT))
    terminal.ask("/set length 5")
    assert "5 tokens" in terminal.ask("The")

    terminal.type("\x04")
    assert wait_for(terminal.process) == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_a_session_ends_it_during_a_sample(
    terminal: Terminal, name: str
) -> None:
    terminal.read_until(re.escape(PROMPT))
    terminal.ask("/set length 1000000")
    terminal.type("On and on\n")
    terminal.read_until("SAMPLE 1 =+\n(?s:.){40}")
    terminal.process.send_signal(getattr(signal, name))
    assert wait_for(terminal.process) == -getattr(signal, name)


def test_values_of_settings_may_have_quotes(terminal: Terminal) -> None:
    terminal.read_until(re.escape(PROMPT))
    for text in ('"###"', "'###'", "###"):
        terminal.ask(f"/set truncate {text}")
        assert re.search(r"\ntruncate '?###'?\n", terminal.ask("/settings"))
    terminal.ask('/set truncate "it\'s"')
    assert re.search(r"\ntruncate .?it's.?\n", terminal.ask("/settings"))


@pytest.mark.parametrize(
    ("closed", "code", "shown"),
    [
        (0, 0, PROMPT),  # at the end of its input, as with Ctrl+D
        (1, 1, r"Standard output: .*closed.*\n"),
        (2, 0, PROMPT),
    ],
)
def test_a_session_with_a_closed_stream_ends(
    home: Home, closed: int, code: int, shown: str
) -> None:
    terminal = Terminal(home.toolkit.root, "--model_name=117M", closed=closed)
    try:
        assert "Traceback" not in terminal.read_until(shown)
        if closed == 2:
            terminal.type("/quit\n")
        assert wait_for(terminal.process) == code
    finally:
        terminal.end()


@pytest.mark.parametrize("command", ["/quit", "/exit"])
def test_quit_and_exit_end_the_session(terminal: Terminal, command: str) -> None:
    terminal.read_until(re.escape(PROMPT))
    terminal.type(f"{command}\n")
    assert wait_for(terminal.process) == 0


# Commands with an empty answer say nothing, as /set does when it succeeds.
HOSTILE = {
    "/save early": "no sample yet",
    "/save": "needs a file",
    "/set": "name and a value",
    '/set truncate [""]': "string is empty",
    "/set stop \\x": "--stop must be",
    "/set stop [": "",
    "/set stop []": "",
    "/set ignore_eos no": "",
    "/set include_prefix maybe": "true or false",
    "/set beams 3": "",
    "/set temperature 0.5": "temperature cannot be combined with beams",
    "/set beams 0": "",
    "/set temperature nan": "temperature",
    "/set temperature 1e400": "temperature",
    "/set top_k 99999999999999999999": "top_k",
    "/set seed -1": "seed",
    "/set seed " + "9" * 400: "",
    "/set seed x": "seed",
    "/set length 1e3": "length",
    "/set min_length 13": "min_length is 13",
    "/set logit_bias {": "logit_bias",
    "/set logit_bias {1:": "logit_bias",
    "/set logit_bias {999999: 1}": "not a token id",
    "/set banned_words ,,": "",
    "/set model_name x": "cannot be set here",
    "/set \x1b[31m 3": "cannot be set here",
    "/\x1b]0;title": "There is no command",
    "/": "There is no command",
    "/settings please": "/settings takes no argument",
    "/quit now": "/quit takes no argument",
    "/exit x": "/exit takes no argument",
    "/help me": "/help takes no argument",
    "/again and again": "/again takes no argument",
    "/set stop": "/set needs a name and a value",
    '/set stop "': "",
    '/set stop ""': "",
    "/set stop ''": "",
    '/set stop ["a", 1]': "--stop must be a list of strings only",
    '/set seed ""': "--seed must be a whole number",
    '/set top_k ""': "--top_k must be a whole number",
    "/set batch_size 1000000000000": "batch_size must be a whole number from 1 to",
    "/settings": '\nstop ""\n',
    "/again": "no prompt yet",
    '/set logit_bias {"65": -5}': "",
    "One": "SAMPLE 1",
    "/save ~nosuchuser/x": "cannot be written",
    "/save /": "cannot be written",
    "/save no/such/folder": "cannot be written",
    "/save " + "x" * 300: "cannot be written",
}


def test_a_session_survives_every_command(terminal: Terminal) -> None:
    terminal.read_until(re.escape(PROMPT))
    for line, answer in HOSTILE.items():
        shown = terminal.ask(line.replace("\x1b", "\x16\x1b"))  # Ctrl+V: the next key as it is
        assert answer in shown, (line, shown)
        assert "Internal error" not in shown and "Traceback" not in shown, (line, shown)
    assert terminal.process.poll() is None


def test_a_terminal_gets_no_control_characters_and_is_told_of_empty_samples(
    terminal: Terminal, home: Home
) -> None:
    vocabulary = json.loads((home.toolkit.root / "models/117M/encoder.json").read_text())
    terminal.read_until(re.escape(PROMPT))
    # Spelled as in encoder.json, where \u011b is the escape character.
    terminal.ask(f"/set logit_bias {{{vocabulary[chr(0x11B)]}: 1000}}")
    shown = terminal.ask("The").partition(" SAMPLE 1 ")[2]
    assert shown.count(r"\x1b") == 12 and "\x1b" not in shown.partition("12 tokens")[0]
    terminal.ask(f"/set logit_bias {{{vocabulary['e']}: 1000}}")
    terminal.ask("/set stop e")
    for _ in range(2):
        assert "Empty sample" in terminal.ask("The")
    terminal.ask("/set stop x")
    terminal.ask("/set truncate ee")
    assert "Empty sample" in terminal.ask("The")
    terminal.ask("/set length 80")
    terminal.ask("/set truncate zz")
    shown = terminal.ask("The")
    assert re.search(r"e{80}\nContext window is 32 tokens", shown), shown


def test_ctrl_c_at_any_moment_leaves_the_session_and_brings_a_new_prompt(
    terminal: Terminal,
) -> None:
    terminal.read_until(re.escape(PROMPT))
    # Some of these arrive just as readline starts, others in between two prompts.
    for pause in range(40):
        terminal.type("\x03")
        terminal.read_until(re.escape(PROMPT))
        time.sleep(pause % 4 * 0.0005)
    for command in ("/help", "/again", "/settings"):
        terminal.type(f"{command}\n\x03")
        terminal.read_until(re.escape(PROMPT))
    terminal.type("\x03")
    terminal.read_until(re.escape(PROMPT))
    terminal.type("/set length 5\nThe\n")
    terminal.read_until("\n5 tokens")
