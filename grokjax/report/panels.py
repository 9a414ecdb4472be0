"""Figures that a page can draw: columns as curves."""

import dataclasses

from grokjax.phases.rules import RULES

# Okabe & Ito's colours, told apart by colour-blind readers too; curves that share one differ in their dashes.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#7F7F7F"
COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK, GREY)
OWN_DASHES = ("solid", "dash", "dot")  # of an experiment's own measures, once all colours are taken
PHASE_COLORS = dict(zip((boundary.replace("_", " ") for boundary in RULES), (AMBER, SKY, GREEN), strict=True))


@dataclasses.dataclass(frozen=True)
class Line:
    """One column as curves.

    Attributes:
      column: of the metrics.
      label: in the legend.
      color, dash: of its lines, in Plotly's terms.
      on: whether it is drawn at first of one run.
      many: whether it is drawn at first of several runs, whose colours tell settings apart.
    """

    column: str
    label: str
    color: str
    dash: str = "solid"
    on: bool = True
    many: bool = False


@dataclasses.dataclass(frozen=True)
class Curves:
    """A figure of curves over training.

    Attributes:
      name: its id in the page.
      title: above it.
      unit: of its values.
      log: whether their axis is logarithmic.
      lines: those that can be drawn; a sweep may lack some columns.
    """

    name: str
    title: str
    unit: str
    log: bool
    lines: tuple[Line, ...]


_PARAMETERS = {"W_E": BLUE, "W_pos": SKY, "W_Q": GREEN, "W_K": GREEN, "W_V": PINK, "W_O": PINK, "W_in": AMBER}
_PARAMETERS |= {"b_in": GREY, "W_out": ORANGE, "b_out": GREY, "W_U": BLUE}
_DASHED = {"W_K": "dash", "W_O": "dash", "b_out": "dot", "W_U": "dash"}

FIGURES = (
    Curves(
        *("losses", "Losses", "loss (nats)", True),
        (
            Line("test_loss", "test", ORANGE, many=True),
            Line("train_loss", "train", BLUE, many=True),
            Line("restricted_loss", "restricted", GREEN, "dash"),
            Line("excluded_loss", "excluded", PINK, "dash"),
            Line("restricted_loss_online", "restricted, keys of each step", GREEN, "dot", False),
            Line("excluded_loss_online", "excluded, keys of each step", PINK, "dot", False),
            Line("excluded_loss_max", "excluded, largest of one frequency", AMBER, "dashdot", False),
        ),
    ),
    Curves(
        *("accuracies", "Accuracies", "share of pairs", False),
        (
            Line("test_acc", "test", ORANGE, many=True),
            Line("train_acc", "train", BLUE, many=True),
            Line("corrupted_acc", "wrong training answers learnt", PINK, "dash", many=True),
            Line("corrupted_true_acc", "wrong training answers corrected", GREEN, "dash"),
        ),
    ),
    Curves(
        *("gini", "Gini coefficients of the Fourier norms", "Gini coefficient", False),
        (
            Line("gini_W_L", "W_L", ORANGE, many=True),
            Line("gini_W_E", "W_E", BLUE),
            Line("gini_freq_W_E", "W_E, over frequencies", BLUE, "dot", False),
            Line("gini_freq_W_L", "W_L, over frequencies", ORANGE, "dot", False),
        ),
    ),
    Curves(
        *("weights", "Sums of squared weights", "sum of squares", True),
        (
            Line("sum_sq_weights", "all", BLACK, many=True),
            *(
                Line(f"sum_sq_{name}", name, color, _DASHED.get(name, "solid"), name in ("W_E", "W_in", "W_out", "W_U"))
                for name, color in _PARAMETERS.items()
            ),
        ),
    ),
    Curves(
        *("keys", "Number of key frequencies", "frequencies", False),
        (
            Line("n_key_freqs_online", "by the sweep's rule", BLACK, many=True),
            Line("n_key_freqs_W_L", "rule W_L", ORANGE, "dash", False),
            Line("n_key_freqs_W_E", "rule W_E", BLUE, "dash", False),
            Line("n_key_freqs_neurons", "rule neurons", GREEN, "dash", False),
            Line("n_key_freqs_logits", "rule logits", PINK, "dash", False),
        ),
    ),
    Curves(
        *("clock", "Clock or pizza", "pure number", False),
        (
            Line("gradient_symmetricity", "gradient symmetricity", ORANGE, many=True),
            Line("distance_irrelevance", "distance irrelevance", BLUE, many=True),
            Line("circularity", "circularity", GREEN, "dash", False),
        ),
    ),
)
# Curves with final keys are the paper's; where a sweep has none yet, those with the keys of each step stand in.
STAND_INS = {"restricted_loss": "restricted_loss_online", "excluded_loss": "excluded_loss_online"}
STAND_INS |= {f"gini_{which}": f"gini_freq_{which}" for which in ("W_E", "W_L")}  # of groups that have no waves
SPECTRA = {"freq_norm_W_E": "W_E", "freq_norm_W_L": "W_L"}

# What the heat map can show of a run: label, unit, whether its colours are logarithmic.
QUANTITIES = {
    "grokked_by": ("time to grok", "steps", False),
    "memorised_by": ("time to memorise", "steps", False),
    "delay": ("delay from memorising to grokking", "steps", False),
    **{f"{phase}_end": (f"end of {phase.replace('_', ' ')}", "steps", False) for phase in RULES},
    "grokked": ("share of runs that grokked", "share", False),
    "test_loss": ("test loss at the last evaluation", "nats", True),
    "train_loss": ("train loss at the last evaluation", "nats", True),
    "test_acc": ("test accuracy at the last evaluation", "share", False),
    "n_key_freqs": ("number of final key frequencies", "frequencies", False),
}
