"""`python -m gpt2 VERB`, the same as the command `gpt2`."""

from gpt2.commands.main import main

if __name__ == "__main__":
    main()
