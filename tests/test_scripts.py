"""The scripts for clusters: shellcheck, what they would run, and what they decide beside a stand-in gcloud or SLURM."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from launches import assert_equal_sweeps, ended, launch

from grokjax import config
from grokjax.cli import train
from grokjax.store import merging
from grokjax.store.metrics import read_metrics

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
DOC = (ROOT / "docs" / "cloud_tpu.md").read_text()
# What docs/cloud_tpu.md exports before its first command.
SETTINGS = {
    "NAME": "sweep",
    "ZONE": "us-east5-b",
    "TYPE": "v6e-8",
    "SPOT": "1",
    "WORKDIR": "gs://BUCKET/wd_sweep",
    "CONFIG": "experiments/wd_sweep.py",
}


def shell(script, *args, path=None, seconds=60, **variables):
    """Runs a script with these variables and no others of its settings."""
    folders = [str(path)] * bool(path) + [os.environ["PATH"]]
    env = {"PATH": os.pathsep.join(folders), "TMPDIR": "/tmp", **variables}
    return subprocess.run(
        ["bash", f"scripts/{script}", *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=seconds
    )


def dry(*args, **variables):
    """The commands that cloud_tpu.sh would run, each as a list of words."""
    done = shell("cloud_tpu.sh", *args, "--dry-run", **{**SETTINGS, **variables})
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def blocks():
    """The command lines of the page's code blocks."""
    for block in re.findall(r"^```sh\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE):
        yield from block.splitlines()


def sweep_line(words):
    """The arguments of launch.py in a command, which may be one word of it, for the shell of a worker."""
    for word in words:
        if "launch.py " in word:
            return shlex.split(word.partition("launch.py ")[2])
    return words[words.index("launch.py") + 1 :]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script):
    beside = Path(sys.executable).parent / "shellcheck"
    shellcheck = str(beside) if beside.is_file() else shutil.which("shellcheck")
    if not shellcheck:
        pytest.skip("shellcheck is not installed: it comes with pip install -e '.[test]'")
    done = subprocess.run([shellcheck, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax_and_mode(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)


def test_create():
    tpu = ["gcloud", "compute", "tpus"]
    where = ["--zone=us-east5-b", "--quiet"]
    kind = ["--accelerator-type=v6e-8", "--version=v2-alpha-tpuv6e"]
    assert dry("create") == [[*tpu, "tpu-vm", "create", "sweep", *kind, "--spot", *where]]
    assert dry("create", SPOT="") == [[*tpu, "tpu-vm", "create", "sweep", *kind, *where]]
    queued = [kind[0], "--runtime-version=v2-alpha-tpuv6e", "--spot", *where]
    assert dry("create", "--queued") == [[*tpu, "queued-resources", "create", "sweep", "--node-id=sweep", *queued]]
    (project,) = dry("create", PROJECT="mine")
    assert "--project=mine" in project


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_software_version(kind, version):
    (create,) = dry("create", f"--type={kind}")
    assert f"--accelerator-type={kind}" in create
    assert f"--version={version}" in create
    (create,) = dry("create", f"--type={kind}", "--runtime=newer")
    assert "--version=newer" in create


def test_install_gives_every_worker_this_commit_with_the_extras():
    bundle, copy, install = dry("install")
    assert bundle[:2] == ["git", "-C"]
    assert bundle[3:] == ["bundle", "create", "--quiet", "/tmp/sweep.bundle", "HEAD"]
    assert copy[3:7] == ["tpu-vm", "scp", "/tmp/sweep.bundle", "sweep:grokjax.bundle"]
    assert "--worker=all" in copy
    assert "--worker=all" in install
    extras = (ROOT / "setup.cfg").read_text().partition("[options.extras_require]")[2]
    (named,) = re.findall(r"grokjax\[([\w,]+)\]", install[-3])
    assert re.search(r"^tpu =$", extras, re.MULTILINE)
    assert named == "tpu,gcs"


def test_start_runs_the_same_line_on_every_worker():
    extra = ["--config.sweep.weight_decay=(0.3, 1.0)", "--config.task=it's"]
    done = shell("cloud_tpu.sh", "start", "--dry-run", "--", *extra, **SETTINGS)
    (start,) = [shlex.split(line) for line in done.stdout.splitlines()]
    assert start[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "sweep"]
    assert "--worker=all" in start
    (command,) = [word for word in start if word.startswith("--command=")]
    assert command.index("systemctl stop") < command.index("systemd-run")
    assert sweep_line(start) == [
        "--config=experiments/wd_sweep.py",
        "--workdir=gs://BUCKET/wd_sweep",
        "--distributed",
        *extra,
    ]


def test_the_other_commands():
    listed, asked = dry("status")
    assert listed[3:5] == ["tpu-vm", "list"]
    assert "--worker=all" in asked
    assert "--worker=0" in dry("log")[0]
    assert "--command=sudo systemctl stop grokjax" in dry("stop")[0]
    assert dry("fetch") == [
        ["mkdir", "-p", "results/wd_sweep"],
        ["gcloud", "storage", "rsync", "--recursive", "gs://BUCKET/wd_sweep", "results/wd_sweep"],
    ]
    assert dry("delete")[0][3:6] == ["tpu-vm", "delete", "sweep"]
    assert dry("delete", QUEUED="1")[0][3:7] == ["queued-resources", "delete", "sweep", "--force"]
    assert [words[3:5] for words in dry("watch") if words[0] == "gcloud"] == [
        ["tpu-vm", "list"],
        ["tpu-vm", "delete"],
        ["tpu-vm", "create"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "scp"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
    ]


def test_a_dry_run_runs_nothing(tmp_path):
    for name in ("gcloud", "git", "mkdir", "srun", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\ntouch " + str(tmp_path / "ran"))
        (tmp_path / name).chmod(0o755)
    for command in ("create", "install", "start", "status", "log", "stop", "watch", "fetch", "delete"):
        assert shell("cloud_tpu.sh", command, "--dry-run", path=tmp_path, **SETTINGS).returncode == 0
    assert shell("slurm.sh", path=tmp_path, DRY_RUN="1", **SETTINGS).returncode == 0
    assert not (tmp_path / "ran").exists()


MISTAKES = {
    "no command": ([], {}, "a command is missing"),
    "unknown command": (["crate"], {}, "command 'crate' is unknown"),
    "two commands": (["create", "start"], {}, "'start' is one command too many"),
    "unknown flag": (["create", "--nmae=x"], {}, "--nmae=x is no flag of this script"),
    "no name": (["create"], {"NAME": ""}, "NAME is missing"),
    "no zone": (["delete"], {"ZONE": ""}, "ZONE is missing"),
    "no type": (["watch"], {"TYPE": ""}, "TYPE is missing"),
    "unknown type": (["create"], {"TYPE": "v99-8"}, "TYPE is 'v99-8'"),
    "no config": (["start"], {"CONFIG": ""}, "CONFIG is missing"),
    "no workdir": (["fetch"], {"WORKDIR": ""}, "WORKDIR is missing"),
    "workdir on the disk": (["start"], {"WORKDIR": "results/x"}, "it must be in a bucket"),
    "only a bucket": (["start"], {"WORKDIR": "gs://bucket"}, "it must be in a bucket"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake):
    args, variables, sentence = MISTAKES[mistake]
    done = shell("cloud_tpu.sh", *args, "--dry-run", **{**SETTINGS, **variables})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["CONFIG", "WORKDIR"])
def test_slurm_needs(missing):
    done = shell("slurm.sh", DRY_RUN="1", **{**SETTINGS, missing: ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {missing} is missing")
    assert done.stderr.count("\n") == 1


def test_help():
    for args in (["help"], ["--help"]):
        done = shell("cloud_tpu.sh", *args)
        assert done.returncode == 0
        for name in [*SETTINGS, "QUEUED", "PROJECT", "RUNTIME", "OUT", "POLL", "KEEP"]:
            assert f"\n  {name} " in done.stdout


def gcloud(folder, answers):
    """A gcloud that writes down what it is asked, and answers `list` and the question after the sweep from a list."""
    (folder / "answers").write_text("\n".join(answers) + "\n")
    (folder / "gcloud").write_text(
        f"""#!/usr/bin/env bash
echo "$*" >> {folder}/calls
case "$*" in
  *" list "* | *"systemctl show"*)
    head -n 1 {folder}/answers
    sed -i 1d {folder}/answers
    ;;
esac
"""
    )
    (folder / "gcloud").chmod(0o755)


def watched(folder, answers, **variables):
    """What watch did, as verbs, and how it ended."""
    gcloud(folder, answers)
    done = shell("cloud_tpu.sh", "watch", path=folder, **{**SETTINGS, "POLL": "0", **variables})
    verbs = []
    for call in (folder / "calls").read_text().splitlines():
        word = call.split()[3]
        if word == "ssh":
            kinds = {"systemctl show": "", "git clone": "install", "uv venv": "install", "systemd-run": "start"}
            word = next((kind for text, kind in kinds.items() if text in call), "log")
        if word not in ("list", "scp", ""):
            verbs.append(word)
    return verbs, done


RUNNING = "ExecMainStatus=0 SubState=running"
DONE = "ExecMainStatus=0 SubState=exited"
FAILED = "ExecMainStatus=1 SubState=failed"


def test_watch_goes_on_after_a_preemption_and_leaves_no_machine(tmp_path):
    answers = ["other READY", "sweep CREATING", "sweep READY", "new", "sweep READY", RUNNING, "sweep PREEMPTED"]
    answers += ["", "sweep READY", "new", "sweep READY", RUNNING, "sweep READY", DONE]
    verbs, done = watched(tmp_path, answers)
    assert done.returncode == 0, done.stderr
    first = ["create", "install", "start"]
    assert verbs == [*first, "delete", *first, "log", "delete"]


def test_watch_keeps_the_machine_if_asked(tmp_path):
    verbs, done = watched(tmp_path, ["sweep READY", DONE], KEEP="1")
    assert done.returncode == 0
    assert verbs == ["log"]
    assert "goes on costing" in done.stdout


def test_watch_with_queued_resources(tmp_path):
    answers = ["sweep WAITING_FOR_RESOURCES", "sweep ACTIVE", "new", "sweep SUSPENDED", "", "sweep ACTIVE", DONE]
    verbs, done = watched(tmp_path, answers, QUEUED="1")
    assert done.returncode == 0
    assert verbs == ["install", "start", "delete", "create", "log", "delete"]
    assert "queued-resources delete sweep --force" in (tmp_path / "calls").read_text()


def test_watch_starts_again_what_failed_but_not_for_ever(tmp_path):
    verbs, done = watched(tmp_path, ["sweep READY", FAILED] * 4)
    assert done.returncode == 1
    assert verbs == ["start"] * 3 + ["log", "delete"]


def test_watch_gives_up_on_a_refusal(tmp_path):
    verbs, done = watched(tmp_path, ["sweep READY", "ExecMainStatus=2 SubState=failed"])
    assert done.returncode == 2
    assert verbs == ["log", "delete"]


def test_watch_waits_for_workers_that_are_ending(tmp_path):
    """Of two workers one has died; the other notices by itself, and only then does the sweep start again."""
    (tmp_path / "two").mkdir()
    gcloud(tmp_path / "two", ["sweep READY", "both", "sweep READY", FAILED, "sweep READY", DONE])
    script = tmp_path / "two" / "gcloud"
    script.write_text(script.read_text().replace("head -n 1", f"sed -n '1s/both/{FAILED}\\n{RUNNING}/;1p'"))
    done = shell("cloud_tpu.sh", "watch", path=tmp_path / "two", **SETTINGS, POLL="0")
    assert re.findall(r"sweep: (\w+)", done.stdout) == ["running", "failed", "done"]


def slurm(folder, sweep):
    """scripts/slurm.sh under way with a stand-in for srun, which runs `sweep`; scancel signals it as SLURM would."""
    stand_ins = {
        "srun": f"echo $$ > {folder}/pid\n{sweep}",
        "scancel": f'echo "scancel $*" >> {folder}/calls\nkill -TERM "$(cat {folder}/pid)"',
        "scontrol": f'echo "scontrol $*" >> {folder}/calls',
    }
    for name, text in stand_ins.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **SETTINGS}
    job = subprocess.Popen(["bash", "scripts/slurm.sh"], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert job.stdout
    assert job.stdout.readline() == "started\n"
    return job


# Saves for a moment, as a sweep does, and says so by its exit status.
SAVES = "trap 'sleep 0.3; touch ${0%/*}/saved; exit 143' TERM\necho started\nfor i in {1..300}; do sleep 0.1; done"


def test_slurm_goes_back_into_the_queue_when_the_time_is_up(tmp_path):
    job = slurm(tmp_path, SAVES)
    job.send_signal(signal.SIGUSR1)
    said = job.communicate(timeout=30)[0]
    assert job.returncode == 143
    assert (tmp_path / "calls").read_text().splitlines() == ["scancel --signal=TERM 7", "scontrol requeue 7"]
    assert "back into the queue" in said


def test_slurm_outlasts_the_saving_when_the_job_is_ended(tmp_path):
    job = slurm(tmp_path, SAVES)
    job.send_signal(signal.SIGTERM)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    job.wait(timeout=30)
    assert (tmp_path / "saved").exists()
    job.communicate()
    assert job.returncode == 143
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("status", [0, 1, 2])
def test_slurm_ends_as_the_sweep_ends(tmp_path, status):
    job = slurm(tmp_path, f"echo started; exit {status}")
    job.communicate(timeout=30)
    assert job.returncode == status
    assert not (tmp_path / "calls").exists()


def test_slurm_step():
    done = shell("slurm.sh", "--config.steps=9", DRY_RUN="1", SLURM_CPUS_PER_TASK="4", **SETTINGS)
    assert shlex.split(done.stdout) == [
        *["srun", "--kill-on-bad-exit=0", "--cpus-per-task=4", ".venv/bin/python", "launch.py"],
        *["--config=experiments/wd_sweep.py", "--workdir=gs://BUCKET/wd_sweep", "--distributed", "--config.steps=9"],
    ]


def array(task, n=4, **variables):
    """The environment of a task of an array."""
    return {**SETTINGS, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(n), **variables}


def test_a_task_of_an_array():
    done = shell("slurm_array.sh", "--config.steps=9", DRY_RUN="1", **array(3, 16))
    assert shlex.split(done.stdout) == [
        *[
            "srun",
            ".venv/bin/python",
            "launch.py",
            "--config=experiments/wd_sweep.py",
            "--workdir=gs://BUCKET/wd_sweep",
        ],
        *["--shard=3/16", "--config.steps=9"],
    ]
    done = shell("slurm_array.sh", DRY_RUN="1", **array(3, 16, WORKDIR="/shared/wd_sweep"))
    assert shlex.split(done.stdout) in [shlex.split(line) for line in blocks() if line.startswith("srun")]


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"CONFIG": ""}, "CONFIG is missing"),
        ({"WORKDIR": ""}, "WORKDIR is missing"),
        ({"SLURM_ARRAY_TASK_ID": ""}, "this is no array"),
        ({"SLURM_ARRAY_TASK_MIN": "1"}, "the array begins at 1, but it must begin at 0"),
    ],
)
def test_an_array_needs(variables, text):
    done = shell("slurm_array.sh", DRY_RUN="1", **array(1, **variables))
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr


@pytest.mark.long
def test_four_tasks_of_an_array_are_the_whole_sweep(tmp_path):
    """With a stand-in for srun, which runs what it is given."""
    (tmp_path / "srun").write_text('#!/usr/bin/env bash\nexec "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    env = {"PYTHON": sys.executable, "CONFIG": "tests/tiny.py", "PYTHONPATH": "tests", "HOME": str(tmp_path)}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]  # bits depend on it
    flags = ["--config.steps=40", "--config.snapshot_every=20"]
    for task in range(4):
        variables = array(task, WORKDIR=str(tmp_path / "sweep")) | env
        done = shell("slurm_array.sh", *flags, path=tmp_path, seconds=600, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
    status, said = ended(launch(tmp_path / "whole", *flags, variant=""))
    assert status == 0, said
    shards = [read_metrics(tmp_path / "sweep" / f"shard-{i}-of-4") for i in range(4)]
    assert [sorted(set(rows["run"])) for rows in shards] == [[0], [1], [2], [3]]
    whole = read_metrics(tmp_path / "whole")
    pd.testing.assert_frame_equal(pd.concat(shards, ignore_index=True), whole, check_exact=True)
    merging.merge([tmp_path / "sweep" / f"shard-{i}-of-4" for i in range(4)], tmp_path / "merged")
    assert_equal_sweeps(tmp_path / "merged", tmp_path / "whole")


def launches():
    """Every command line of launch.py that the page shows or a script runs, as the words after launch.py."""
    shown = [*blocks(), *re.findall(r"`([^`\n]*launch\.py[^`\n]*)`", DOC)]
    lines = [sweep_line(shlex.split(line)) for line in shown if "launch.py" in line]
    lines += [sweep_line(words) for words in dry("start")]
    lines.append(sweep_line(shlex.split(shell("slurm.sh", DRY_RUN="1", **SETTINGS).stdout)))
    # Flags alone, in the text: those of launch.py are long words that no script has.
    lines.append(re.findall(r"`(--(?:config\.|distributed|coordinator|num_pro|process|only|over|plan)[^`]*)`", DOC))
    return lines


def test_flags_of_launch_exist():
    known = set(train.defined())
    known |= {f"config.{path}" for path in config.FIELDS}
    used = {word.removeprefix("--").partition("=")[0] for line in launches() for text in line for word in text.split()}
    assert used >= {"config", "workdir", "distributed", "coordinator_address", "num_processes", "process_id", "plan"}
    assert used <= known


def test_commands_of_the_page_work():
    """Every command of the page that the scripts have runs dry, and every gcloud line is one that they would run."""
    exported, runs = {}, []
    shown = [line for line in blocks() if not line.startswith("gcloud") or "tpus" in line]
    for line in shown:
        words = shlex.split(line)
        if words[0] == "export":
            exported.update(word.split("=", 1) for word in words[1:])
        elif words[0] == "scripts/cloud_tpu.sh":
            assert exported == SETTINGS
            at = words.index("--") if "--" in words else len(words)
            done = shell("cloud_tpu.sh", *words[1:at], "--dry-run", *words[at:], **SETTINGS)
            assert done.returncode == 0, line
            runs += [shlex.split(run) for run in done.stdout.splitlines()]
    runs += dry("delete", "--queued")
    gclouds = [shlex.split(line) for line in shown if line.startswith(("gcloud compute tpus", "mkdir"))]
    assert len(gclouds) >= 6
    for words in gclouds:
        assert words in runs, shlex.join(words)
    for inline in re.findall(r"`scripts/cloud_tpu\.sh ([^`]*)`", DOC):
        args = shlex.split(inline)
        at = args.index("--") if "--" in args else len(args)
        assert shell("cloud_tpu.sh", *args[:at], "--dry-run", *args[at:], **SETTINGS).returncode == 0, inline
    step = shell("slurm.sh", DRY_RUN="1", **{**SETTINGS, "WORKDIR": "/shared/wd_sweep"}).stdout
    assert shlex.split(step) in [shlex.split(line) for line in blocks() if line.startswith("srun")]
