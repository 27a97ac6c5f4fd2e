"""The command line: flags, messages, progress and signals. The only part that prints or exits."""
