#!/usr/bin/env bash
# Runs a sweep on a Cloud TPU VM or slice. docs/cloud_tpu.md goes through it step by step.
# Written for bash 3.2 too, which is what macOS has.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/cloud_tpu.sh COMMAND [--dry-run] [--name=…] [--zone=…] … [-- flags of launch.py]

commands:
  create    create the TPU VM or slice
  install   copy this commit to every worker and install it there
  start     start the sweep on every worker, or go on with it
  status    say what the machine and the sweep on every worker are doing
  log       follow the first worker's output
  stop      let the sweep save its state and end
  watch     create, install, start; again after every preemption; delete the machine when the sweep has ended
  fetch     copy the working directory here
  delete    delete the TPU VM or slice; the working directory stays in its bucket
  help      print this

settings, each a flag (--zone=us-east5-b, --spot) or a variable (ZONE=us-east5-b, SPOT=1); a flag wins:
  NAME      name of the machine
  ZONE      zone, such as us-east5-b
  TYPE      accelerator type, such as v6e-8 (one host) or v6e-16 (several)
  WORKDIR   working directory in a bucket, such as gs://BUCKET/wd_sweep
  CONFIG    experiment, such as experiments/wd_sweep.py
  SPOT      cheaper, and may be taken away at any time
  QUEUED    ask through a queued resource, which waits until there is a machine
  PROJECT   Google Cloud project; by default gcloud's
  RUNTIME   software version; by default the one for TYPE
  OUT       where fetch copies to; by default results/ and the last part of WORKDIR
  POLL      seconds between two looks of watch; by default 60
  KEEP      watch keeps the machine when the sweep has ended; it goes on costing

--dry-run prints the commands, one per line, and runs none of them.
END
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

say() {
  printf '%s %s\n' "$(date +%H:%M:%S)" "$*"
}

quote() { # Prints words as a shell reads them, in quotes only where they need them.
  local word gap=''
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
    esac
    printf '%s%s' "$gap" "$word"
    gap=' '
  done
}

run() {
  if [[ $DRY_RUN ]]; then
    quote "$@"
    echo
  else
    "$@"
  fi
}

need() { # Each setting that a command needs: given, and of the right form.
  local setting
  for setting in "$@"; do
    [[ ${!setting} ]] ||
      die "$setting is missing: give $setting=… or --$(lower "$setting")=…, see scripts/cloud_tpu.sh help."
  done
}

lower() {
  printf '%s' "$1" | tr '[:upper:]' '[:lower:]'
}

