"""The report of a run: one HTML page that opens offline.

The page loads nothing from elsewhere and runs no script, which its Content-Security-Policy also
tells the browser. Every picture is included in light and dark; the system's mode decides.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
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
from gpt2.pictures.training import smooth, training_picture
from gpt2.workspace import command_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2.evaluation.next_tokens import TokenDistribution
    from gpt2.training.run_log import Curves

LONGEST_SAMPLE = 20_000  # characters of a sample file beyond which it is truncated


@dataclasses.dataclass(frozen=True)
class SampleAnalysis:
    """Surprisal, attention and next-token distributions of the beginning of a sample.

    Attributes:
        name: name of the sample file.
        tokens: bytes of each token [T].
        nats: surprisal of each token, float [T]; see `gpt2.evaluation.surprisal`.
        attention: of the first A tokens, float [L, H, A, A]; see `gpt2.evaluation.attention`.
        steps: distributions of the next token at the last of these A tokens.
        settings: sampling settings of the distributions.
        token_bytes: returns the bytes of a token id.
    """

    name: str
    tokens: Sequence[bytes]
    nats: np.ndarray
    attention: np.ndarray
    steps: Sequence[TokenDistribution]
    settings: SamplingSettings
    token_bytes: Callable[[int], bytes]


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of a report; None or empty for what the run does not have.

    Attributes:
        run: name of the run.
        curves: its losses.
        parameters: number of parameters of the model.
        samples: content of the sample files by name, newest first.
        more_samples: number of older sample files, which are left out.
        calls: the calls of train in config.json, oldest first.
        analysis: of the newest sample.
        grid: results of `evaluate grid`.
        study: plots of the study that the run is a trial of: PNG files by what they show.
    """

    run: str
    curves: Curves | None = None
    parameters: int | None = None
    samples: Mapping[str, str] = dataclasses.field(default_factory=dict)
    more_samples: int = 0
    calls: Sequence[Mapping[str, Any]] = ()
    analysis: SampleAnalysis | None = None
    grid: Sequence[Row] = ()
    study: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def page(self) -> str:
        """Return the page as HTML."""
        sections = {
            "Training": self._training(),
            "Samples": self._samples(),
            "Surprisal": self._surprisal(),
            "Attention": self._attention(),
            "Probabilities": self._probabilities(),
            "Diversity": self._diversity(),
            "Study": self._study(),
            "Settings": self._settings(),
            "Data card": self._data_card(),
        }
        # Without samples there is nothing to analyze, which the section of the samples says.
        sections = {title: content for title, content in sections.items() if content}
        links = " ".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in sections)
        parts = "\n".join(
            f'<section id="{_anchor(title)}"><h2>{title}</h2>\n{content}\n</section>'
            for title, content in sections.items()
        )
        name = escaped(self.run)
        return _PAGE.format(style=_style_sheet(), name=name, links=links, parts=parts)

    def _training(self) -> str:
        if self.curves is None:
            return _none(
                "The run has no history.jsonl, which training writes: the losses are not known."
            )
        curves, facts = self.curves, {}
        if len(curves.steps):
            facts["Steps"] = f"{int(curves.steps[-1]):,}"
            facts["Training loss, smoothed"] = _loss(smooth(curves.loss)[-1])
        if np.isfinite(curves.val_loss).any():
            best = int(np.nanargmin(curves.val_loss))
            step = int(curves.val_steps[best])
            facts["Lowest validation loss"] = f"{_loss(curves.val_loss[best])} at step {step:,}"
        if self.parameters:
            facts["Parameters"] = f"{self.parameters:,}"

        def draw(theme: Theme) -> Figure:
            return training_picture({self.run: curves}, theme)

        return table(facts) + picture(draw, "Loss and perplexity by step")

    def _samples(self) -> str:
        if not self.samples:
            return _none(
                "The run has no samples yet. Training writes them every --sample_every steps; "
                "surprisal, attention and probabilities are then shown for the newest one."
            )
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
            shown.append(f"<p>{self.more_samples:,} older files are not shown.</p>")
        return "\n".join(shown)

    def _surprisal(self) -> str:
        if self.analysis is None:
            return ""
        spans = []
        for token, nats in zip(self.analysis.tokens, self.analysis.nats, strict=True):
            known = math.isfinite(nats)
            strength = min(1.0, max(0.0, nats / FULL)) if known else 0.0
            words = f"{100 * math.exp(-nats):.2g} %" if known else "not predicted"
            spans.append(f'<span style="--s:{strength:.3f}" title="{words}">{_token(token)}</span>')
        return (
            f"<p>The beginning of {escaped(self.analysis.name)}, shaded by surprisal. Point at a "
            f"token to see its probability. {perplexity_in_words(self.analysis.nats)}.</p>"
            f'<p class="scale">expected <i></i> unexpected</p>'
            f'<pre class="read">{"".join(spans)}</pre>'
        )

    def _attention(self) -> str:
        if self.analysis is None:
            return ""
        attention, tokens = self.analysis.attention, self.analysis.tokens
        layer, head = busiest_head(attention)
        length = attention.shape[-1]

        def draw(theme: Theme) -> Figure:
            return attention_picture(attention, tokens[:length], layer, head, length - 1, theme)

        return (
            f"<p>The first {length} tokens of the same sample. The enlarged head is the one with "
            "the least attention to the first token and to the token itself.</p>"
        ) + picture(draw, f"Attention of all heads; enlarged: layer {layer}, head {head}")

    def _probabilities(self) -> str:
        if self.analysis is None:
            return ""
        analysis = self.analysis

        def draw(theme: Theme) -> Figure:
            return probabilities_picture(
                analysis.steps, analysis.token_bytes, analysis.settings, theme
            )

        return (
            "<p>The most probable next tokens at the last of these tokens. The token that "
            "follows in the sample is colored.</p>"
        ) + picture(draw, "The most probable next tokens, before and after truncation")

    def _diversity(self) -> str:
        if not self.grid:
            return _none(
                f"No grid of settings given. Create one with: {command_line('evaluate')} grid "
                "--json FILE, and give it with --grid FILE."
            )
        # Settings are named like flags, as "length" is also the name of a metric.
        rows = [
            {f"--{name}": value for name, value in row.settings.items()} | dict(row.metrics)
            for row in self.grid
        ]
        heads = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[f"{row[name]:.4g}" if name in row else "" for name in heads] for row in rows]

        def draw(theme: Theme) -> Figure:
            return diversity_picture(self.grid, theme)

        return (
            f"{picture(draw, 'Diversity metrics by setting')}"
            f"<details><summary>All {len(cells):,} combinations</summary>"
            f"{wide_table(heads, cells)}</details>"
        )

    def _study(self) -> str:
        return "\n".join(
            f'<img alt="{escaped(words)}" '
            f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
            for words, content in self.study.items()
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
            return _none("The run has no record of its dataset.")
        return "\n".join(
            f"<h3>{escaped(path)}</h3>{table(_dated(facts) if isinstance(facts, Mapping) else {})}"
            for path, facts in cards.items()
        )


def _dated(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a dataset, its time of change (nanoseconds) as a date."""
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError, OSError):
        changed = datetime.datetime.fromtimestamp(facts["changed"] / 1e9, datetime.timezone.utc)
        return {**facts, "changed": f"{changed:%Y-%m-%d %H:%M:%S} UTC"}
    return dict(facts)


def busiest_head(attention: np.ndarray) -> tuple[int, int]:
    """Return layer and head with the least attention to the first token and to the token itself.

    Args:
        attention: float [L, H, T, T].
    """
    itself = np.diagonal(attention, axis1=2, axis2=3)[:, :, 1:].sum(-1)
    idle = attention[:, :, 1:, 0].sum(-1) + itself  # [L, H]
    layer, head = np.unravel_index(int(idle.argmin()), idle.shape)
    return int(layer), int(head)


def escaped(text: object) -> str:
    """Return text escaped for HTML; control characters become U+FFFD."""
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", str(text)))


def picture(draw: Callable[[Theme], Figure], words: str) -> str:
    """Return HTML with a picture in both themes.

    Args:
        draw: makes the figure in a theme.
        words: alternative text.
    """
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
    """Return an HTML table with one name and value per line, without None, False and ""."""
    rows = (
        f"<tr><th>{escaped(name)}</th><td>{escaped(_shown(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None and value is not False and value != ""
    )
    return f"<table>{''.join(rows)}</table>"


def wide_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table with column heads that scrolls horizontally."""
    lines = [heads, *rows]
    cells = (
        "".join(f"<{kind}>{escaped(cell)}</{kind}>" for cell in line)
        for line, kind in zip(lines, ["th"] + ["td"] * len(rows), strict=True)
    )
    return '<div class="wide"><table>' + "".join(f"<tr>{c}</tr>" for c in cells) + "</table></div>"


def _token(token: bytes) -> str:
    # Every character counts as drawable, as the browser has its own fonts and fallbacks.
    parts = []
    for text, is_name in pieces(token, lambda character: True):
        shown = escaped(text).replace("\n", "↵\n")
        parts.append(f"<b>{shown}</b>" if is_name else shown)
    return "".join(parts)


def _part(call: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = call.get(name)
    return part if isinstance(part, Mapping) else {}


def _end_of_path(path: Any) -> str | None:
    """Return the last two parts of a path, as a home folder would reveal the user's name."""
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
        f"--background:{theme.background};--foreground:{theme.foreground};--muted:{theme.muted};"
        f"--link:{theme.series[0]};--strong:{theme.surprisal[-1]}"
    )


_RULES = """\
body{margin:0 auto;max-width:76rem;padding:1rem 1.5rem 4rem;background:var(--background);
color:var(--foreground);font:16px/1.5 system-ui,sans-serif}
a{color:var(--link);margin-right:1rem}
h2{margin:2.5rem 0 .75rem;border-bottom:1px solid var(--muted)}
img{max-width:100%;height:auto}
table{border-collapse:collapse;margin:.5rem 0}
th,td{text-align:left;vertical-align:top;padding:.15rem 1.5rem .15rem 0;font-weight:normal;
overflow-wrap:anywhere}
th{opacity:.75;white-space:nowrap}
.wide{overflow-x:auto;font-size:.85rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.6 ui-monospace,monospace;
max-height:32rem;overflow-y:auto;border-left:3px solid var(--muted);padding-left:1rem}
summary{cursor:pointer}
.read span{background:color-mix(in srgb,var(--strong) calc(var(--s)*100%),transparent);
border-radius:2px}
.read b{font-weight:normal;font-size:.7em;border:1px solid var(--muted);border-radius:2px;
padding:0 .2em;margin:0 .1em}
.scale i{display:inline-block;width:12rem;height:.7rem;border:1px solid var(--muted);
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
