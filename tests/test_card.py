"""What is to run on a card runs here on a tiny problem; a part goes on where it was, and no task costs another."""

import json
import os
import time

import numpy as np
import pytest
from tiers import long_but

from benchmarks.card import bits, command, errors, profile, speed, sweep, tasks
from benchmarks.card.profile import Kernel
from benchmarks.card.tasks import Setting, Task
from grokjax.errors import InputError


def found(value, seconds):
    return {"value": value, "seconds": seconds, "variable": os.environ.get("CARD_VARIABLE")}


def broken(seconds):
    raise ValueError("no such card")


def ended(seconds):
    os._exit(3)


def hanging(seconds):
    time.sleep(600)


def carried_out(path, *given, seconds=60.0):
    said = []
    return tasks.carry_out(given, path, time.monotonic() + seconds, said.append), said


@pytest.mark.long
def test_one_that_fails_costs_no_other(tmp_path):
    path = tmp_path / "out" / "part.json"
    given = (Task("broken", broken), Task("ended", ended), Task("good", found, (5,), {"CARD_VARIABLE": "set"}))
    figures, said = carried_out(path, *given)
    assert "no such card" in figures["broken"]["failed"]
    assert figures["ended"]["failed"] == "its process ended with status 3"
    assert figures["good"]["value"] == 5
    assert figures["good"]["variable"] == "set"
    assert figures["good"]["seconds"] <= 60
    assert json.loads(path.read_text()) == figures
    assert any("no such card" in text for text in said)


@pytest.mark.long
def test_what_hangs_is_ended_when_its_time_is_up(monkeypatch):
    started = time.monotonic()
    assert tasks.in_new_process(Task("hanging", hanging), 8.0) == {"failed": "not done after 8 s"}
    assert time.monotonic() - started < 60


def test_a_part_goes_on_where_it_was(tmp_path, monkeypatch):
    path, asked = tmp_path / "part.json", []
    path.write_text(json.dumps({"a": {"value": 1}, "b": {"failed": "out of memory"}}))
    monkeypatch.setattr(tasks, "in_new_process", lambda task, seconds: asked.append(task.key) or {"value": 2})
    figures, _ = carried_out(path, Task("a", found), Task("b", found), Task("c", found))
    assert asked == ["b", "c"]
    assert {key: figure["value"] for key, figure in figures.items()} == {"a": 1, "b": 2, "c": 2}


def test_no_task_begins_when_the_time_is_up(tmp_path):
    figures, said = carried_out(tmp_path / "part.json", Task("a", broken), seconds=tasks.LEAST_SECONDS - 1)
    assert not figures
    assert said == ["part: no time left for a"]


def test_every_part_asks_for_figures_by_different_names(tmp_path):
    for dry in (False, True):
        for part in command.PARTS.values():
            keys = [task.key for task in part.tasks(Setting(tmp_path, tmp_path, dry))]
            assert keys
            assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("part", long_but([], list(command.PARTS), exhaustive=["errors", "speed", "precision"]))
