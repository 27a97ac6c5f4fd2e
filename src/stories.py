#!/usr/bin/env python3
"""Write short stories to train on, or check stories: python src/stories.py stories.txt"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("stories")
