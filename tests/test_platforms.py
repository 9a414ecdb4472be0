"""Programs for a CPU, a GPU and a TPU, lowered in one process that has a CPU alone."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cases import QUICK
from tiers import long_but

from grokjax import config, sweeps
from grokjax.core import platforms as platforms_lib
from grokjax.core import products as products_lib
from grokjax.core.precision import EMULATED, lacking
from grokjax.measures import registry
from grokjax.training import one_run, population
from grokjax.training.layouts import Layout

PLATFORMS = ("cpu", "cuda", "tpu")
RUN = sweeps.expand(tiny.get_config()).runs[0]
PROBLEM = RUN.problem()
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
def of_population(platforms, precision="float32", measures=("paper",), batch_size=0, **shape):
    """A whole population's program: its training steps and evaluations."""
    model = dataclasses.replace(PROBLEM.model, **shape)
    problem = dataclasses.replace(PROBLEM, precision=precision, measures=measures, model=model, batch_size=batch_size)
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


# One whose products are put together of others; the rest with the long tests.
SOME_LONG = long_but(["bfloat16_6x"], config.PRECISIONS)


@pytest.mark.parametrize("name", SOME_LONG)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_every_product_of_an_accelerator_is_of_the_precision_that_is_asked_for(platform, name):
    if name in lacking(platform):
        pytest.skip("refused before anything is lowered")
    text = of_population((platform,), name)
    found = products(text)
    assert len(found) > 20
    is_split = platform == "cuda" and name.endswith("x")  # from rounded parts; evaluations are float32's
    asked = (ASKED["bfloat16"], ASKED["float32"]) if is_split else (ASKED[name],)
    assert not [line for line in found if not any(one in line for one in asked)]
    assert all(any(one in line for line in found) for one in asked)
    assert ("reduce_precision" in text) == is_split
    assert "optimization_barrier" not in text


@pytest.mark.long
@pytest.mark.parametrize("name", config.PRECISIONS)
def test_every_product_of_a_cpu_is_of_float32_and_only_its_steps_emulate_others(name):
    text = of_population(("cpu",), name)
    assert not [line for line in products(text) if "algorithm" in line]
    assert ("reduce_precision" in text) == (name in EMULATED)


NOT_TO_SCATTER = {
    "one layer": {"n_layers": 1},
    "two": {"n_layers": 2},
    "two, in batches": {"n_layers": 2, "batch_size": 8},
    "mlp, in batches": {"architecture": "mlp", "batch_size": 8},
}


@pytest.mark.long
@pytest.mark.parametrize("fields", NOT_TO_SCATTER.values(), ids=NOT_TO_SCATTER)
def test_no_scatter_adds_and_none_writes_a_place_twice(fields):
    """A sum over repeated indices has no order on a GPU, so that a run's bits would change from one time to another."""
    text = of_population(PLATFORMS, measures=ALL, **fields)
    found = re.findall(r'"stablehlo\.scatter"\(.*?\}>', text, re.DOTALL)
    assert len(found) == text.count('"stablehlo.scatter"') > 0
    assert not [one for one in found if "unique_indices = true" not in one]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_evaluations_of_an_accelerator_take_no_frequency_by_itself(platform):
    n_freqs = PROBLEM.model.p // 2
    loops = {p: len(re.findall(r"stablehlo\.while", of_population((p,)))) for p in ("cpu", platform)}
    assert n_freqs > 1
    assert loops[platform] < loops["cpu"]


def test_a_bias_is_part_of_its_product_on_a_gpu_alone():
    """Elsewhere it would only make factors wider: on a TPU 132 columns are padded to 256."""
    traced = jax.jit(products_lib.dense).trace(np.ones((5, 4), "f"), np.ones((4, 8), "f"), np.ones(8, "f"))
    texts = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda", "rocm", "tpu")}
    assert {name for name, text in texts.items() if "concatenate" in text} == {"cuda", "rocm"}


@pytest.mark.long
def test_what_an_accelerator_computes_is_what_a_cpu_computes(monkeypatch):
    """The other branches, run on this CPU in float64: training steps, and every measure that is no slow one."""

    def found(inputs):
        state = one_run.train(problem, one_run.init(problem, inputs), 3)
        return state.params, one_run.evaluate(problem, state)

    problem = dataclasses.replace(PROBLEM, measures=ALL)
    with jax.enable_x64(True):
        inputs = jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, RUN.inputs())
        here = jax.jit(found, compiler_options=QUICK)(inputs)
        monkeypatch.setattr(platforms_lib, "choose", lambda on_cpu, elsewhere, *args: elsewhere(*args))
        monkeypatch.setattr(platforms_lib, "choose_gpu", lambda on_gpu, elsewhere, *args: on_gpu(*args))
        there = jax.jit(lambda inputs: found(inputs), compiler_options=QUICK)(inputs)
    for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
