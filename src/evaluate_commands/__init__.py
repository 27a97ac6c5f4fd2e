"""One file for each subcommand of evaluate.py, and what they share."""
