"""The progress measures: a registry and what is in it, grouped by what the measures look at."""

import os

from grokjax.measures import always, paper  # isort: split

from grokjax.measures import (
    attention,
    clock,
    curvature,
    efficiency,
    gradients,
    keys,
    logits,
    neurons,
    noise,
    objective,
    spectra,
    stability,
)
from grokjax.measures.registry import MEASURES, Measure, measure
from grokjax.measures.shared import Shared

# LAPACK's threads would fight XLA's for the cores: the SVD of W_E then takes many times as long. JAX loads the library
# at the first use, which is after this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = [
    "MEASURES",
    "Measure",
    "Shared",
    "always",
    "attention",
    "clock",
    "curvature",
    "efficiency",
    "gradients",
    "keys",
    "logits",
    "measure",
    "neurons",
    "noise",
    "objective",
    "paper",
    "spectra",
    "stability",
]
