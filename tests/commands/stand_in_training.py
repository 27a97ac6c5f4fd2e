"""A stand-in for `python -m gpt2`, whose `train` writes the files of a run without TensorFlow.

The validation loss is 2 + |log10(learning_rate) + 3| - step / 1000, plus 1 from trial 4 on.
Files in the current folder steer it, so that no test depends on time:

    hold        wait after step 10 until it is deleted, or until train is asked to stop
    diverge     end as a training that diverges after the first step
    refuse      end with a usage error of the input before the first step
    die-N       die by SIGKILL after the first step, in the run STUDY-N

`starts` has one line for each start: the run, and the step that it starts after.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

stopped = False


def stop(*_: object) -> None:
    global stopped
    stopped = True


def say(line: str) -> None:
    global stopped
    try:
        print(line, flush=True)
    except OSError:  # the study is gone
        stopped = True


def train(flags: dict[str, str]) -> int:
    name = flags["--run_name"]
    trial, run = int(name.rpartition("-")[2]), Path("checkpoint") / name
    history, saved = run / "history.jsonl", run / "model-1.index"
    done = int(saved.read_text()) if saved.exists() else 0
    with open("starts", "a") as file:
        file.write(f"{name} {done}\n")
    if Path("refuse").exists():
        print("text.npz: not a dataset. Encode it.", file=sys.stderr)
        return 1
    say("Training...")
    rate = float(flags["--learning_rate"])
    for step in range(done + 5, int(flags["--max_steps"]) + 1, 5):
        loss = 2 + abs(math.log10(rate) + 3) - step / 1000 + (trial >= 4)
        with open(history, "a") as file:
            file.write(json.dumps({"step": step, "loss": loss}) + "\n")
            file.write(json.dumps({"step": step, "val_loss": loss}) + "\n")
        saved.write_text(str(step))
        say(f"[{step}] validation loss")
        if Path("diverge").exists():
            print("Training diverged: loss of step 6 is nan.", file=sys.stderr)
            return 1
        if Path(f"die-{trial}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        while not stopped and step == 10 and (Path("hold").exists() or trial >= 4):
            say("")
            time.sleep(0.02)
        if stopped:
            return 0
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] != ["train"]:
        from gpt2.commands.main import main

        main()
    signal.signal(signal.SIGINT, stop)
    code = train(dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True)))
    os._exit(code)
