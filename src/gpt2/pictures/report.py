"""All there is to see of a run, on one page that opens offline.

The page refers to nothing outside itself and runs no script, and says so to the browser. Every
picture is there twice, in light and dark, and the reader's system says which one is shown.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2.generation.sampling import SamplingSettings
from gpt2.pictures import style
from gpt2.pictures.attention import attention_picture
from gpt2.pictures.diversity import Row, diversity_picture
from gpt2.pictures.labels import pieces
from gpt2.pictures.probabilities import probabilities_picture
from gpt2.pictures.style import THEMES, Theme
from gpt2.pictures.surprisal import FULL, perplexity_in_words
from gpt2.pictures.training import training_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2.evaluation.next_tokens import TokenDistribution
    from gpt2.training.run_log import Curves

LONGEST_SAMPLE = 20_000  # characters of a file of samples that are shown


@dataclasses.dataclass(frozen=True)
class SampleAnalysis:
    """What a model makes of the beginning of a sample; T tokens, of which A for attention."""

    name: str  # where the sample is from
    tokens: Sequence[bytes]  # [T]
    nats: np.ndarray  # [T]; see `evaluation.surprise`
    attention: np.ndarray  # [L, H, A, A]
    steps: Sequence[TokenDistribution]  # through the first A tokens
    settings: SamplingSettings  # what the steps' tokens are drawn with
    token_bytes: Callable[[int], bytes]


@dataclasses.dataclass(frozen=True)
class Report:
    """What the page is made of; None, or nothing, where a run has no such thing."""

    run: str
    curves: Curves | None = None
    parameters: int | None = None
    samples: Mapping[str, str] = dataclasses.field(default_factory=dict)  # newest first, by name
    more_samples: int = 0  # files that are left out
    calls: Sequence[Mapping[str, Any]] = ()  # of train.py, the first one first
    reading: SampleAnalysis | None = None
    grid: Sequence[Row] = ()

    def page(self) -> str:
        """The HTML."""
        sections = {
            "Training": self._training(),
            "Samples": self._samples(),
            "Surprise": self._surprise(),
            "Attention": self._attention(),
            "Probabilities": self._probabilities(),
            "Diversity": self._diversity(),
            "Settings": self._settings(),
            "Data card": self._data_card(),
        }
        links = " ".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in sections)
        parts = "\n".join(
            f'<section id="{_anchor(title)}"><h2>{title}</h2>\n{content}\n</section>'
            for title, content in sections.items()
        )
        name = escaped(self.run)
        return _PAGE.format(style=_style_sheet(), name=name, links=links, parts=parts)

    def _training(self) -> str:
        if self.curves is None:
            return _none("The run has no history of its losses.")
        curves, facts = self.curves, {}
        if len(curves.steps):
            facts["Steps"] = f"{int(curves.steps[-1]):,}"
            facts["Training loss, running average"] = _loss(curves.average[-1])
        if np.isfinite(curves.val_loss).any():
            best = int(np.nanargmin(curves.val_loss))
            step = int(curves.val_steps[best])
            facts["Lowest validation loss"] = f"{_loss(curves.val_loss[best])} at step {step:,}"
        if self.parameters:
            facts["Parameters of the model"] = f"{self.parameters:,}"

        def draw(theme: Theme) -> Figure:
            return training_picture({self.run: curves}, theme)

        return table(facts) + picture(draw, "Loss and perplexity over the steps")

    def _samples(self) -> str:
        if not self.samples:
            return _none("The run has no samples yet.")
        shown = []
        for number, (name, text) in enumerate(self.samples.items()):
            cut = text[:LONGEST_SAMPLE]
            rest = f"\n… {len(text) - len(cut):,} more characters" if cut != text else ""
            opened = "" if number else " open"
            shown.append(
                f"<details{opened}><summary>{escaped(name)}</summary>"
                f"<pre>{escaped(cut + rest)}</pre></details>"
            )
        if self.more_samples:
            shown.append(f"<p>{self.more_samples:,} older files are left out.</p>")
        return "\n".join(shown)

    def _surprise(self) -> str:
        if self.reading is None:
            return _none("There is no sample to read.")
        spans = []
        for token, nats in zip(self.reading.tokens, self.reading.nats, strict=True):
            known = math.isfinite(nats)
            strength = min(1.0, max(0.0, nats / FULL)) if known else 0.0
            said = f"{100 * math.exp(-nats):.2g} %" if known else "not predicted"
            spans.append(f'<span style="--s:{strength:.3f}" title="{said}">{_token(token)}</span>')
        return (
            f"<p>The beginning of {escaped(self.reading.name)}. The stronger its ground, the less "
            f"the model expected a token; its probability shows when you point at it. "
            f"{perplexity_in_words(self.reading.nats)}.</p>"
            f'<p class="scale">expected <i></i> not expected</p>'
            f'<pre class="read">{"".join(spans)}</pre>'
        )

    def _attention(self) -> str:
        if self.reading is None:
            return _none("There is no sample to read.")
        attention, tokens = self.reading.attention, self.reading.tokens
        layer, head = busiest_head(attention)
        length = attention.shape[-1]

        def draw(theme: Theme) -> Figure:
            return attention_picture(attention, tokens[:length], layer, head, length - 1, theme)

        return (
            f"<p>The first {length} tokens of the same sample. The head drawn large is the one "
            "that looks least at the first token and at the token itself.</p>"
        ) + picture(draw, f"Attention of every head; large: layer {layer}, head {head}")

    def _probabilities(self) -> str:
        if self.reading is None:
            return _none("There is no sample to read.")
        reading = self.reading

        def draw(theme: Theme) -> Figure:
            return probabilities_picture(
                reading.steps, reading.token_bytes, reading.settings, theme
            )

        return (
            "<p>What the model expects at the last of these tokens, and what comes next. In "
            "colour: the token that came.</p>"
        ) + picture(draw, "The likeliest next tokens, before and after the rules of sampling")

    def _diversity(self) -> str:
        if not self.grid:
            return _none(
                "No grid of settings was given; make one with src/evaluate.py grid --json FILE, "
                "and name it with --grid FILE."
            )
        # Settings as the flags they are: a metric has the name of one of them.
        rows = [
            {f"--{name}": value for name, value in row.settings.items()} | dict(row.metrics)
            for row in self.grid
        ]
        heads = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[f"{row[name]:.4g}" if name in row else "" for name in heads] for row in rows]

        def draw(theme: Theme) -> Figure:
            return diversity_picture(self.grid, theme)

        return (
            f"{picture(draw, 'Metrics of samples by setting')}"
            f"<details><summary>All {len(cells):,} combinations</summary>"
            f"{wide_table(heads, cells)}</details>"
        )

    def _settings(self) -> str:
        if not self.calls:
            return _none("The run has no config.json.")
        found = []
        for number, call in enumerate(reversed(self.calls)):
            title = f"Call {len(self.calls) - number} of {len(self.calls)}, {call.get('time', '')}"
            facts = {
                "steps before": call.get("steps_before"),
                "seed": call.get("seed"),
                "checkpoint": _end_of_path(_part(call, "checkpoint").get("path")),
                "checkpoint index, sha256": _part(call, "checkpoint").get("index_sha256"),
                **{f"model: {name}": value for name, value in _part(call, "hparams").items()},
                **{f"--{name}": value for name, value in _part(call, "flags").items()},
                **_part(call, "versions"),
            }
            opened = "" if number else " open"
            found.append(
                f"<details{opened}><summary>{escaped(title)}</summary>{table(facts)}</details>"
            )
        return "\n".join(found)

    def _data_card(self) -> str:
        cards = {path: facts for call in self.calls for path, facts in _part(call, "data").items()}
        if not cards:
            return _none("The run has no record of its data.")
        return "\n".join(
            f"<h3>{escaped(path)}</h3>{table(facts if isinstance(facts, Mapping) else {})}"
            for path, facts in cards.items()
        )


def busiest_head(attention: np.ndarray) -> tuple[int, int]:
    """Layer and head that give the first token and a token itself the least weight, together.

    Args:
        attention: [L, H, T, T].
    """
    itself = np.diagonal(attention, axis1=2, axis2=3)[:, :, 1:].sum(-1)
    idle = attention[:, :, 1:, 0].sum(-1) + itself  # [L, H]
    layer, head = np.unravel_index(int(idle.argmin()), idle.shape)
    return int(layer), int(head)


def escaped(text: object) -> str:
    """A text as it can stand anywhere in a page; control characters become U+FFFD."""
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", str(text)))


def picture(draw: Callable[[Theme], Figure], words: str) -> str:
    """A picture in both themes, inside the page; `words` are for those who do not see it."""
    light, dark = (
        base64.b64encode(style.drawn(draw(THEMES[name]), "svg", THEMES[name])).decode()
        for name in ("light", "dark")
    )
    kind = "data:image/svg+xml;base64,"
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{kind}{dark}">'
        f'<img alt="{escaped(words)}" src="{kind}{light}"></picture>'
    )


def table(facts: Mapping[str, Any]) -> str:
    """Names and values, one pair to a line; what is None, False or empty is left out."""
    rows = (
        f"<tr><th>{escaped(name)}</th><td>{escaped(_shown(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None and value is not False and value != ""
    )
    return f"<table>{''.join(rows)}</table>"


def wide_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a line of heads, in a box of its own that scrolls sideways."""
    lines = [heads, *rows]
    cells = (
        "".join(f"<{kind}>{escaped(cell)}</{kind}>" for cell in line)
        for line, kind in zip(lines, ["th"] + ["td"] * len(rows), strict=True)
    )
    return '<div class="wide"><table>' + "".join(f"<tr>{c}</tr>" for c in cells) + "</table></div>"


