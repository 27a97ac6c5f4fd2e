"""One file for each subcommand of plot.py, and what they share."""
