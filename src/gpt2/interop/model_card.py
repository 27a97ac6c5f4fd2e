"""The model card of an exported model: Markdown with YAML front matter, made from its run.

Source of the front matter: https://huggingface.co/docs/hub/model-cards#model-card-metadata.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import BEST, RunFolder
from gpt2.errors import UserError, visible
from gpt2.training import run_log
from gpt2.workspace import ALIASES

# The names of the released models on the hub.
_RELEASED = {
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}


def hub_name(model: str) -> str | None:
    """Return the name on the hub of a released model, None for any other name.

    Example:
        >>> hub_name("117M"), hub_name("run1")
        ('openai-community/gpt2', None)
    """
    return _RELEASED.get(model, _RELEASED.get(ALIASES.get(model, "")))


def released_name(name: str) -> str | None:
    """Return the name here of a released model of the hub, None for any other name.

    Example:
        >>> released_name("openai-community/gpt2"), released_name("gpt2-xl"), released_name("bert")
        ('124M', '1558M', None)
    """
    names = {hub.rpartition("/")[2]: size for size, hub in _RELEASED.items()}
    owner, _, model = name.rpartition("/")
    return names.get(model) if owner in ("", "openai-community") else None


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a run's records say of one of its checkpoints; None and empty where they say nothing.

    Attributes:
        base: model that the run was trained from.
        datasets: file name and facts (files, bytes, sha256) of each dataset.
        step: of the checkpoint.
        val_loss: of the last validation up to that step, nats per token.
    """

    base: str | None = None
    datasets: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    step: int | None = None
    val_loss: float | None = None


def run_facts(model: ModelFolder) -> RunFacts:
    """Return what is recorded about a model, in its folder or, for `best/`, in the run's."""
    folder = model.path.parent if model.path.name == BEST else model.path
    try:
        calls = run_log.read_calls(folder)
    except UserError:
        return RunFacts()  # no run, such as a downloaded model
    step = RunFolder(folder).step_of(model.checkpoint)
    found = {
        PureWindowsPath(path).name: facts  # takes both kinds of slashes
        for call in calls
        if isinstance(data := call.get("data"), dict)
        for path, facts in data.items()
        if isinstance(facts, dict)
    }
    return RunFacts(run_log.base_model(folder), tuple(found.items()), step, _val_loss(folder, step))


def _val_loss(folder: Path, step: int) -> float | None:
    try:
        curves = run_log.read_curves(folder / run_log.HISTORY)
    except UserError:
        return None
    losses = curves.val_loss[curves.val_steps <= step]
    return float(losses[-1]) if len(losses) and math.isfinite(losses[-1]) else None


def model_card(name: str, model: ModelFolder, facts: RunFacts) -> str:
    """Return the card of a model.

    Args:
        name: what the model is called, for the title.
        facts: see `run_facts`.
    """
    hparams = model.hparams
    rows = {
        "parameters": f"{hparams.parameters:,}",
        "layers": hparams.n_layer,
        "hidden size": hparams.n_embd,
        "attention heads": hparams.n_head,
        "context window": f"{hparams.n_ctx:,} tokens",
        "vocabulary": f"{hparams.n_vocab:,} tokens",
    }
    if facts.base:
        rows["trained from"] = _cell(facts.base)
    if facts.step is not None:
        rows["training steps"] = f"{facts.step:,}"
    for dataset, known in facts.datasets:
        rows[f"dataset {_cell(dataset)}"] = ", ".join(
            f"{key} {_cell(known[key])}" for key in ("files", "bytes", "sha256") if key in known
        )
    if facts.val_loss is not None:
        rows["validation loss"] = f"{facts.val_loss:.4f} nats per token"
        rows["validation perplexity"] = f"{_perplexity(facts.val_loss):.2f}"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""---
{_front_matter(name, facts)}
---

# {_cell(name)}

A GPT-2 model, trained with retrain-gpt2.

| | |
| --- | --- |
{table}

## Sampling

```python
from transformers import pipeline

generate = pipeline("text-generation", model="PATH OR NAME OF THIS MODEL")
print(generate("The", max_new_tokens=40, do_sample=True, top_k=40)[0]["generated_text"])
```

## License

Fill in the license of the model, here and in the first lines of this file.
"""


def _front_matter(name: str, facts: RunFacts) -> str:
    """Return the YAML; every value is JSON, which YAML includes."""
    lines = [
        "# license: fill in, such as mit",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [gpt2, text-generation]",
    ]
    base = facts.base and hub_name(facts.base)
    if base:
        lines.append(f"base_model: {_json(base)}")
    if facts.val_loss is not None and facts.datasets:
        dataset, known = facts.datasets[-1]  # the validation set follows the training set
        metrics = [
            {"type": "loss", "value": round(facts.val_loss, 6)},
            {"type": "perplexity", "value": round(_perplexity(facts.val_loss), 4)},
        ]
        source = {"name": visible(dataset), "type": "text", "args": {"sha256": known.get("sha256")}}
        task = {"type": "text-generation"}
        results = [{"task": task, "dataset": source, "metrics": metrics}]
        lines.append(f"model-index: {_json([{'name': visible(name), 'results': results}])}")
    return "\n".join(lines)


def _json(value: object) -> str:
    return json.dumps(value)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700))


def _cell(text: object) -> str:
    """Return foreign text for a cell of a Markdown table."""
    return re.sub(r"([|<>`*_\[\]\\])", r"\\\1", visible(text))
