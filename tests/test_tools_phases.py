"""The check of phases on planted curves."""

import pytest

from tools import phases as check


@pytest.mark.parametrize("disturbed", check.DISTURBED)
def test_what_was_planted_is_read_and_nothing_is_invented(disturbed, monkeypatch):
    monkeypatch.setattr(check, "SEEDS", 6)
    for setting in check.SETTINGS:
        if "2 to 4" in setting:
            continue  # which is too few for some
        for right, told in check.read(setting, *check.DISTURBED[disturbed]):
            assert right, setting
            assert told == setting.startswith("three phases")


def test_the_table_tells_what_is_wrong(monkeypatch):
    monkeypatch.setattr(check, "SEEDS", 2)
    monkeypatch.setattr(check, "DISTURBED", {"smooth": (0.0, 0)})
    monkeypatch.setattr(check, "SETTINGS", {name: check.SETTINGS[name] for name in ("never groks", "learns nothing")})
    assert "invented where there are none: in 0 of 4 runs" in check.checked()
    monkeypatch.setattr(check, "judged", lambda row, ends: check.Outcome(False, True))
    assert "| never groks | 0% |" in check.checked()
    assert "invented where there are none: in 4 of 4 runs" in check.checked()
