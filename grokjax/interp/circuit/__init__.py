"""The paper's reverse engineering of a trained model: the numbers that it claims, of any one-layer model."""

from grokjax.interp.circuit import structure  # isort: split

from grokjax.interp.circuit import ablations

__all__ = ["ablations", "structure"]