need_workdir() {
  need WORKDIR
  # A TPU VM's disk goes with the VM, and the hosts of a slice share none.
  [[ $WORKDIR == gs://?*/?* ]] || die "WORKDIR is '$WORKDIR', but it must be in a bucket, such as gs://BUCKET/wd_sweep."
}

# --- the commands -----------------------------------------------------------------------------------------------------

tpu() { # gcloud's commands for the machine. Quiet, since watch has nobody to answer a question.
  run gcloud compute tpus "$@" --zone="$ZONE" ${PROJECT:+"--project=$PROJECT"} --quiet
}

runtime() {
  case $TYPE in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *) die "TYPE is '$TYPE', for which no software version is known here: give RUNTIME=… too." ;;
  esac
}

create() {
  if [[ $QUEUED ]]; then
    tpu queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME" \
      ${SPOT:+--spot}
  else
    tpu tpu-vm create "$NAME" --accelerator-type="$TYPE" --version="$RUNTIME" ${SPOT:+--spot}
  fi
}

delete() {
  if [[ $QUEUED ]]; then
    tpu queued-resources delete "$NAME" --force
  else
    tpu tpu-vm delete "$NAME"
  fi
}

on() { # Runs a command line on a worker, or on all. A machine that vanishes meanwhile must not hang this.
  tpu tpu-vm ssh "$NAME" --worker="$1" --ssh-flag=-oServerAliveInterval=30 --command="$2"
}

install() {
  local bundle=${TMPDIR:-/tmp}/$NAME.bundle
  if [[ ! $DRY_RUN && $(git -C "$ROOT" status --porcelain --untracked-files=no) ]]; then
    echo 'note: the workers get the last commit; what is changed since then stays here.' >&2
  fi
  # A bundle rather than a copy, so that the results record the commit. uv, because the image's Python is too old.
  run git -C "$ROOT" bundle create --quiet "$bundle" HEAD &&
    tpu tpu-vm scp "$bundle" "$NAME:grokjax.bundle" --worker=all &&
    on all "rm -rf grokjax && git -c advice.detachedHead=false clone --quiet grokjax.bundle grokjax \
&& python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --clear --python=3.12 grokjax-env \
&& python3 -m uv pip install --quiet --python=grokjax-env/bin/python -e 'grokjax[tpu,gcs]' \
&& touch grokjax-env/installed"
}

launch() { # The sweep's command line, the same on every worker and every time.
  quote launch.py "--config=$CONFIG" "--workdir=$WORKDIR" --distributed ${FLAGS[@]+"${FLAGS[@]}"}
}

start() {
  # As a unit of systemd the sweep outlives the connection, and gets SIGTERM while there still is a network to save to.
  # shellcheck disable=SC2016  # the worker expands these.
  local unit='--unit=grokjax --uid=$(id -u) --working-directory=$HOME/grokjax' python='$HOME/grokjax-env/bin/python'
  # The TPU's memory is mapped and locked, for which a unit's default limit is too low.
  unit+=' --property=LimitMEMLOCK=infinity'
  unit+=' --property=After=network-online.target --property=TimeoutStopSec=60 --property=RemainAfterExit=yes'
  # shellcheck disable=SC2016
  unit+=' --property=StandardOutput=append:$HOME/sweep.log --property=StandardError=append:$HOME/sweep.log'
  on all "sudo systemctl stop grokjax 2>/dev/null; sudo systemctl reset-failed grokjax 2>/dev/null; \
sudo systemd-run $unit $python $(launch)"
}

stop() {
  on all 'sudo systemctl stop grokjax'
}

# One line per worker: "new" where nothing is installed, else such as "ExecMainStatus=0 SubState=running".
SWEEP='if [ -e grokjax-env/installed ]; then systemctl show grokjax --property=SubState,ExecMainStatus | sort '
SWEEP+='| paste -sd " "; else echo new; fi'

machines() { # Every machine in the zone: its name and state.
  if [[ $QUEUED ]]; then
    tpu queued-resources list --format='value(name.basename(),state.state)'
  else
    tpu tpu-vm list --format='value(name.basename(),state)'
  fi
}

status() {
  machines && on all "$SWEEP"
}

log() {
  on 0 'tail -n 100 -F sweep.log'
}

fetch() {
  run mkdir -p "$OUT" && run gcloud storage rsync --recursive "$WORKDIR" "$OUT"
}

# --- watch ------------------------------------------------------------------------------------------------------------

machine() { # ready, gone, lost, busy, or unknown when gcloud does not answer.
  local all
  all=$(machines) || { echo unknown && return; }
  case $(printf '%s\n' "$all" | awk -v name="$NAME" '$1 == name { print $2 }') in
    READY | ACTIVE) echo ready ;;
    '') echo gone ;;
    PREEMPTED | TERMINATED | STOPPED | SUSPENDED | FAILED) echo lost ;;
    *) echo busy ;;
  esac
}

sweep() { # new, running, done, refused, failed, ended (when the machine restarted), or unknown when no answer comes.
  local all
  all=$(on all "$SWEEP") || { echo unknown && return; }
  case $all in
    *new*) echo new ;;
    *SubState=failed* | *SubState=dead*)
      case $all in
        *SubState=running*) echo running ;; # When one process has died, the others end by themselves.
        *'ExecMainStatus=2 '*) echo refused ;;
        *SubState=failed*) echo failed ;;
        *) echo ended ;;
      esac
      ;;
    *SubState=running* | *SubState=st*) echo running ;;
    *SubState=exited*) echo 'done' ;;
    *) echo unknown ;;
  esac
}

