"""The progress measures: a registry and what is in it, grouped by what the measures look at."""

from grokjax.measures import paper
from grokjax.measures.registry import MEASURES, Measure, measure
from grokjax.measures.shared import Shared

__all__ = ["MEASURES", "Measure", "Shared", "measure", "paper"]
