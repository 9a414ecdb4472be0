"""Readings of every rule, of those that a table lacks columns for, and how far they agree."""

import numpy as np
import pandas as pd
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


def test_readings_number_the_evaluations():
    found = phases.readings(planted(1_000, 5_000, 7_000, 12_000))
    assert found["available"].all()
    assert found[found["default"]]["rule"].tolist() == ["losses_flat", "test_drop", "test_level"]
    assert found["at"].notna().all()
    for side in ("after", "at", "by"):
        assert (found[f"{side}_index"] * 100 == found[side]).all()


def test_agreement_by_hand():
    def rows(run, rule, by_index, default=False, available=True):
        sides = {"after": by_index - 1, "at": by_index, "by": by_index}
        row = {"run": run, "phase": "cleanup", "rule": rule, "default": default, "available": available}
        row |= {"lacks": "", "columns": ""} | {f"{side}_index": i for side, i in sides.items()}
        return row | {side: 100.0 * i for side, i in sides.items()}

    # By run: the evaluation of the default and of another rule; intervals are 2, 3 and 2 apart in the first three.
    pairs = [(4, 7), (4, 8), (10, 7), (np.nan, 5), (5, np.nan), (5, None)]
    table = [rows(run, "default", a, default=True) for run, (a, _) in enumerate(pairs)]
    table += [
        rows(run, "other", np.nan if b is None else b, available=b is not None) for run, (_, b) in enumerate(pairs)
    ]
    found = phases.agreement(pd.DataFrame(table)).set_index("rule").loc["other"]
    assert found.drop("within_two").to_dict() == {
        "phase": "cleanup",
        "runs": 5,
        "seen": 4,
        "both": 3,
        "only_rule": 1,
        "only_default": 1,
        "difference": 300.0,
    }
    assert found["within_two"] == pytest.approx(2 / 3)
