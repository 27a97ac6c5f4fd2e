#!/usr/bin/env python3
"""Tokenize text files into a dataset: python src/encode.py shakespeare.txt shakespeare.npz"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("encode")
