#!/usr/bin/env python3
"""Train on a folder of texts and save model and vocabulary in a folder.

    python examples/projects/internship/scripts/train.py \\
        --data_dir data/processed --model_output_dir results/model

Further flags are those of src/train.py.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "src"))

from gpt2.checkpoint.export import export_model
from gpt2.checkpoint.folder import ModelFolder
from gpt2.commands import exits, train
from gpt2.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="encoded dataset or folder of texts")
    parser.add_argument("--model_output_dir", type=Path, required=True, help="folder to write")
    options, flags = parser.parse_known_args()
    values = train.COMMAND.parse(["--dataset", options.data_dir, *flags], "train.py")
    train.run(values)
    run = Workspace.find().run_folder(values.run_name)
    best = run / "best"
    export_model(ModelFolder(best if best.is_dir() else run), options.model_output_dir, True)
    print(f"Model and vocabulary are in {options.model_output_dir}")


if __name__ == "__main__":
    exits.run(main, Path(__file__).name)
