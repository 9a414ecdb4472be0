"""Programs for a CPU, a GPU and a TPU, lowered in one process that has a CPU alone."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from grokjax import config, sweeps
from grokjax.core import platforms as platforms_lib
from grokjax.core.precision import EMULATED, lacking
from grokjax.measures import registry
from grokjax.training import one_run, population
from grokjax.training.layouts import Layout

PLATFORMS = ("cpu", "cuda", "tpu")
PROBLEM = sweeps.expand(tiny.get_config()).runs[0].problem()
ALL = tuple(group for group in registry.groups() if group not in (registry.ALWAYS, "known", "mine"))
WIDTH = 3
# By precision: as StableHLO names what an accelerator is asked for.
ASKED = {
    "float32": "precision = [HIGHEST, HIGHEST]",
    "tensorfloat32": "<lhs_precision_type = tf32, rhs_precision_type = tf32, accumulation_type = f32, "
    "lhs_component_count = 1, rhs_component_count = 1, num_primitive_operations = 1",
    "bfloat16_6x": "num_primitive_operations = 6",
    "bfloat16_3x": "num_primitive_operations = 3",
    "bfloat16": "<lhs_precision_type = bf16, rhs_precision_type = bf16, accumulation_type = f32, "
    "lhs_component_count = 1, rhs_component_count = 1, num_primitive_operations = 1",
}


def lowered(function, *args, platforms):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)), args)
    return jax.jit(function).trace(*shapes).lower(lowering_platforms=platforms).as_text()


@functools.cache
def of_population(platforms, precision="float32", measures=("paper",), n_layers=1):
    """A whole population's program: its training steps and evaluations."""
    model = dataclasses.replace(PROBLEM.model, n_layers=n_layers)
    problem = dataclasses.replace(PROBLEM, precision=precision, measures=measures, model=model)
    layout = Layout(WIDTH, WIDTH, WIDTH, 1)
    state = jax.tree.map(lambda x: jnp.zeros((WIDTH, *x.shape), x.dtype), population.blank(problem))
    advance = functools.partial(population._advance, problem, layout)
    flags = np.zeros(population.MAX_SEGMENTS, bool)
    return lowered(advance, state, np.zeros(WIDTH, np.int32), np.int32(0), np.bool_(True), flags, platforms=platforms)


def products(text):
    return [line for line in text.splitlines() if "stablehlo.dot_general" in line]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_platform_that_a_program_is_lowered_for_chooses(platform):
    text = lowered(lambda x: platforms_lib.choose(jnp.sin, jnp.cos, x), 1.0, platforms=(platform,))
    assert ("stablehlo.sine" in text, "stablehlo.cosine" in text) == (platform == "cpu", platform != "cpu")


@pytest.mark.parametrize("name", config.PRECISIONS)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_every_product_of_an_accelerator_is_of_the_precision_that_is_asked_for(platform, name):
    if name in lacking(platform):
        pytest.skip("refused before anything is lowered")
    text = of_population((platform,), name)
    found = products(text)
    assert len(found) > 20
    assert not [line for line in found if ASKED[name] not in line]
    assert "reduce_precision" not in text
    assert "optimization_barrier" not in text


@pytest.mark.parametrize("name", config.PRECISIONS)
def test_every_product_of_a_cpu_is_of_float32_and_only_its_steps_emulate_others(name):
    text = of_population(("cpu",), name)
    assert not [line for line in products(text) if "algorithm" in line]
    assert ("reduce_precision" in text) == (name in EMULATED)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_no_scatter_adds_and_none_writes_a_place_twice(n_layers):
    """A sum over repeated indices has no order on a GPU, so that a run's bits would change from one time to another."""
    text = of_population(PLATFORMS, measures=ALL, n_layers=n_layers)
    found = re.findall(r'"stablehlo\.scatter"\(.*?\}\) :', text, re.DOTALL)
    assert not [one for one in found if "unique_indices = true" not in one]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_evaluations_of_an_accelerator_take_no_frequency_by_itself(platform):
    n_freqs = PROBLEM.model.p // 2
    loops = {p: len(re.findall(r"stablehlo\.while", of_population((p,)))) for p in ("cpu", platform)}
    assert n_freqs > 1
    assert loops[platform] < loops["cpu"]
