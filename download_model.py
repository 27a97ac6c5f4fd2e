#!/usr/bin/env python3
"""Download a released model into models/.

python download_model.py 117M
"""

import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from tqdm import tqdm

from command_line import Parser, run, shown
from gpt2 import download, files
from gpt2.workspace import Workspace


def main() -> None:
    parser = Parser("Download a released GPT-2 model.")
    add = parser.add_argument
    add("model", choices=list(download.RELEASES), help="size of the model, by its old or new name")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add("--url", metavar="BASE", default=download.BASE_URL, help="fetch BASE/MODEL/FILE")
    args = parser.parse_args()

    folder = Workspace.find(args.models_dir).new_model_folder(args.model)
    files.make_folder(folder)
    try:
        for name in download.FILES:
            url = f"{args.url}/{download.RELEASES[args.model]}/{name}"
            with tqdm(desc=f"Fetching {name}", unit="B", unit_scale=True) as bar:

                def show(received: int, size: int, bar: tqdm = bar) -> None:
                    bar.total = size or None
                    bar.update(received)

                download.fetch(url, folder / name, show)
    finally:
        with contextlib.suppress(OSError):  # an empty folder would hide one of the other name
            folder.rmdir()
    print("The model is in", shown(folder))


if __name__ == "__main__":
    run(main)
