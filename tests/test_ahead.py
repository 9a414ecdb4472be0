"""Programs compiled for chips that are not there, and what is counted from their text."""

import functools
import importlib.util
import json
import os

import jax
import pytest
from commands import assert_refused, call

from benchmarks import ahead, chips, hlo, mainline
from benchmarks.chips import CHIPS
from benchmarks.hlo import Kernel, Product, Program
from tools import performance

# CI installs the compilers in one of its environments and says so there, where nothing is skipped.
AHEAD = pytest.mark.skipif(
    any(chips.missing(name) for name in CHIPS) and not os.environ.get("AHEAD"),
    reason="the extra ahead is not installed",
)

TPU = """HloModule jit_f, is_scheduled=true

%products (left: f32[8,16,130], right: f32[8,130,4]) -> f32[8,16,4] {
  %left = f32[8,16,130]{2,1,0:T(8,128)S(1)} parameter(0)
  %right = f32[8,130,4]{2,1,0:T(8,128)} parameter(1)
  ROOT %convolution = f32[8,16,4]{2,1,0:T(8,128)} convolution(%left, %right), window={size=8 stride=7 lhs_dilate=8}, \
dim_labels=0bf_0io->0bf, operand_precision={highest,highest}, metadata={op_name="jit(f)/dot_general"}
}

%put (buffer: f32[64,8], row: f32[8], at: s32[]) -> f32[64,8] {
  %buffer = f32[64,8]{1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)} parameter(2)
  %row = f32[8]{0:T(128)} parameter(1)
  %bitcast = f32[1,8]{1,0:T(1,128)} bitcast(%row)
  ROOT %update = f32[64,8]{1,0:T(8,128)} dynamic-update-slice(%buffer, %bitcast, %at, %at)
}

%step (carry: (s32[], f32[8,16,130], f32[8,130,4], f32[64,8])) -> (s32[], f32[8,16,130], f32[8,130,4], f32[64,8]) {
  %carry = (s32[]{:T(128)}, f32[8,16,130]{2,1,0:T(8,128)S(1)}, /*index=2*/f32[8,130,4]{2,1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %x = f32[8,16,130]{2,1,0:T(8,128)S(1)} get-tuple-element(%carry), index=1
  %w = f32[8,130,4]{2,1,0:T(8,128)} get-tuple-element(%carry), index=2
  %start = (f32[8,130,4]{2,1,0:T(8,128)S(1)}, f32[8,130,4]{2,1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%w)
  %done = f32[8,130,4]{2,1,0:T(8,128)S(1)} copy-done(%start)
  %y = f32[8,16,4]{2,1,0:T(8,128)} fusion(%x, %w), kind=kOutput, calls=%products
  ROOT %next = (s32[]{:T(128)}, f32[8,16,130]{2,1,0:T(8,128)S(1)}, f32[8,130,4]{2,1,0:T(8,128)}) tuple(%i, %x, %done)
}

%turn (i: s32[]) -> s32[] {
  %i.2 = s32[]{:T(128)} parameter(0)
  %rows = f32[64,8]{1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  %row.2 = f32[8]{0:T(128)} broadcast(%i.2), dimensions={}
  %filled = f32[64,8]{1,0:T(8,128)} fusion(%rows, %row.2, %i.2), kind=kLoop, calls=%put
  ROOT %more = s32[]{:T(128)} add(%i.2, %i.2)
}

%measured (x: s32[]) -> s32[] {
  %x.2 = s32[]{:T(128)} parameter(0)
  ROOT %turns = s32[]{:T(128)} while(%x.2), condition=%on, body=%turn, \
backend_config={"known_trip_count":{"n":"5"},"dynamic_variables":[]}
}

%not_measured (x: s32[]) -> s32[] {
  ROOT %x.3 = s32[]{:T(128)} parameter(0)
}

%segment (state: (s32[], f32[8,16,130], f32[8,130,4])) -> (s32[], f32[8,16,130], f32[8,130,4]) {
  %state = (s32[]{:T(128)}, f32[8,16,130]{2,1,0:T(8,128)S(1)}, f32[8,130,4]{2,1,0:T(8,128)}) parameter(0)
  %trained = (s32[]{:T(128)}, f32[8,16,130]{2,1,0:T(8,128)S(1)}, f32[8,130,4]{2,1,0:T(8,128)}) while(%state), \
condition=%on, body=%step
  %j = s32[]{:T(128)} get-tuple-element(%trained), index=0
  %row.3 = s32[]{:T(128)} conditional(%j, %j, %j), branch_computations={%not_measured, %measured}
  ROOT %both = (s32[]{:T(128)}, f32[8,16,130]{2,1,0:T(8,128)S(1)}) tuple(%row.3, %trained)
}

ENTRY %main (state: (s32[], f32[8,16,130], f32[8,130,4])) -> (s32[], f32[8,16,130], f32[8,130,4]) {
  %state.2 = (s32[]{:T(128)}, f32[8,16,130]{2,1,0:T(8,128)S(1)}, f32[8,130,4]{2,1,0:T(8,128)}) parameter(0)
  ROOT %all = (s32[]{:T(128)}, f32[8,16,130]{2,1,0:T(8,128)S(1)}) while(%state.2), condition=%on, body=%segment
}
"""

