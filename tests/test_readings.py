"""Readings of every rule, of those that a table lacks columns for, and how far they agree."""

import numpy as np
import pytest
from planted import planted

from grokjax import phases
from grokjax.errors import InputError
from grokjax.phases import Settings, find_phases


def test_rules_without_their_columns_are_named():
    metrics = planted(1_000, 5_000, 7_000, 12_000)[["step", "train_loss", "test_loss"]]
    rules = phases.describe_rules(phases.readings(metrics)).set_index("rule")
    assert set(rules.index[rules["runs"] == 0]) == {
        "excluded_turn",
        "excluded_peak",
        "weights_drop",
        "weights_settled",
        "gini_jump",
        "gini_settled",
    }
    assert "sum_sq_weights" in rules.loc["weights_drop", "lacks"]
    with pytest.raises(InputError, match=r"rule 'weights_drop' needs the column sum_sq_weights, which .* lack"):
        find_phases(metrics, Settings(rules={"circuit_formation": "weights_drop"}))
    agreed = phases.agreement(phases.readings(metrics))
    assert set(agreed["rule"]) == set(rules.index[rules["runs"] > 0])


def test_final_keys_come_before_keys_of_the_step():
    metrics = planted(1_000, 5_000, 7_000, 12_000).rename(columns={"excluded_loss_max": "excluded_loss_online"})
    columns = phases.readings(metrics).set_index("rule")["columns"]
    assert columns["excluded_turn"] == "train_loss, excluded_loss_online"
    metrics["excluded_loss"] = metrics["excluded_loss_online"].where(metrics["step"] % 500 == 0)
    columns = phases.readings(metrics).set_index("rule")["columns"]
    assert columns["excluded_turn"] == "train_loss, excluded_loss"
    metrics["excluded_loss"] = np.nan  # the run has not ended
    columns = phases.readings(metrics).set_index("rule")["columns"]
    assert columns["excluded_turn"] == "train_loss, excluded_loss_online"
