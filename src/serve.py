#!/usr/bin/env python3
"""Serve models, in the form of OpenAI's API and as a page: python src/serve.py --model_name run1"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("serve")
