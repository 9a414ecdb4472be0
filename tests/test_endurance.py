"""The endurance command: its slope tells what is kept from what comes and goes, and a short one runs."""

import json

import numpy as np
import pytest

from faults import endurance


def samples(per_hour, seed=0):
    """Thirty minutes of a process whose parts of metrics fill and go every two minutes, with noise."""
    rng, seconds = np.random.default_rng(seed), np.arange(0, 1800, 2.0)
    mib = 500 + per_hour * seconds / 3600 + 16 * (seconds % 120) / 120 + rng.exponential(5, seconds.size)
    mib[:200] += 200 * (1 - np.arange(200) / 200)  # to begin with
    return list(zip(seconds, mib, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_what_comes_and_goes_is_no_slope(seed):
    slope, low, high = endurance.slope(endurance.floor(samples(0, seed)))
    assert low <= 0 <= high
    assert abs(slope) < 5


@pytest.mark.parametrize("per_hour", [20, 181])
def test_a_slope_is_found_with_its_interval(per_hour):
    slope, low, high = endurance.slope(endurance.floor(samples(per_hour)))
    assert 0 < low <= per_hour <= high
    assert slope == pytest.approx(per_hour, abs=6)


@pytest.mark.long
def test_a_short_one_runs(capsys):
    with pytest.raises(SystemExit):
        endurance.main(["--minutes=0.7"])
    out = capsys.readouterr().out
    assert "runs ended in 0.7 min" in " ".join(out.split())


def test_the_page_says_what_was_found():
    found = {"runs_ended": 6000, "minutes": 30, "runs_per_minute": 200.0, "mib": 512.3, "mib_per_hour": 1.25}
    text = endurance.page(json.loads(json.dumps(found | {"interval": [-0.5, 3.0]})))
    assert "6,000 runs ended in 30 min, 200 a minute" in text
    assert "grew by 1.2 MiB an hour (95 % interval -0.5 to 3.0" in text
