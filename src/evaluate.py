#!/usr/bin/env python3
"""Measure how well a model predicts a text, and how varied its samples are.

python src/evaluate.py perplexity --model_name run1 --dataset test.txt
python src/evaluate.py score --model_name run1 --text 'To be, or not to be'
python src/evaluate.py compare --models run1,117M --dataset test.txt
python src/evaluate.py bigram --model_name run1 --dataset train.txt --held_out test.txt
python src/evaluate.py diversity --run run1 --dataset train.txt
python src/evaluate.py grid --model_name run1 --temperature 0.7,1.0 --top_k 10,40
python src/evaluate.py reproduce 124M --data data
"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("evaluate")
