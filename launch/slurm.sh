#!/bin/bash
# pcamx train under Slurm, without ssh between the nodes. On as many nodes as wanted:
#   sbatch --nodes 2 launch/slurm.sh configs/mura_multinode.yaml --stage all
# and again with --resume after the time limit; a job that Slurm starts anew resumes by itself.
# What stands below fits nodes of 8 GPUs; options of sbatch go before it. Without GPUs: sbatch
# --gpus-per-node 0, and as many tasks as processes are wanted.
#SBATCH --job-name=pcamx
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# One task a GPU, each of which sees all of its node's: not --gpus-per-task. --cpus-per-task is
# data.threads. TERM comes 180 seconds before the time limit, and training saves and ends.
set -euo pipefail

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${MASTER_ADDR:-${nodes%%$'\n'*}}
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 12000))}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
resume=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [[ " $* " != *" --resume "* ]]; then
    resume=(--resume)
fi

# The names by which a launcher tells a process which rank it is.
exec srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec pcamx train "$@"
' pcamx "$@" ${resume[@]+"${resume[@]}"}