def _token(token: bytes) -> str:
    # The browser has fonts of its own, and shows a box itself for what none of them has.
    parts = []
    for text, is_name in pieces(token, lambda character: True):
        shown = escaped(text).replace("\n", "↵\n")
        parts.append(f"<b>{shown}</b>" if is_name else shown)
    return "".join(parts)


def _part(call: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = call.get(name)
    return part if isinstance(part, Mapping) else {}


def _end_of_path(path: Any) -> str | None:
    """The last folder and the name: pages are passed on, and home folders have names."""
    return "/".join(re.split(r"[/\\]", path)[-2:]) if isinstance(path, str) else None


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return "yes" if value is True else str(value)


def _loss(nats: float) -> str:
    return f"{nats:.3f} nats per token" if math.isfinite(nats) else "not finite"


def _none(sentence: str) -> str:
    return f'<p class="none">{escaped(sentence)}</p>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _style_sheet() -> str:
    light, dark = (_variables(THEMES[name]) for name in ("light", "dark"))
    return f":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{_RULES}"


def _variables(theme: Theme) -> str:
    return (
        f"--ground:{theme.ground};--ink:{theme.ink};--faint:{theme.faint};"
        f"--link:{theme.series[0]};--strong:{theme.surprise[-1]}"
    )


_RULES = """\
body{margin:0 auto;max-width:76rem;padding:1rem 1.5rem 4rem;background:var(--ground);
color:var(--ink);font:16px/1.5 system-ui,sans-serif}
a{color:var(--link);margin-right:1rem}
h2{margin:2.5rem 0 .75rem;border-bottom:1px solid var(--faint)}
img{max-width:100%;height:auto}
table{border-collapse:collapse;margin:.5rem 0}
th,td{text-align:left;vertical-align:top;padding:.15rem 1.5rem .15rem 0;font-weight:normal;
overflow-wrap:anywhere}
th{opacity:.75;white-space:nowrap}
.wide{overflow-x:auto;font-size:.85rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.6 ui-monospace,monospace;
max-height:32rem;overflow-y:auto;border-left:3px solid var(--faint);padding-left:1rem}
summary{cursor:pointer}
.read span{background:color-mix(in srgb,var(--strong) calc(var(--s)*100%),transparent);
border-radius:2px}
.read b{font-weight:normal;font-size:.7em;border:1px solid var(--faint);border-radius:2px;
padding:0 .2em;margin:0 .1em}
.scale i{display:inline-block;width:12rem;height:.7rem;border:1px solid var(--faint);
background:linear-gradient(to right,transparent,var(--strong))}
.none{opacity:.75}
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name}</title>
<style>
{style}</style>
</head>
<body>
<h1>{name}</h1>
<nav>{links}</nav>
{parts}
</body>
</html>
"""
