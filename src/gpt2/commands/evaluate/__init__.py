"""`evaluate`: perplexity and diversity; one file per subcommand."""

from gpt2.commands.evaluate import bigram, compare, diversity, grid, perplexity, reproduce, score

COMMANDS = {
    "perplexity": perplexity.COMMAND,
    "score": score.COMMAND,
    "bigram": bigram.COMMAND,
    "compare": compare.COMMAND,
    "diversity": diversity.COMMAND,
    "grid": grid.COMMAND,
    "reproduce": reproduce.COMMAND,
}
