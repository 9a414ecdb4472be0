"""The curves of a run as rules ask for them, and the numbers that their readings depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokjax.errors import InputError
from grokjax.phases.curves import Settings, running_median


@given(st.lists(st.floats(-10, 10), max_size=30), st.sampled_from([1, 3, 5, 7]))
def test_running_median_leaves_monotone_curves_alone(values, width):
    monotone = np.sort(np.array(values, float))
    np.testing.assert_array_equal(running_median(monotone, width), monotone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_accuracy": 99}, "train_accuracy = 99 must be between 0 and 1"),
        ({"smooth": 4}, "smooth = 4 must be an odd number"),
        ({"gap": 1}, "gap = 1 must be above 1"),
        ({"ungrok_accuracy": 0.999}, "ungrok_accuracy = 0.999 must be at most test_accuracy"),
        ({"chance_loss": 0.0}, "chance_loss = 0.0 must be above 0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        Settings(**options)
