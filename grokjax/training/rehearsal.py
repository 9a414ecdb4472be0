"""The rehearsal of a sweep: measures of a user's own are traced once, before anything is compiled or written."""

import jax

from grokjax.measures import registry
from grokjax.sweeps import Sweep
from grokjax.training import one_run, population


def rehearse(sweep: Sweep) -> None:
    """Traces the sweep's measures that are none of the package's, with each shape of model.

    Raises:
      InputError: one fails, or returns another shape or dtype than its column has; says where and what there is.
    """
    for problem in {run.problem(): None for run in sweep.runs}:
        own = {name: m for name, m in registry.metrics_columns(problem.measures).items() if m.is_own}

        def evaluate(state, problem=problem, own=own):
            return registry.compute(own, one_run.shared(problem, state.inputs, state.params, state.opt_state))

        if own:
            jax.eval_shape(evaluate, population.blank(problem))