GPU = """HloModule jit_g, is_scheduled=true

%gemm (a: f32[64,3830,512], b: f32[64,512,113]) -> f32[64,3830,113] {
  %a = f32[64,3830,512]{2,1,0} parameter(0)
  %b = f32[64,512,113]{2,1,0} parameter(1)
  ROOT %dot = f32[64,3830,113]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, \
rhs_contracting_dims={1}, algorithm=dot_bf16_bf16_f32_x6, metadata={op_name="g (of two)" stack_frame_id=5}
}

%rows (table: f32[56,113], at: s32[]) -> f32[113] {
  %table = f32[56,113]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,113]{1,0} dynamic-slice(%table, %at, %zero), dynamic_slice_sizes={1,113}
  ROOT %flat = f32[113]{0} bitcast(%row)
}

ENTRY %main (a: f32[64,3830,512], b: f32[64,512,113], table: f32[56,113], at: s32[]) -> f32[64,3830,113] {
  %a.2 = f32[64,3830,512]{2,1,0} parameter(0)
  %b.2 = f32[64,512,113]{2,1,0} parameter(1)
  %table.2 = f32[56,113]{1,0} parameter(2)
  %at.2 = s32[] parameter(3)
  %row.2 = f32[113]{0} fusion(%table.2, %at.2), kind=kLoop, calls=%rows
  %flags = pred[113]{0} compare(%row.2, %row.2), direction=GT
  %index = s32[4,1]{1,0} constant({...})
  %updates = f32[4,113]{1,0} slice(%table.2), slice={[0:4], [0:113]}
  %summed = f32[56,113]{1,0} scatter(%table.2, %index, %updates), update_window_dims={1}, to_apply=%add
  ROOT %product = f32[64,3830,113]{2,1,0} fusion(%a.2, %b.2), kind=kCustom, calls=%gemm
}
"""


def test_bytes_include_the_tiles_padding_and_leave_out_on_chip_memory():
    program = Program(TPU)
    start, fusion = program.kernels(program.steps)
    w = 8 * 136 * 128 * 4  # [8, 130, 4] in tiles of 8 × 128
    y = 8 * 16 * 128 * 4
    assert (start.opcode, start.ahead, start.bytes) == ("copy-start", True, w)
    assert (fusion.opcode, fusion.ahead, fusion.bytes) == ("fusion", False, w + y)


def test_a_tpus_product_counts_no_holes():
    """A convolution over 8 runs of which each meets its own factor alone."""
    program = Program(TPU)
    _, fusion = program.kernels(program.steps)
    assert fusion.products == (Product(8 * 2 * 16 * 130 * 4, "highest", "f32"),)


def test_an_evaluation_counts_its_loops_and_writes_in_place():
    program = Program(TPU)
    (evaluation,) = program.evaluations()
    assert evaluation == "measured"
    kernels = program.kernels(evaluation)
    assert {kernel.name: kernel.times for kernel in kernels} == {"row.2": 5, "filled": 5, "more": 5}
    row, scalar = 128 * 4, 128 * 4
    bytes_of = {kernel.name: kernel.bytes for kernel in kernels}
    assert bytes_of == {"row.2": scalar + row, "filled": row + scalar + row, "more": 2 * scalar}
    assert hlo.total(kernels) == (15, 5 * (6 * 512 + 512), 0)


def test_what_is_read_through_a_slice_counts_as_far_as_it_is_read():
    program = Program(GPU)
    kernels = {kernel.name: kernel for kernel in program.kernels(program.entry)}
    assert set(kernels) == {"row.2", "flags", "updates", "summed", "product"}
    row = 4 * 113
    assert kernels["row.2"].bytes == row + 4 + row
    assert kernels["flags"].bytes == row + 113
    assert kernels["updates"].bytes == 4 * row + 4 * row
    assert kernels["summed"].bytes == 4 * 4 + 4 * row + 4 * row


