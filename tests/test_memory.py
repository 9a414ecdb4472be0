"""Freed memory goes back to the operating system."""

import ctypes

import pytest

from grokjax.core import devices


@pytest.fixture
def calls(monkeypatch):
    """The pads that malloc_trim is called with; it has not been called for long."""
    made = []
    monkeypatch.setattr(devices, "_last", -devices.EVERY_SECONDS)
    monkeypatch.setattr(devices, "_trim", lambda: made.append)
    return made


@pytest.mark.parametrize(("seconds", "n"), [((0, 59), 1), ((0, 60), 2), ((0, 60, 61, 9_000), 3)])
def test_once_in_a_while(calls, monkeypatch, seconds, n):
    for now in seconds:
        monkeypatch.setattr(devices.time, "monotonic", lambda now=now: 1_000.0 + now)
        devices.give_back_memory()
    assert calls == [0] * n


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_other_c_libraries_have_nothing_to_call(error, monkeypatch):
    def refuse(_):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    devices._trim.cache_clear()
    try:
        assert devices._trim()(0) is None
    finally:
        devices._trim.cache_clear()
