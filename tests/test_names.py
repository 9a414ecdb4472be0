"""Columns under other tools' names."""

import pytest

from grokjax.phases.curves import COLUMNS
from grokjax.phases.names import ALIASES, recognised


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["step", "train_loss", "test_loss"], {}),
        (["epoch", "loss", "val_loss", "acc", "val_acc"], "step train_loss test_loss train_acc test_acc"),
        (["Iteration", "Train/Loss", "Valid Loss"], "step train_loss test_loss"),
        (["step", "epoch", "train_accuracy", "train_acc"], {}),  # its own name comes first
        (["epoch", "global_step"], {"step": "global_step"}),  # the surer of two
        (["Step", "epoch"], {"step": "Step"}),
        (["train_accuracy_5", 7, None, "lr"], {}),
    ],
)
def test_recognised(columns, found):
    wanted = dict(zip(found.split(), columns, strict=True)) if isinstance(found, str) else found
    assert recognised(columns) == wanted


def test_no_alias_stands_for_two_columns():
    every = [name for alias in ALIASES.values() for name in alias]
    assert len(every) == len(set(every))
    assert not set(every) & {"run", "step", *COLUMNS}
