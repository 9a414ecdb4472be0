#!/usr/bin/env bash
# Runs a sweep as a SLURM job. From the repository's root:
#
#   CONFIG=experiments/wd_sweep.py WORKDIR=/shared/wd_sweep sbatch scripts/slurm.sh
#
# Words after scripts/slurm.sh are flags of launch.py. DRY_RUN=1 bash scripts/slurm.sh prints the step and runs nothing.
# Change what follows to your cluster's sizes, or give it to sbatch, which wins: sbatch --nodes=1 scripts/slurm.sh.
#
#SBATCH --job-name=grokjax
#SBATCH --output=grokjax-%j.log
# A job that starts again goes on in the same log.
#SBATCH --open-mode=append
#SBATCH --nodes=2
# One process per GPU. Not --gpus-per-task: JAX gives process i of a node its GPU i, so every process must see them all.
# Without GPUs: one process per node (--ntasks-per-node=1), and --gpus-per-node away.
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
# Two minutes before the time is up this script, and only it, gets SIGUSR1, which says that the job should go on later.
#SBATCH --signal=B:USR1@120
# A job that was preempted, or whose node failed, goes back into the queue.
#SBATCH --requeue
set -euo pipefail

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

[[ ${CONFIG:-} ]] || die 'CONFIG is missing: name an experiment, such as CONFIG=experiments/wd_sweep.py.'
[[ ${WORKDIR:-} ]] || die 'WORKDIR is missing: name a directory that all nodes share, or one in a bucket.'
PYTHON=${PYTHON:-.venv/bin/python}

# SLURM must not end the other processes when the first one exits: they are saving too, and a second signal would cut
# that short. When a process dies, the others end by themselves.
step=(srun --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"})
step+=("$PYTHON" launch.py "--config=$CONFIG" "--workdir=$WORKDIR" --distributed "$@")
if [[ ${DRY_RUN:-} ]]; then
  printf '%q ' "${step[@]}"
  echo
  exit
fi

# sbatch runs a copy of this script elsewhere, but starts it in the directory that it was submitted from.
[[ -f launch.py ]] || die 'launch.py is not here: submit this job from the root of the repository.'

again='' interrupted='' status=0
# scancel with a signal reaches the processes and not this script.
trap 'interrupted=1 again=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
# When the whole job is ended, the processes have their SIGTERM already; this script only has to outlast their saving.
trap 'interrupted=1' TERM

"${step[@]}" &
step_pid=$!
while true; do
  interrupted='' status=0
  wait "$step_pid" || status=$?
  [[ $interrupted ]] || break
done

# 143 is a sweep that was told to stop and has saved its state.
if [[ $again && $status == 143 ]]; then
  echo 'the time was up: the job goes back into the queue, and on from here'
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
