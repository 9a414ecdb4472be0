"""The paper's reverse engineering of a trained model: the numbers that it claims, of any one-layer model."""

from grokjax.interp.circuit import structure  # isort: split

from grokjax.interp.circuit import ablations
from grokjax.interp.circuit.anatomy import Anatomy
from grokjax.interp.circuit.registry import NUMBERS, Number

__all__ = ["NUMBERS", "Anatomy", "Number", "ablations", "structure"]
