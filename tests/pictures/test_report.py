"""The report of a run: self-contained, escaped and complete."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from gpt2.evaluation.next_tokens import TokenDistribution
from gpt2.generation.sampling import SamplingSettings
from gpt2.pictures.diversity import Row
from gpt2.pictures.report import Report, SampleAnalysis, busiest_head
from gpt2.training.run_log import Curves
from tests.golden_model import Golden

pytest.importorskip("matplotlib")
EVIL = (
    "<script>alert('ü')</script>\"><img src=x onerror=alert(1)> & \x00\x1b\ud800 </pre></details>"
)
# How a browser shows it.
SEEN = "<script>alert('ü')</script>\"><img src=x onerror=alert(1)> & ��� </pre></details>"
VOID = {"meta", "source", "img"}
# Attributes by which a page may fetch or run something.
FETCHING = {"src", "srcset", "href", "action", "data", "poster", "background", "formaction"}


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # of each tag
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def texts_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def pictures(self) -> list[bytes]:
        """The content of every picture, light and dark."""
        links = [a.get("src") or a["srcset"] for tag, a in self.tags if tag in ("img", "source")]
        kind = "data:image/svg+xml;base64,"
        assert all(link.startswith(kind) for link in links)
        return [base64.b64decode(link.removeprefix(kind)) for link in links]


@pytest.fixture(scope="module")
def full(golden: Golden) -> Report:
    """A report with all sections, and hostile text wherever there is text."""
    tokens = [EVIL.encode("utf-8", "replace"), "中".encode(), b"\xe4\xb8", b"\n", b"<|endoftext|>"]
    shares = np.array([0.5, 0.3, 0.2])
    evil_settings = {"temperature": 0.7, EVIL: 1.0}
    return Report(
        run=EVIL,
        curves=Curves(*(np.array([1.0, 2.0]) for _ in range(5))),
        parameters=123456,
        samples={EVIL: EVIL, "samples-1": "x" * 30_000},
        more_samples=3,
        calls=[
            {
                "time": EVIL,
                "flags": {EVIL: EVIL, "lora_rank": 8, "patience": None},
                "seed": 0,
                "steps_before": 70,
            },
            {"checkpoint": {"path": "/home/ann/models/117M/model.ckpt", "index_sha256": "ab12"}},
            {"data": {EVIL: {"files": 2, "bytes": 1234567, "sha256": EVIL}}, "hparams": None},
        ],
        analysis=SampleAnalysis(
            name=EVIL,
            tokens=tokens,
            nats=np.array([np.nan, 0.0, 2.302585, 100.0, 0.5]),
            attention=golden.arrays["attention"][:, 0, :, :5, :5],
            steps=[
                TokenDistribution((0, 1), 2, shares, shares),
                TokenDistribution((0, 1, 2), None, shares, shares),
            ],
            settings=SamplingSettings(top_k=2),
            token_bytes=lambda token: tokens[token],
        ),
        grid=[
            Row(evil_settings, {"distinct_1": 0.25, EVIL: 2.0}),
            Row(evil_settings | {"temperature": 1.0}, {"distinct_1": 0.5, "perplexity": 30.0}),
        ],
    )


@pytest.fixture(scope="module")
def page(full: Report) -> Page:
    return Page(full.page())


def test_hostile_text_is_shown_and_escaped(page: Page) -> None:
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
    }
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    for tag in ("h1", "title", "pre", "summary", "th", "td", "h3"):
        assert SEEN in "".join(page.texts_of(tag)), tag


def test_the_page_loads_nothing_from_elsewhere(full: Report, page: Page) -> None:
    for tag, attributes in page.tags:
        for name in FETCHING & set(attributes):
            assert re.match("#|data:", attributes[name]), (tag, name)
    [sheet] = page.texts_of("style")
    assert "url(" not in sheet and "@import" not in sheet and "prefers-color-scheme" in sheet
    policy = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    anchors = {a["id"] for tag, a in page.tags if tag == "section"}
    assert {a["href"] for tag, a in page.tags if tag == "a"} == {f"#{name}" for name in anchors}


def test_every_picture_is_a_complete_svg_in_light_and_dark(page: Page) -> None:
    pictures = page.pictures()
    assert len(pictures) == 2 * 4  # training, attention, probabilities, diversity
    for content in pictures:
        root = ElementTree.fromstring(content)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        for element in root.iter():
            assert not element.tag.endswith("script")
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert re.match("#|data:image/png", value)
    dark, light = pictures[:2]
    assert b"#16181d" in dark and b"#ffffff" in light
    assert all(a["alt"] for tag, a in page.tags if tag == "img")


def test_tokens_show_their_probability_and_incomplete_characters_their_bytes(page: Page) -> None:
    spans = [attributes for tag, attributes in page.tags if tag == "span"]
    titles = [attributes["title"] for attributes in spans]
    assert titles == ["not predicted", "1e+02 %", "10 %", "3.7e-42 %", "61 %"]
    strengths = [float(attributes["style"].removeprefix("--s:")) for attributes in spans]
    # 10 % is a quarter of the logarithmic scale, which ends at 0.01 %.
    assert strengths == [0, 0, 0.25, 1, pytest.approx(0.5 / 9.21034, abs=1e-3)]
    assert "E4 B8" in page.texts_of("b")
    assert {"中", "↵\n", "<|endoftext|>"} <= set(page.texts_of("span"))


def test_numbers_of_the_run_are_on_the_page(page: Page) -> None:
    cells = page.texts_of("td")
    assert {"1.500 nats per token", "123,456", "1,234,567", "0.25", "30", "8"} <= set(cells)
    assert "1.000 nats per token at step 1" in cells
    assert {"0", "70", "117M/model.ckpt", "ab12"} <= set(cells)
    assert "--temperature" in page.texts_of("th")
    assert "--patience" not in page.texts_of("th")  # a flag that was not given
    assert "… 10,000 more characters" in "".join(page.texts_of("pre"))
    assert "3 older files are not shown." in page.texts_of("p")


def test_the_report_of_a_run_without_files_says_what_is_missing() -> None:
    page = Page(Report(run="new").page())
    assert page.pictures() == []
    # The sections that need samples are left out.
    assert len([a for _, a in page.tags if a.get("class") == "none"]) == 5


def test_the_enlarged_head_attends_least_to_the_first_token_and_to_itself() -> None:
    attention = np.zeros((2, 3, 4, 4))
    attention[:, :, :, 0] = 1  # all attend to the first token
    attention[0, 1] = np.eye(4)  # one to the token itself
    attention[1, 2] = np.eye(4, k=-1)  # one to the previous token
    attention[1, 2, 0, 0] = 1
    assert busiest_head(attention) == (1, 2)
    assert busiest_head(attention[:1, :, :1, :1]) == (0, 0)
