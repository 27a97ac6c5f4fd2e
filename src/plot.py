#!/usr/bin/env python3
"""Plot the curves of a run and the predictions of a model; write a report.

python src/plot.py training --run run1
python src/plot.py attention --model_name run1 --text 'To be or not to be'
python src/plot.py report --run run1
"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("plot")
