#!/usr/bin/env bash
# Runs a sweep as a SLURM array, each of whose tasks trains a share of the runs by itself. From the repository's root:
#
#   CONFIG=experiments/wd_sweep.py WORKDIR=/shared/wd_sweep sbatch --array=0-15 scripts/slurm_array.sh
#
# Task i of n trains runs i, i + n, i + 2 n, …, at the layout of the whole sweep, into a folder of its own in WORKDIR.
# The array begins at 0. Words after the script are flags of launch.py. DRY_RUN=1 prints the step and runs nothing.
# The same command again goes on with what is not finished. For one program over several nodes see scripts/slurm.sh.
#
#SBATCH --job-name=grokjax
#SBATCH --output=grokjax-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
# Two minutes before the time is up the sweep gets SIGTERM, upon which it saves its state.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

[[ ${CONFIG:-} ]] || die 'CONFIG is missing: name an experiment, such as CONFIG=experiments/wd_sweep.py.'
[[ ${WORKDIR:-} ]] || die 'WORKDIR is missing: name a directory that all nodes share, or one in a bucket.'
[[ ${SLURM_ARRAY_TASK_ID:-} ]] || die 'this is no array: submit it with sbatch --array=0-15.'
[[ ${SLURM_ARRAY_TASK_MIN:-0} == 0 ]] || die "the array begins at $SLURM_ARRAY_TASK_MIN, but it must begin at 0."
PYTHON=${PYTHON:-.venv/bin/python}

step=(srun "$PYTHON" launch.py "--config=$CONFIG" "--workdir=$WORKDIR")
step+=("--shard=$SLURM_ARRAY_TASK_ID/${SLURM_ARRAY_TASK_COUNT:?}" "$@")
if [[ ${DRY_RUN:-} ]]; then
  printf '%q ' "${step[@]}"
  echo
  exit
fi

# sbatch runs a copy of this script elsewhere, but starts it in the directory that it was submitted from.
[[ -f launch.py ]] || die 'launch.py is not here: submit this job from the root of the repository.'
exec "${step[@]}"