def test_a_gpus_product():
    program = Program(GPU)
    product = program.kernels(program.entry)[-1]
    assert product.products == (Product(2 * 64 * 3830 * 512 * 113, "dot_bf16_bf16_f32_x6", "f32"),)
    assert product.bytes == 4 * 64 * (3830 * 512 + 512 * 113 + 3830 * 113)
    with pytest.raises(ValueError, match="no loop of this program"):
        _ = program.steps


def test_a_loop_too_many_is_told():
    beside = TPU.replace("%j = s32[]", "%again = s32[] while(%state), condition=%on, body=%step\n  %j = s32[]")
    with pytest.raises(ValueError, match="2 loops"):
        _ = Program(beside).steps


@pytest.mark.parametrize(
    ("ptx", "found"),
    [
        ("fma.rn.f32 \t%f1, %f2, %f3, %f4;", [ahead.FLOAT32]),
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r1};", ["tf32"]),
        ("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%r1};", ["bf16"]),
    ],
)
def test_precision_in_ptx(ptx, found):
    assert ahead.in_ptx(ptx) == found


def test_bounds():
    """Kernels follow one another, each at the chip's peak or at full bandwidth; copies ahead only take bandwidth."""
    chip = CHIPS["v5e"]
    product = Kernel("a", "fusion", 2, 819, (Product(197_000, "highest", "f32"),))
    copy = Kernel("b", "copy", 1, 8190, ())
    assert ahead.seconds(chip, [product, copy]) == pytest.approx(2 * 6e-9 + 10e-9)
    start = Kernel("c", "copy-start", 1, 8190, ())
    assert ahead.seconds(chip, [product, start]) == pytest.approx(2 * 6e-9)
    assert ahead.seconds(chip, [product, start, start]) == pytest.approx((2 + 10 + 10) * 1e-9)
    split = Product(197, "highest", "bf16")
    assert chip.seconds(split) == pytest.approx(1e-12)
    with pytest.raises(ValueError, match="dot_f8"):
        chip.seconds(Product(1, "dot_f8", "f32"))


def test_every_chips_rates_serve_every_precision():
    for name, chip in CHIPS.items():
        for precision in ("highest", "high", "default", *chips.BY_ALGORITHM):
            if not (chip.topology and "tf32" in precision):
                assert chip.seconds(Product(10**12, precision, "f32")) > 0, (name, precision)


def test_without_the_compilers_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = call(capsys, ahead.main, "--chip=v5e")
    assert_refused(said, "--chip=v5e needs a compiler that is not installed: pip install -e '.[ahead]'")


ROW = {
    **{
        "chip": "h100",
        "p": 113,
        "precision": "float32",
        "runs": 64,
        "width": 64,
        "found": ["highest"],
    },
    "start": {"compile_s": 1.2, "temporaries": 1e8, "needed": 3e8, "ptx": [ahead.FLOAT32]},
    "advance": {"compile_s": 12.0, "temporaries": 1.9e9, "needed": 2.1e9, "ptx": [ahead.FLOAT32]},
    "step": {"kernels": 71, "bytes": 1.7e8, "flop": 3.5e9},
    "evaluation": {"kernels": 5605, "bytes": 5.3e8, "flop": 3.7e9},
    "largest": [{"kernel": "jvp()/dot_general", "bytes": 1.7e7, "flop": 5.18e8}],
    **{"gathers": 0, "scatters": 0, "bounds": {"h100": 13100.0, "h200": 14200.0}},
}


def test_the_page_names_bounds_and_both_cards():
    text = ahead.page({"rows": [ROW]})
    assert "| H100 SXM | 64, 64 | float32 | highest; PTX: float32 alone | 170 | 3.50 | 71 | 530 | 5,605 |" in text
    assert "| 13,100, 14,200 (H200 SXM) |" in text
    assert "| H100 SXM | 64 | 1,900 | 2,100 | 4,078 | 12 s | 1 s |" in text


