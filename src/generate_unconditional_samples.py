#!/usr/bin/env python3
"""Generate samples: python src/generate_unconditional_samples.py --model_name 117M --nsamples 3"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("unconditional")
