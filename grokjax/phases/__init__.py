"""Phases of training runs: tables in, boundaries and censored statistics out. No JAX.

from grokjax import phases

found = phases.find_phases(metrics)
phases.summarize(found, by="weight_decay")
"""

from grokjax.phases.curves import Settings
from grokjax.phases.find import CLASSES, DESCRIPTIONS, VERDICTS, find_phases, shade
from grokjax.phases.readings import agreement, describe_rules, readings
from grokjax.phases.rules import RULES
from grokjax.phases.summary import TIMES, Summary, median_times, summarize, time_to_grok

__all__ = [
    "CLASSES",
    "DESCRIPTIONS",
    "RULES",
    "TIMES",
    "VERDICTS",
    "Settings",
    "Summary",
    "agreement",
    "describe_rules",
    "find_phases",
    "median_times",
    "readings",
    "shade",
    "summarize",
    "time_to_grok",
]
