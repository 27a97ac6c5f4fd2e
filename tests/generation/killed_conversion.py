"""Opens the model of a folder with LiteRT: python killed_conversion.py FOLDER [kill].

It prints how often it was told of progress, and some logits; with `kill` it kills itself in the
middle of the conversion.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from gpt2.checkpoint.folder import ModelFolder
from gpt2.generation.loading import Converting, open_model


def main() -> None:
    events = 0

    def progress(event: Converting) -> None:
        nonlocal events
        events += 1
        if event.done == 2 and sys.argv[2:] == ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)

    model = open_model(ModelFolder(Path(sys.argv[1])), engine="litert", progress=progress)
    print(events, *model.logits([5, 200])[:3])


if __name__ == "__main__":
    main()
