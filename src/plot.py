#!/usr/bin/env python3
"""Draw how a run went and what a model does with a text.

python src/plot.py training --run run1
python src/plot.py attention --model_name run1 --text 'To be or not to be'
python src/plot.py report --run run1
"""

from command_line import run_fire
from plot_commands.attention import attention
from plot_commands.diversity import diversity
from plot_commands.probabilities import probabilities
from plot_commands.report import report
from plot_commands.surprise import surprise
from plot_commands.training import training

if __name__ == "__main__":
    run_fire(training, attention, probabilities, surprise, diversity, report)
