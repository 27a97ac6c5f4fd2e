#!/usr/bin/env python3
"""Type prompts: python src/interactive_conditional_samples.py --model_name 117M"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("interactive")
