"""Fewer numbers for a page, chosen so that what stands out stays: extremes of curves, peaks of images."""

import base64
from typing import NamedTuple

import numpy as np

LEVELS = 255  # of an image's bytes; the last value, 255, says that there is none
DECADES = 5.0  # of the largest value that an image's levels cover: half a level is then 2.3 %


def kept(values: np.ndarray, limit: int) -> np.ndarray:
    """Chooses the evaluations of a curve to draw: all of them, or the extremes of equal stretches.

    Args:
      values: [T], in the order of their steps; not finite where there is a gap.
      limit: of points, at least 8.

    Returns:
      At most `limit` indices, increasing: the first and the last, and of every stretch the first smallest and the first
      largest value and, if it has any, its first gap.
    """
    n = len(values)
    if n <= limit:
        return np.arange(n)
    width = -(-n // ((limit - 2) // 3))
    stretches = np.append(values, np.full(-n % width, np.nan)).reshape(-1, width)
    finite = np.isfinite(stretches)
    gap = ~finite & (np.arange(finite.size).reshape(-1, width) < n)
    begin = width * np.arange(len(stretches))
    chosen = [
        (begin + np.where(finite, stretches, np.inf).argmin(1))[finite.any(1)],
        (begin + np.where(finite, stretches, -np.inf).argmax(1))[finite.any(1)],
        (begin + gap.argmax(1))[gap.any(1)],
        [0, n - 1],
    ]
    return np.unique(np.concatenate(chosen))


class Image(NamedTuple):
    """Positive values as bytes on a logarithmic scale.

    Attributes:
      steps: [T'], of the columns.
      levels: [T', F], uint8: level l stands for low · (high / low)^(l / 254), 255 for no value.
    """

    steps: np.ndarray
    levels: np.ndarray


def value_range(arrays: list[np.ndarray]) -> tuple[float, float] | None:
    """The lowest and highest value that images of these arrays' values show; None if no value is above 0."""
    high = max((float(a.max(initial=0, where=np.isfinite(a))) for a in arrays), default=0.0)
    if high <= 0:
        return None
    low = min(float(a.min(initial=high, where=np.isfinite(a) & (a > 0))) for a in arrays)
    return max(low, high * 10**-DECADES) if low < high else high / 10, high


def image(steps: np.ndarray, values: np.ndarray, scale: tuple[float, float], limit: int) -> Image:
    """A table of values over training as an image.

    Args:
      steps: [T], increasing.
      values: [T, F], 0 or more; not finite where there is none. Below the scale they get its lowest level.
      scale: lowest and highest value.
      limit: of columns. Where there are more evaluations, a column has the largest value of each frequency over a
        stretch of them and stands at the step in its middle.
    """
    if len(steps) > limit:
        edges = np.linspace(0, len(steps), limit + 1).astype(int)
        steps = steps[(edges[:-1] + edges[1:] - 1) // 2]
        values = np.fmax.reduceat(values, edges[:-1], axis=0)
    low, high = np.log(scale)
    with np.errstate(divide="ignore"):
        level = np.rint((LEVELS - 1) * (np.log(np.maximum(values, 0)) - low) / (high - low))
    levels = np.where(np.isfinite(values), np.clip(level, 0, LEVELS - 1), LEVELS)
    return Image(steps, levels.astype(np.uint8))


def level_ratio(scale: tuple[float, float]) -> float:
    """The ratio of neighbouring levels."""
    return float((scale[1] / scale[0]) ** (1 / (LEVELS - 1)))


def encoded(values: np.ndarray, dtype: str) -> str:
    """An array's bytes as base64; `dtype` is little-endian, such as "<f4"."""
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode("ascii")
