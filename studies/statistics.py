"""Statistics that the studies share: medians with intervals, lines in logarithms, errors of predictions."""

import numpy as np
import pandas as pd

SEED, RESAMPLES = 0, 2_000


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """The median with its 95 % bootstrap interval."""
    values = np.asarray(values, float)
    draws = np.random.default_rng(SEED).integers(values.size, size=(RESAMPLES, values.size))
    low, high = np.quantile(np.median(values[draws], 1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def by_seed(table: pd.DataFrame) -> list[np.ndarray]:
    """Rows of bootstrap resamples [resample][row] in which whole seeds are drawn: what a seed gives at several settings
    is not independent.
    """
    rows = [np.flatnonzero(table["seed"] == seed) for seed in np.unique(table["seed"])]
    draws = np.random.default_rng(SEED).integers(len(rows), size=(RESAMPLES, len(rows)))
    return [np.concatenate([rows[i] for i in draw]) for draw in draws]


def line(y: np.ndarray, *x: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares of y on columns x with a constant: the columns' coefficients, and R²."""
    design = np.stack([np.ones_like(y), *x], 1)
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    rest = y - design @ coefficients
    return coefficients[1:], float(1 - rest @ rest / np.sum((y - y.mean()) ** 2))


def held_out(y: np.ndarray, features: np.ndarray, seeds: np.ndarray, penalty: float = 1.0) -> np.ndarray:
    """Predictions of y, each from the runs of other seeds: ridge regression on standardised features [runs, features].

    No feature at all gives the mean.
    """
    predicted = np.empty_like(y)
    for seed in np.unique(seeds):
        out = seeds == seed
        mean, std = features[~out].mean(0), features[~out].std(0)
        x = (features - mean) / np.where(std > 0, std, 1)
        gram = x[~out].T @ x[~out] + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[~out].T @ (y[~out] - y[~out].mean())) if x.shape[1] else np.zeros(0)
        predicted[out] = y[~out].mean() + x[out] @ weights
    return predicted


def squares(columns: list[np.ndarray]) -> np.ndarray:
    """Columns, their squares and products: [runs, features]."""
    pairs = [a * b for i, a in enumerate(columns) for b in columns[i:]]
    return np.stack([*columns, *pairs], 1) if columns else np.empty((0, 0))