def test_the_page_tells_the_largest_kernels_of_a_step_that_leaves_the_chip():
    rows = [{**ROW, "runs": runs} for runs in (8, 64, 1024)]
    on_chip = {**rows[0], "chip": "v5e", "step": {**ROW["step"], "bytes": 4e6}, "bounds": {"v5e": 2500.0}}
    text = ahead.page({"rows": [*rows, on_chip]})
    assert text.count("The kernels of a run-step that move most") == 1
    assert "The kernels of a run-step that move most, H100 SXM, 64 runs:" in text
    assert "| `jvp()/dot_general` | 17.0 | 10% | 0.518 |" in text


def test_kernels_are_named_by_the_line_that_they_come_from():
    source = (
        "jit(_advance)/while/body/eval_jaxpr/while/body/vmap()/while/body/transpose(jvp(jit(_where)))/select_n;jit(x)"
    )
    kernel = Kernel("fusion.1", "fusion", 2, 640, (Product(64, "highest", "f32"),), source)
    assert ahead._of_kernel(kernel, 64) == {"kernel": "transpose(jvp(_where))/select_n", "bytes": 20, "flop": 1}
    assert ahead._of_kernel(kernel._replace(source=""), 64)["kernel"] == "fusion.1"


def test_docs_have_what_was_filed(tmp_path):
    assert "Not yet compiled" in performance.bounds(tmp_path)
    record = {
        "command": "python -m benchmarks.ahead",
        "date": "2026-01-02",
        "machine": MACHINE,
        "others_share_of_processor": 0.5,
    }
    record |= {"compilers": {"libtpu": "0.0.42"}, "rows": [ROW]}
    (tmp_path / "cpu_ahead_h100.json").write_text(json.dumps(record))
    (tmp_path / "cpu_ahead_v5e.json").write_text(
        json.dumps(record | {"rows": [{**ROW, "chip": "v5e", "p": 23, "bounds": {"v5e": 2500.0}}]})
    )
    text = performance.bounds(tmp_path)
    assert text.index("H100 SXM | 64, 64") < text.index("TPU v5e | 64, 64 (P = 23)")
    assert "jax 0.10.2" in text
    assert "libtpu 0.0.42." in text
    assert "other programs" not in text


MACHINE = {
    **{"git_commit": "abcdef", "n_devices": 1, "device_kind": "cpu", "cpu_threads": 2},
    "versions": {"python": "3.11", "jax": "0.10.2", "jaxlib": "0.10.2"},
}


# --- compiled ---------------------------------------------------------------------------------------------------------


@functools.cache
def row(name: str, n_runs: int, precision: str = "float32", p: int = 7):
    """The figures of a population."""
    jax.config.update("jax_enable_compilation_cache", False)  # its entries cannot be read without a device
    problem, _ = mainline.mainline(n_runs, p=p, precision=precision)
    return ahead.compiled(problem, name, n_runs)


@AHEAD
@pytest.mark.parametrize("name", ["h100", "v5e"])
def test_a_small_population_compiles(name):
    found = row(name, 2)
    assert found["step"]["flop"] > 0.9 * 3 * 2 * 14 * (2 * 128 * 512 + 128 * 7)
    assert 20 < found["step"]["kernels"] < 200
    assert 20 < found["evaluation"]["kernels"] < 600
    assert found["scatters"] == 0
    sizes = [kernel["bytes"] for kernel in found["largest"]]
    assert sizes == sorted(sizes, reverse=True)
    assert found["largest"][0]["kernel"]
    assert found["found"] == ["highest"]
    assert min(found["bounds"].values()) > 0
    if name == "v5e":
        assert found["gathers"] == 0
        assert found["step"]["bytes"] < 1e6  # two runs of this size stay in on-chip memory
    if name == "h100":
        assert found["advance"]["ptx"] == [ahead.FLOAT32]
        assert found["step"]["bytes"] > 4 * 3 * 2 * 200_000  # parameters and moments are read and written


@AHEAD
def test_the_mainlines_step_for_an_h100():
    found = row("h100", 8, p=113)
    dense = 3 * 2 * 3830 * (2 * 128 * 512 + 128 * 113)
    assert 0.95 * dense < found["step"]["flop"] < 1.15 * dense
    assert found["step"]["kernels"] < 90
    assert found["scatters"] == 0
    assert found["advance"]["needed"] < 1.5 * ahead.estimated(found)


@AHEAD
@pytest.mark.long
def test_the_mainline_for_a_tpu():
    found = row("v5e", 2, p=113)
    assert found["step"]["bytes"] < 65e6
    assert (found["gathers"], found["scatters"]) == (0, 0)
    assert found["found"] == ["highest"]
