"""`stories`: write short stories to train on, or count the well-formed stories of a file."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

from gpt2 import files, randomness
from gpt2.checks import setting
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import shown
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation.texts import documents
from gpt2.stories.grammar import parse_story, write_stories


@dataclasses.dataclass(frozen=True)
class StoryOptions:
    """What stories takes."""

    file: str = setting(help="file to write, or to check", metavar="FILE", positional=True)
    count: int = setting(10_000, "number of stories to write", low=1)
    seed: int | None = setting(
        None, "random seed of the stories (default: a random one)", low=0, high=math.inf
    )
    check: bool = setting(False, "check the stories in the file, one per line, instead")
    overwrite: bool = setting(False, "replace the file if it exists")


def run(values: Values) -> None:
    """Write the stories, or count the well-formed ones."""
    if values.check:
        _check(values.file)
        return
    path = files.check_writable(Path(values.file))
    if path.exists() and not values.overwrite:
        raise UserError(f"{path} already exists. Choose another name, or add --overwrite.")
    stories = write_stories(values.count, randomness.check_seed(values.seed))
    with files.atomic_write(path, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"{story}\n" for story in stories)
    print(f"Wrote {values.count:,} stories to {shown(path)}")


def _check(file: str) -> None:
    """Print how many stories of a file are well-formed, in all and of each kind."""
    kinds = Counter(
        story.kind if story else None
        for story in map(parse_story, documents(file, ReaderSettings(lines=True)))
    )
    total, malformed = sum(kinds.values()), kinds.pop(None, 0)
    if not total:
        raise UserError(f"{file} contains no text.")
    well_formed = total - malformed
    print(f"{well_formed:,} of {total:,} stories are well-formed ({well_formed / total:.1%})")
    for kind, number in sorted(kinds.items()):
        print(f"  {kind}: {number:,}")


COMMAND = Command(
    summary="Write short stories to train on, one per line, or check stories.",
    details="""\
stories stories.txt --count 20000 --seed 1     write stories
stories samples.txt --check                    count the stories that are well-formed

The stories follow a grammar. Each begins with a control code that names its kind: <|bedtime|>,
<|adventure|> or <|fable|>.""",
    groups={"stories": options_of(StoryOptions)},
    run=run,
)
