"""The package of phases: its example, and that it does without JAX."""

import doctest
import subprocess
import sys

from grokjax import phases


def test_docstring_example():
    assert doctest.testmod(phases).failed == 0
    assert doctest.testmod(phases).attempted > 0


def test_analysis_knows_no_jax():
    program = "import sys, grokjax.phases, grokjax.cli.phases; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