finish() { # Nothing that costs is left behind, unless it is asked for.
  on all 'tail -n 30 sweep.log' || true
  if [[ $KEEP ]]; then
    say "$NAME is kept and goes on costing: scripts/cloud_tpu.sh delete ends that."
  else
    delete
  fi
  say "$1"
}

watch() {
  local failures=0 seen
  if [[ $DRY_RUN ]]; then # What one preemption leads to.
    machines && delete && create && on all "$SWEEP" && install && start
    return
  fi
  while true; do
    seen=$(machine)
    [[ $seen != ready ]] || seen=$(sweep)
    say "$NAME: $seen"
    case $seen in
      gone) create || say 'no machine to be had, trying again' ;;
      lost)
        failures=0
        delete || say 'not deleted, trying again'
        ;;
      new)
        if install; then start || true; else say 'not installed, trying again'; fi
        ;;
      ended) start || true ;;
      failed)
        failures=$((failures + 1))
        if ((failures > 3)); then
          finish 'the sweep failed four times on one machine; what it said is above.'
          return 1
        fi
        start || true
        ;;
      refused)
        finish 'the sweep refused its flags, config or working directory; what it said is above.'
        return 2
        ;;
      done)
        finish 'the sweep is done: scripts/cloud_tpu.sh fetch copies its results here.'
        return
        ;;
    esac
    sleep "$POLL"
  done
}

# --- the command line -------------------------------------------------------------------------------------------------

ROOT=$(cd "$(dirname "$0")/.." && pwd)
COMMAND='' DRY_RUN=${DRY_RUN:-} FLAGS=()
NAME=${NAME:-} ZONE=${ZONE:-} TYPE=${TYPE:-} WORKDIR=${WORKDIR:-} CONFIG=${CONFIG:-} PROJECT=${PROJECT:-}
SPOT=${SPOT:-} QUEUED=${QUEUED:-} KEEP=${KEEP:-} RUNTIME=${RUNTIME:-} OUT=${OUT:-} POLL=${POLL:-60}

while (($#)); do
  case $1 in
    -h | --help) COMMAND=help ;;
    --dry-run) DRY_RUN=1 ;;
    --spot) SPOT=1 ;;
    --queued) QUEUED=1 ;;
    --keep) KEEP=1 ;;
    --name=* | --zone=* | --type=* | --workdir=* | --config=* | --project=* | --runtime=* | --out=* | --poll=*)
      setting=${1%%=*}
      printf -v "$(printf '%s' "${setting#--}" | tr '[:lower:]' '[:upper:]')" '%s' "${1#*=}"
      ;;
    --)
      shift
      FLAGS=("$@")
      break
      ;;
    -*) die "$1 is no flag of this script, see scripts/cloud_tpu.sh help; flags of launch.py come after --." ;;
    *)
      [[ ! $COMMAND ]] || die "'$1' is one command too many after $COMMAND."
      COMMAND=$1
      ;;
  esac
  shift
done
OUT=${OUT:-results/${WORKDIR##*/}}

case $COMMAND in
  help) ;;
  create) need NAME ZONE TYPE ;;
  install | status | log | stop | delete) need NAME ZONE ;;
  start) need NAME ZONE CONFIG && need_workdir ;;
  watch) need NAME ZONE TYPE CONFIG && need_workdir ;;
  fetch) need_workdir ;;
  '') die 'a command is missing, such as create: see scripts/cloud_tpu.sh help.' ;;
  *) die "command '$COMMAND' is unknown, see scripts/cloud_tpu.sh help." ;;
esac
case $COMMAND in
  create | watch) RUNTIME=${RUNTIME:-$(runtime)} ;;
esac
[[ $DRY_RUN || $COMMAND == help ]] || command -v gcloud >/dev/null ||
  die 'gcloud is not installed: it is part of the Google Cloud CLI.'
if [[ $COMMAND == help ]]; then usage; else "$COMMAND"; fi
