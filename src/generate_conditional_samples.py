#!/usr/bin/env python3
"""Complete a file of prompts: python src/generate_conditional_samples.py --prompts prompts.txt"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("conditional")
