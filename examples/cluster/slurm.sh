#!/bin/bash
# A training on four machines, one process on each, which uses all of its GPUs: sbatch slurm.sh
#SBATCH --job-name=gpt2
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --time=12:00:00
# SLURM sends SIGTERM two minutes before the time is over: the run is saved, and can be resumed.
#SBATCH --signal=TERM@120

srun python src/train.py --dataset run.npz --model_name 124M --run_name run1 \
  --batch_size 8 --seed 1 --distribute multi_worker
