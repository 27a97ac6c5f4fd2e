"""plot.py as a user calls it: pictures, the report, and errors."""

from __future__ import annotations

import base64
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from gpt2.training import run_log
from gpt2.training.run_log import HISTORY, HistoryLogger
from tests.commands.toolkit_copy import Done, Home, Toolkit

pytest.importorskip("matplotlib")
PLOT = "python src/plot.py"
TEXT = "Wörter 中 \U0001f600 and words"
HOSTILE = "<script>alert(1)</script> \U0001f600 and \x00 words"


@pytest.fixture(scope="module")
def ready(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    """A toolkit with a run that has a history, samples and settings."""
    toolkit = Toolkit(tmp_path_factory.mktemp("plots") / "toolkit")
    root = toolkit.root
    shutil.copytree(home.toolkit.root / "models", root / "models")
    run = root / "checkpoint" / "run1"
    shutil.copytree(root / "models" / "117M", run)
    history = HistoryLogger(run / HISTORY)
    for step in range(1, 5):
        history.log_metrics(step, loss=5 / step, average=6 / step)
    history.log_metrics(4, val_loss=4.5)
    history.close()
    data = run_log.data_in_short([home.toolkit.root / "text.npz"])
    run_log.add_call(run, flags={"batch_size": 2, "top_k": 40}, seed=0, data={"text.npz": data})
    samples = root / "samples" / "run1"
    samples.mkdir(parents=True)
    (samples / "samples-2").write_text("======== SAMPLE 1 ========\nearly\n", encoding="utf-8")
    late = f"======== SAMPLE 1 ========\n\n\n======== SAMPLE 2 ========\n{HOSTILE}\n"
    (samples / "samples-10").write_bytes(late.encode() + b"damaged: \xff\n")
    (root / "long.txt").write_text(f"words and numbers 1 2 3\n{TEXT}" * 400, encoding="utf-8")
    (root / "empty.txt").write_text("")
    row = {"settings": {"temperature": 0.7}, "metrics": {"distinct_1": 0.5, "copied_8": None}}
    (root / "grid.json").write_text(json.dumps({"rows": [row]}))
    return toolkit


@pytest.fixture(scope="module")
def done(ready: Toolkit) -> dict[str, Done]:
    """The results of the subcommands that need TensorFlow."""
    lines = {
        "attention": "attention --file long.txt --model_name run1 --out a.svg --head 1",
        "probabilities": f"probabilities --text '{TEXT}' --model_name run1 --steps 3 --top_k 5",
        "surprise": f"surprise --text '{TEXT}' --model_name run1 --theme dark --out s.png",
        "report": "report --grid grid.json",
    }
    dones = ready.run_in_one_process(*(f"{PLOT} {line}" for line in lines.values()))
    return dict(zip(lines, dones, strict=True))


def is_png(path: Path) -> bool:
    content = path.read_bytes()
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")


def is_svg(path: Path) -> bool:
    return ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_runs_and_grids_are_plotted_without_tensorflow(ready: Toolkit, no_tensorflow: str) -> None:
    lines = ("training --run run1,checkpoint/run1 --out t.svg", "training", "diversity grid.json")
    dones = ready.run_in_one_process(*(f"{no_tensorflow} {PLOT} {line}" for line in lines))
    names = ("t.svg", "training.png", "diversity.png")
    assert [done.succeeds().out for done in dones] == [f"Wrote {name}\n" for name in names]
    assert is_svg(ready.root / "t.svg")
    assert is_png(ready.root / "training.png") and is_png(ready.root / "diversity.png")


def test_attention_plots_the_end_of_a_long_text_and_writes_the_weights(
    ready: Toolkit, done: dict[str, Done]
) -> None:
    said = done["attention"].succeeds().out
    notice, *wrote = said.splitlines()
    assert int(notice.split()[3].replace(",", "")) > 5000
    assert notice.endswith(" the last 32.")
    assert wrote == ["Wrote a.svg", "Values are in a.svg.npz"]
    assert is_svg(ready.root / "a.svg")
    with np.load(ready.root / "a.svg.npz", allow_pickle=False) as values:
        weights, tokens, labels = values["attention"], values["tokens"], values["labels"]
    assert weights.shape == (1, 2, 32, 32) and tokens.shape == labels.shape == (32,)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert (np.triu(weights, 1) == 0).all()
    assert labels[-1].endswith("s") and "\\x" in "".join(labels)


def test_probabilities_and_surprise_plot_a_text(ready: Toolkit, done: dict[str, Done]) -> None:
    said = done["probabilities"].succeeds().out
    assert said.startswith("Wrote probabilities.png\nShowing the last 3 of ")
    assert done["surprise"].succeeds().out == "Wrote s.png\n"
    assert is_png(ready.root / "probabilities.png") and is_png(ready.root / "s.png")


def test_a_report_is_one_page_with_everything_about_the_run(
    ready: Toolkit, done: dict[str, Done]
) -> None:
    assert done["report"].succeeds().out == "Wrote run1.html\n"
    page = (ready.root / "run1.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; \U0001f600" in page
    assert page.index("samples-10<") < page.index("samples-2<")  # newest first
    for text in (
        "beginning of samples-10",
        "--batch_size",
        "text.npz",
        "sha256",
        "distinct_1",
        "damaged: \ufffd",
    ):
        assert text in page, text
    assert page.count("<picture>") == 4


def test_a_report_of_a_new_run_says_what_is_missing(ready: Toolkit, no_tensorflow: str) -> None:
    shutil.copytree(ready.root / "models" / "117M", ready.root / "checkpoint" / "bare")
    ready.run(f"{no_tensorflow} {PLOT} report --run bare --out bare.html").succeeds()
    page = (ready.root / "bare.html").read_text(encoding="utf-8")
    for sentence in ("no history", "no samples yet", "no config.json", "no record of its dataset"):
        assert sentence in page, sentence


def test_the_report_of_a_trial_shows_the_plots_of_its_study(
    ready: Toolkit, no_tensorflow: str
) -> None:
    runs = ready.root / "checkpoint"
    shutil.copytree(ready.root / "models" / "117M", runs / "search-3")
    (runs / "search-history.png").write_bytes(b"\x89PNG history")
    ready.run(f"{no_tensorflow} {PLOT} report --run search-3").succeeds()
    page = (ready.root / "search-3.html").read_text(encoding="utf-8")
    plot = base64.b64encode(b"\x89PNG history").decode()
    assert f'<img alt="Validation loss by trial" src="data:image/png;base64,{plot}">' in page
    assert "Importance of each setting" not in page


# Command lines that are wrong whatever the files are: exit code 2.
MISUSE = [
    ("training --theme pink", "--theme must be one of light, dark, not 'pink'"),
    ("attention", "either --text or --file"),
    ("attention --text a --file long.txt", "either --text or --file"),
    ("surprise --text a --file long.txt", "either --text or --file"),
    ("attention --text a --head one", "--head must be a whole number, not 'one'"),
    ("diversity", "--grid"),
    ("report --theme dark", "no flag --theme"),
]
# Files and values that do not work: exit code 1.
BAD_INPUT = [
    ("training --run nowhere", "There is no run 'nowhere' in .*checkpoint"),
    ("training --run models/117M", r"history\.jsonl is missing"),
    ("training --run ,", "--run: no name"),
    ("training --out picture.jpg", r"picture\.jpg.* \.png or \.svg"),
    ("training --out nowhere/a.png", r"nowhere/a\.png cannot be written: there is no folder"),
    ("attention --file nowhere.txt", r"nowhere\.txt cannot be read"),
    ("attention --file empty.txt", r"empty\.txt contains no text"),
    ("attention --text a --model_name nothing", "no model 'nothing'"),
    ("attention --text a --layer 1", "--layer .* from 0 to 0, not 1"),
    ("attention --text a --layer -1", "--layer .* from 0 to 0, not -1"),
    ("attention --text a --head 2", "--head .* from 0 to 1, not 2"),
    ("attention --text a --token 2", "--token .* from 1 to 1, not 2"),
    ("attention --file long.txt --token 5", "--token .* from [0-9,]+ to [0-9,]+, not 5"),
    (
        "attention --text zzz --model_name mixed",
        "do not belong together|hparams.json of the same model",
    ),
    ("probabilities --text a --steps 0", "--steps .* from 1 to 60, not 0"),
    ("probabilities --text a --top_p 2", "top_p .* from 0 to 1, not 2"),
    ("probabilities --text a --top_k 9999", "9999.* 300 tokens"),
    ("probabilities --text a --likeliest 0", "--likeliest .* at least 1, not 0"),
    ("diversity --grid empty.txt", r"empty\.txt is not valid JSON"),
    ("report --run nowhere", "There is no run 'nowhere'"),
    ("report --out run1.pdf", r"run1\.pdf.* \.html"),
    ("report --out nowhere/a.html", r"nowhere/a\.html cannot be written: there is no folder"),
    ("report --grid nowhere.json", r"nowhere\.json cannot be read"),
]


def test_bad_input_is_reported_without_tensorflow_or_matplotlib(
    ready: Toolkit, no_tensorflow: str, tmp_path: Path
) -> None:
    mixed = ready.root / "models" / "mixed"
    shutil.copytree(ready.root / "models" / "117M", mixed)
    hparams = json.loads((mixed / "hparams.json").read_text())
    (mixed / "hparams.json").write_text(json.dumps(hparams | {"n_vocab": 40}))
    before = ready.contents()
    with_model = ("attention", "probabilities", "surprise")
    cases = [(2, *case) for case in MISUSE] + [(1, *case) for case in BAD_INPUT]
    lines = [
        f"{no_tensorflow}:{break_matplotlib(tmp_path)} {PLOT} {line}"
        + " --model_name run1" * (line.startswith(with_model) and "--model_name" not in line)
        for _, line, _ in cases
    ]
    for done, (code, _, sentence) in zip(ready.run_in_one_process(*lines), cases, strict=True):
        done.says(code, sentence)
        assert done.out == ""
    assert ready.contents() == before


def test_help_needs_neither_tensorflow_nor_matplotlib(
    ready: Toolkit, no_tensorflow: str, tmp_path: Path
) -> None:
    names = ("training", "attention", "probabilities", "surprise", "diversity", "report")
    python_path = f"{no_tensorflow}:{break_matplotlib(tmp_path)}"
    dones = ready.run_in_one_process(*(f"{python_path} {PLOT} {name} --help" for name in names))
    for name, done in zip(names, dones, strict=True):
        assert f"plot.py {name} " in done.succeeds().out
        assert "--out FILE" in done.out


def break_matplotlib(folder: Path) -> Path:
    """Return a folder for PYTHONPATH in which importing matplotlib fails."""
    (folder / "matplotlib").mkdir(exist_ok=True)
    (folder / "matplotlib" / "__init__.py").write_text("raise ImportError('not here')")
    return folder


def test_the_error_without_matplotlib_says_how_to_install_it(
    ready: Toolkit, tmp_path: Path
) -> None:
    done = ready.run(f"PYTHONPATH={break_matplotlib(tmp_path)} {PLOT} report")
    done.says(1, "pip install matplotlib")
