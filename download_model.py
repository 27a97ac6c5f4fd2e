#!/usr/bin/env python3
"""Download released models into models/.

python download_model.py 117M
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from tqdm import tqdm

from command_line import Parser, run, shown
from gpt2 import download
from gpt2.download.transfer import in_bytes, received
from gpt2.errors import UserError
from gpt2.workspace import Workspace


class Bar(download.DownloadProgress):
    """One bar for all files of all models."""

    def __init__(self) -> None:
        self.bar = tqdm(unit="B", unit_scale=True, disable=True)

    def planned(self, missing: int, present: int) -> None:
        if missing:  # else no server told
            print(f"{in_bytes(missing)} to fetch", flush=True)
        self.bar = tqdm(
            total=missing + present,
            initial=present,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
        )

    def file(self, path: Path) -> None:
        self.bar.set_description(f"{path.parent.name}/{path.name}")

    def advance(self, size: int) -> None:
        self.bar.update(size)

    def waiting(self, seconds: float, reason: str) -> None:
        self.bar.set_description(f"Connection lost, next try in {seconds:.0f} s")

    def checking(self, path: Path) -> None:
        self.bar.set_description(f"Checking {path.name}")


def main() -> None:
    parser = Parser("Download released GPT-2 models; what is there already is not fetched again.")
    add = parser.add_argument
    add("model", nargs="+", help=f"sizes of models: {', '.join(download.RELEASES)}")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add("--url", metavar="BASE", help="fetch BASE/MODEL/FILE, from a server of your own")
    add("--verify", action="store_true", help="fetch nothing, but check every byte that is there")
    args = parser.parse_args()

    workspace = Workspace.find(args.models_dir)
    if args.verify:
        verify([workspace.model_folder(name) for name in args.model])
        return
    for name in args.model:
        if name not in download.RELEASES and not args.url:
            parser.error(f"invalid choice: {name!r} (choose from {', '.join(download.RELEASES)})")
    models = [download.Download(name, workspace, args.url) for name in args.model]
    progress = Bar()
    try:
        download.download(models, progress)
    except KeyboardInterrupt:
        progress.bar.close()
        kept = sum(received(model.folder / name) for model in models for name in download.FILES)
        raise KeyboardInterrupt(
            f"Interrupted; {in_bytes(kept)} of unfinished files are kept, and the same command "
            "goes on from there."
        ) from None
    finally:
        progress.bar.close()
    for model in models:
        print("The model is in", shown(model.folder))


def verify(folders: list[Path]) -> None:
    """Show what is found, file by file."""
    broken = []
    for folder in folders:
        for finding in download.verify(folder):
            print(f"{shown(finding.path)}: {finding.words}", flush=True)
            if not finding.whole:
                broken.append(finding.path.name)
    if broken:
        raise UserError(
            f"Not whole: {', '.join(broken)}; run the same command without --verify to fetch what "
            "is broken or missing."
        )


if __name__ == "__main__":
    run(main)
