"""The examples that divide work among machines, run on this one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2.stories.grammar import write_stories
from gpt2.tokenizer import train_vocabulary, write_vocabulary
from tests.commands.toolkit_copy import Toolkit
from tests.support.documents import ROOT

# Runs what it is given at once, for each task of the array, as SLURM would do later.
SBATCH = """\
#!/bin/bash
for word in "$@"; do
  case $word in
    --array=1-*) last=${word#--array=1-} ;;
    --wrap=*) command=${word#--wrap=} ;;
    --dependency=afterok:17) after=17 ;;
  esac
done
if [ -n "$last" ]; then
  for i in $(seq "$last"); do SLURM_ARRAY_TASK_ID=$i bash -c "$command" >&2 || exit 1; done
  echo 17
elif [ -n "$after" ]; then bash -c "$command" >&2
else exit 1
fi
"""


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_the_script_for_slurm_merges_what_its_arrays_write(toolkit: Toolkit) -> None:
    root = toolkit.root
    bin_folder = root / "bin"
    bin_folder.mkdir()
    (bin_folder / "sbatch").write_text(SBATCH)
    (bin_folder / "sbatch").chmod(0o755)
    (root / "texts").mkdir()
    (root / "texts" / "a.txt").write_text("\n".join(write_stories(9, seed=2)))
    (root / "prompts.txt").write_text("The\nA\n")
    script = ROOT / "examples" / "cluster" / "slurm_parts.sh"
    sample = "generate_conditional_samples.py --prompts prompts.txt --seed 1"
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    # A link to the interpreter would not find the packages of its environment.
    (bin_folder / "python").write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    (bin_folder / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", str(script), "2"], cwd=root, env=os.environ | {"PATH": path}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    for each in toolkit.run_in_one_process(
        "python src/encode.py texts/ whole.npz", f"python src/{sample} --out whole.jsonl"
    ):
        assert each.code == 0, each
    assert (root / "tokens.npz").read_bytes() == (root / "whole.npz").read_bytes()
    assert (root / "samples.jsonl").read_text() == (root / "whole.jsonl").read_text()


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="Apache Beam is not installed"
)
def test_the_pipeline_for_beam_writes_what_encode_writes(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "117M"
    folder.mkdir(parents=True)
    write_vocabulary(folder, *train_vocabulary([], 257))
    (tmp_path / "texts").mkdir()
    for number in range(4):
        text = "\n".join(write_stories(150, seed=number))
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    pipeline = str(ROOT / "examples" / "cluster" / "beam_encode.py")
    for words in (
        ["-m", "gpt2", "encode", "texts", "whole.npz"],
        [pipeline, "texts", "tokens.npz", "--parts", "3"],
    ):
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "tokens.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert len(list(tmp_path.glob("tokens.npz.part-*.npz"))) == 3