def test_a_dry_run_on_a_cpu_finds_every_figure(part, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    flags = ["--dry", "--seconds=900", f"--out={tmp_path / 'out'}", f"--work={tmp_path / 'work'}"]
    with pytest.raises(SystemExit) as exit_:
        command.main([part, *flags])
    figures = json.loads((tmp_path / "out" / f"{part}.json").read_text())
    assert not exit_.value.code, figures
    assert list(figures) == [task.key for task in command.PARTS[part].tasks(Setting(tmp_path, tmp_path, dry=True))]
    assert all(figure["on"]["platform"] == "cpu" for figure in figures.values())
    assert f"**{part}**" in capsys.readouterr().out
    record = command.record(tmp_path / "out")
    assert record["parts"] == {part: figures}
    text = command.page(record)
    assert [name for name in command.PARTS if f"`python -m benchmarks.card {name}`" not in text] == [part]
    CHECKS.get(part, lambda figures: None)(figures)


def _errors(figures):
    for figure in figures.values():
        last = {name: steps[-1] for name, steps in figure["precisions"].items()}
        assert last["float32"]["train_loss"] < 1e-5
        assert last["float32"]["weights"] < 1e-5
        assert last["bfloat16"]["weights"] > 10 * last["float32"]["weights"]  # what is emulated is seen
        assert figure["measures"]["train_loss"] < 1e-5


def _bits(figures):
    one, other = figures.values()
    assert one["programs"].keys() == other["programs"].keys()
    for name, program in one["programs"].items():
        assert program["params"] == other["programs"][name]["params"]
        assert program["metrics"] == other["programs"][name]["metrics"]


def _speed(figures):
    assert all(rate["median"] > 0 for rate in figures["train 2"]["run_steps_per_s"].values())
    assert not figures["train 2"]["missing"]
    assert figures["evaluate 2"]["peak_bytes"] > 0


def _profile(figures):
    step = figures["float32"]["step"]
    assert step["kernels"] > 0
    assert step["busy_us"] <= step["span_us"]


def _sweeps(figures):
    (figure,) = figures.values()
    assert figure["run_steps"] == 200 * figure["n_runs"]
    assert "phases" in figure["phases"]


CHECKS = {
    "errors": _errors,
    "bits": _bits,
    "speed": _speed,
    "profile": _profile,
    "sweep": _sweeps,
    "precision": _sweeps,
}


# --- figures --------------------------------------------------------------------------------------------------------


def test_errors_are_shares_of_the_largest_value():
    assert errors.relative(np.array([1.0, 4.0]), np.array([1.0, 5.0])) == 0.2
    assert errors.relative(np.array([1.0, np.nan]), np.array([1.0, np.nan])) == 0
    assert errors.relative(np.array([np.inf]), np.array([1.0])) == np.inf
    assert errors.relative(np.array([True, False]), np.array([True, True])) == 0.5


def test_the_same_bits_are_the_same_digest():
    x = np.array([0.0, 1.0])
    assert bits.digest({"a": x, "b": x}) == bits.digest({"b": x, "a": x})
    assert bits.digest({"a": x}) != bits.digest({"a": -x})  # minus zero is another number


def bits_figure(params):
    one = {"params": params, "metrics": "m", "run_steps_per_s": {"median": 10.0}, "compile_s": 1.0}
    return {"programs": {"float32 ×8": one}}


def test_bits_that_differ_are_said_to():
    row = bits.page({"XLA, 0": bits_figure("p"), "XLA, 1": bits_figure("q")}).splitlines()[2]
    assert row == "| XLA | float32 ×8 | differ | same bits | 10.0 / 10.0 | 1.00 / 1.00 |"
    assert "one process only" in bits.page({"XLA, 0": bits_figure("p")})


def test_kernels_are_summed_by_name_and_gaps_are_seen():
    kernels = [
        Kernel("gemm_fusion_dot_1", 0, 4000),
        Kernel("loop_add_fusion", 3000, 6000),
        Kernel("loop_add_fusion", 8000, 10000),
    ]
    one = profile.summary(kernels, 2)
    assert {name: one[name] for name in ("kernels", "span_us", "busy_us", "products_us", "rest_us")} == {
        "kernels": 1.5,
        "span_us": 5.0,
        "busy_us": 4.0,
        "products_us": 2.0,
        "rest_us": 2.5,
    }
    assert one["top"][0] == {"name": "loop_add_fusion", "count": 1.0, "us": 2.5}
    assert profile.summary([], 1)["kernels"] == 0


@pytest.mark.parametrize(
    ("name", "is_product"),
    [
        ("sm90_xmma_gemm_f32f32_f32f32_f32_tn_n", True),
        ("nvjet_sm90_tst_128x64", True),
        ("gemm_fusion_dot_12", True),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm>", True),
        ("input_reduce_fusion_3", False),
        ("loop_multiply_add_fusion", False),
    ],
)
def test_products_are_known_by_their_kernels_names(name, is_product):
    assert bool(profile.PRODUCT.search(name)) == is_product


def test_widths_that_were_not_measured_say_so():
    rates = {"float32": {"median": 8000.0}}
    rows = speed.page({"train 64": {"run_steps_per_s": rates}}).splitlines()
    assert rows[2].startswith("| 64 | 8,000 | not measured |")


def test_the_faster_accurate_precision_is_swept_first(tmp_path):
    path = tmp_path / "speed.json"
    assert sweep.order(path) == ["float32", "bfloat16_6x"]
    rates = {"float32": {"median": 8.0}, "bfloat16_6x": {"median": 9.0}, "bfloat16": {"median": 99.0}}
    path.write_text(json.dumps({"train 64": {"run_steps_per_s": rates}}))
    assert sweep.order(path) == ["bfloat16_6x", "float32"]


# --- the record -----------------------------------------------------------------------------------------------------


def test_no_part_an_unknown_one_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"'sped' is unknown.*speed"):
        command.main(["sped"])
    with pytest.raises(InputError, match="no part is named"):
        command.main([])
    with pytest.raises(InputError, match="holds no figures"):
        command.record(tmp_path)


def test_figures_of_different_cards_are_no_record(tmp_path):
    on = {"device_kind": "A", "driver": "1", "versions": {"jaxlib": "0"}, "git_commit": None}
    figures = {"a": {"on": on}, "b": {"on": on}}
    (tmp_path / "speed.json").write_text(json.dumps(figures))
    assert command.record(tmp_path)["machine"] == on
    figures["b"]["on"] = on | {"device_kind": "B"}
    (tmp_path / "speed.json").write_text(json.dumps(figures))
    with pytest.raises(InputError, match="different machines"):
        command.record(tmp_path)


def test_what_failed_is_told_where_its_figure_would_stand():
    text = command.section("speed", {"train 64": {"failed": "Traceback\nValueError: no such card"}})
    assert "Not measured: `python -m benchmarks.card speed`." in text
    assert "Not measured: train 64 (ValueError: no such card)." in text
