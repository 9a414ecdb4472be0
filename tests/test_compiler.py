"""What XLA is told of determinism: on a GPU, never over the user's own flags; recorded, and changes are told."""

import jax
import jax.numpy as jnp
import pytest

from grokjax.core import compiler, environment
from grokjax.training import sweep


def test_only_a_gpu_is_told_to_be_deterministic(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert compiler.options("gpu") == {"xla_gpu_deterministic_ops": True}
    assert compiler.options("cpu") == compiler.options("tpu") == {}


@pytest.mark.parametrize(
    "flags",
    [
        "--xla_gpu_deterministic_ops=false",
        "--xla_gpu_autotune_level=0",
        "--xla_gpu_exclude_nondeterministic_ops=true --xla_dump_to=x",
        "--xla_gpu_load_autotune_results_from=choices.txt",
    ],
)
def test_what_the_user_says_of_it_goes_first(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert compiler.options("gpu") == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    assert compiler.options("gpu")


def test_this_jaxlib_knows_the_options():
    """XLA refuses a name that it does not know, on a CPU too."""
    assert jax.jit(lambda x: x + 1, compiler_options=compiler.ON_GPU)(jnp.zeros(2)).tolist() == [1, 1]
    with pytest.raises(Exception, match="xla_gpu_no_such_option"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_no_such_option": True})(jnp.zeros(2))


def test_the_options_are_recorded():
    here = environment.environment()
    assert here["compiler_options"] == compiler.options(here["platform"])


class Told:
    def __init__(self):
        self.texts = []

    def tell(self, text):
        self.texts.append(text)


@pytest.mark.parametrize("recorded", [{}, None])
def test_going_on_with_other_options_is_told(monkeypatch, recorded):
    """`recorded` is what a sweep begun with the user's own flags, or by a version without options, has."""
    now = {"platform": "gpu", "device_kind": "abacus", "xla_flags": "", "compiler_options": compiler.options("gpu")}
    monkeypatch.setattr(sweep, "environment", lambda: now)
    record = {**now, "groups": []}
    told = Told()
    sweep._warn_of_changes(record, told)
    assert not told.texts
    sweep._warn_of_changes(record | {"compiler_options": recorded}, told)
    assert len(told.texts) == 1
    assert "compiler_options was" in told.texts[0]
