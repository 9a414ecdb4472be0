"""The paper's reverse engineering of a trained model: what its table claims, as numbers of any one-layer model."""

from grokjax.interp.circuit import structure  # isort: split

from grokjax.interp.circuit import ablations
from grokjax.interp.circuit.anatomy import Anatomy
from grokjax.interp.circuit.registry import FIGURES, Figure

__all__ = ["FIGURES", "Anatomy", "Figure", "ablations", "structure"]
