"""`plot`: pictures of runs and models, and the report of a run; one file per subcommand."""

from gpt2.commands.plot import (
    attention,
    diversity,
    probabilities,
    report,
    surprise,
    training,
)

COMMANDS = {
    "training": training.COMMAND,
    "attention": attention.COMMAND,
    "probabilities": probabilities.COMMAND,
    "surprise": surprise.COMMAND,
    "diversity": diversity.COMMAND,
    "report": report.COMMAND,
}
