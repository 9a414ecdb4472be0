"""Tables are read and analysed by a process that never imports JAX."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("imports") / "a"
    status, said = tiny.train(tiny.get_config(), path)
    assert status == 0, said
    return path


READ = """
import grokjax
metrics, runs = grokjax.read_metrics(path), grokjax.read_runs(path)
assert len(metrics) == 44 and len(runs) == 4
"""
PHASES = f"""{READ}
from grokjax import phases
found = phases.find_phases(metrics)
assert len(found) == 4 and len(phases.summarize(found, by="weight_decay").groups) == 2
"""
# What the report reads of a directory.
STORE = f"""{READ}
from grokjax.store import ledger, records
assert len(records.read_record(path)["runs"]) == 4
"""
# What open, phases and list do with several.
MANY = f"""{READ}
import shutil, tempfile
from grokjax.store import joined, listing
with tempfile.TemporaryDirectory() as folder:
    shutil.copytree(path, folder + "/again")
    results = grokjax.open([path, folder + "/again"])
    assert len(results.metrics) == 44 and len(results.notes) == 1 and len(results.phases()) == 4
    assert next(listing.find(folder)).state == "finished"
"""


@pytest.mark.parametrize("work", [READ, PHASES, STORE, MANY], ids=["read", "phases", "store", "many"])
def test_without_jax(workdir, work):
    program = f"path = {str(workdir)!r}\n{work}\nimport sys; print(*sorted({{'jax', 'flax'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
