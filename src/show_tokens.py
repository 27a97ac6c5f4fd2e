#!/usr/bin/env python3
"""Show the tokens of a text: python src/show_tokens.py "Hello world"

The command is `gpt2 tokenize`. A script of that name would hide Python's own module `tokenize` from
every script in this folder.
"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("tokenize")
