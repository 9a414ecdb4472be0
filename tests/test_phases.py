"""The package of phases does without JAX."""

import subprocess
import sys


def test_phases_know_no_jax():
    program = "import sys, grokjax.phases; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
