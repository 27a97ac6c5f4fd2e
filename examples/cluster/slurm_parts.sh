#!/bin/bash
# Divide a corpus and a file of prompts among the tasks of SLURM arrays, then merge their parts:
#   bash examples/cluster/slurm_parts.sh [NUMBER_OF_PARTS]
# Submitted from a folder that all machines see. A task that ended early is submitted again with the
# same line: samples resume, and a part of a corpus is written again.
set -e
n=${1:-8}
mkdir -p parts

encode="python src/encode.py texts/"
sample="python src/generate_conditional_samples.py --prompts prompts.txt --seed 1 --out"

job=$(sbatch --parsable --array=1-"$n" --cpus-per-task=8 --time=4:00:00 \
  --wrap="$encode parts/tokens-\$SLURM_ARRAY_TASK_ID.npz --shard \$SLURM_ARRAY_TASK_ID/$n")
sbatch --dependency=afterok:"$job" --wrap="$encode tokens.npz --merge 'parts/tokens-*.npz'"

job=$(sbatch --parsable --array=1-"$n" --cpus-per-task=8 --time=12:00:00 \
  --wrap="$sample parts/samples-\$SLURM_ARRAY_TASK_ID.jsonl --shard \$SLURM_ARRAY_TASK_ID/$n")
sbatch --dependency=afterok:"$job" --wrap="$sample samples.jsonl --merge 'parts/samples-*.jsonl'"
