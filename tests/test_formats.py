"""Other people's checkpoints as arrays: each format is read into one model; what does not fit is named."""

import numpy as np
import pytest
from cases import REFERENCE, random_case, reference_case
from foreign import ATTN, SHAPE, D, E, H, M, P, bare, bridged, equal, released
from hypothesis import given
from hypothesis import strategies as st

from grokjax.core import model
from grokjax.core.model import ModelConfig
from grokjax.errors import InputError
from grokjax.interp import files, formats
from grokjax.interp.checkpoint import ASSUMED_ACT, from_arrays, load_checkpoint


@pytest.fixture(scope="module")
def case():
    return random_case(**SHAPE)


# --- formats --------------------------------------------------------------------------------------------------------


FORMATS = {"bare": bare, "dotted": dict, "released": released, "bridged": bridged}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_into_the_same_model(case, name):
    read = from_arrays(FORMATS[name](case.params), n_heads=H if name == "bridged" else None)
    assert read.cfg == case.cfg
    equal(read.params, case.params)
    assert read.train_pairs is None
    dropped = ("the column of '=' in W_U was dropped",) if name == "released" else ()
    assert read.notes == (*dropped, ASSUMED_ACT)


@given(
    p=st.integers(3, 12),
    n_layers=st.integers(1, 3),
    n_heads=st.integers(1, 3),
    d_head=st.integers(1, 4),
    d_mlp=st.integers(1, 6),
    format=st.sampled_from([formats.LENS, formats.PAPER, formats.BRIDGE]),
)
def test_sizes_are_read_from_the_arrays(p, n_layers, n_heads, d_head, d_mlp, format):
    cfg = ModelConfig(p, n_layers, n_heads * d_head, n_heads, d_mlp)
    rng = np.random.default_rng(0)
    params = {key: rng.normal(size=shape) for key, shape in model.shapes(cfg).items()}
    read = from_arrays(formats.write(params, cfg, format), n_heads=n_heads)
    assert read.cfg == cfg
    equal(read.params, params)


def test_what_is_written_is_what_was_written_by_hand(case):
    for format, by_hand in ((formats.BRIDGE, bridged(case.params)), (formats.PAPER, released(case.params))):
        written = formats.write(case.params, case.cfg, format)
        for name, expected in by_hand.items():
            if name in written:  # buffers are not
                np.testing.assert_array_equal(written[name], expected[..., : written[name].shape[-1]])


def test_a_written_state_dict_is_complete(case):
    """Every array by hand: the parameters as they are, zeros for other biases, and the buffers of every layer."""
    case = random_case(**SHAPE, n_layers=2)
    expected = dict(case.params) | {"unembed.b_U": np.zeros(P)}
    for layer in ("blocks.0.attn.", "blocks.1.attn."):
        expected |= {layer + name: np.zeros((H, E)) for name in ("b_Q", "b_K", "b_V")}
        expected |= {layer + "b_O": np.zeros(D), layer + "IGNORE": np.array(-np.inf)}
        expected[layer + "mask"] = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
    written = formats.write(case.params, case.cfg)
    assert written.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(written[name], x, err_msg=name)
        assert written[name].shape == x.shape, name
        assert written[name].dtype == (bool if name.endswith("mask") else np.float32), name
    assert not any("mask" in name or "IGNORE" in name for name in formats.write(case.params, case.cfg, formats.BRIDGE))


@pytest.mark.parametrize("bias", ["attn.q.bias", "attn.k.bias", "attn.v.bias", "attn.o.bias"])
def test_a_bias_of_the_bridge_is_refused_unless_it_is_zero(case, bias):
    arrays = bridged(case.params)
    assert from_arrays(arrays, n_heads=H).cfg == case.cfg
    arrays["blocks.0." + bias] = np.eye(1, D, 5, dtype=np.float32)[0]
    with pytest.raises(InputError) as caught:
        from_arrays(arrays, "model.pt", n_heads=H)
    assert str(caught.value) == (
        f"model.pt: blocks.0.{bias} is not zero, but the only biases of this project's model are b_in and b_out."
    )


@pytest.mark.parametrize(
    ("make", "name", "wrong", "right"),
    [
        (released, "embed.W_E", (D + 1, P + 1), "[12, 8], [d_model, tokens]"),
        (released, ATTN + "W_K", (H, D, E), "[3, 4, 12], [heads, d_head, d_model]"),
        (released, "blocks.0.mlp.W_in", (D, M), "[10, 12], [d_mlp, d_model]"),
        (released, "blocks.0.mlp.W_out", (M, D), "[12, 10], [d_model, d_mlp]"),
        (bridged, "blocks.0.attn.q.weight", (D, D + 1), "[12, 12], [heads * d_head, d_model]"),
        (bridged, "blocks.0.mlp.in.weight", (D, M), "[10, 12], [d_mlp, d_model]"),
        (bridged, "unembed.weight", (D, P), "[7, 12], [P, d_model]"),
    ],
)
def test_wrong_shapes_are_named_in_the_axes_of_the_file(case, make, name, wrong, right):
    arrays = make(case.params) | {name: np.zeros(wrong, np.float32)}
    with pytest.raises(InputError) as caught:
        from_arrays(arrays, "model.pt", n_heads=H)
    assert str(caught.value) == (
        f"model.pt: {name} has shape {list(wrong)}, but {right}, is expected where P = 7, d_model = 12, heads = 3 and "
        "d_mlp = 10, as others have it."
    )


def test_one_head_does_not_hide_the_format():
    case = random_case(11, d_model=12, n_heads=1, d_mlp=5)  # W_E and W_Q are square
    assert case.params["embed.W_E"].shape == (12, 12)
    for format in (dict, released):
        equal(from_arrays(format(case.params)).params, case.params)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_layers", [1, 2])
def test_npz_there_and_back(tmp_path, n_layers):
    case = random_case(**SHAPE, n_layers=n_layers)
    files.save_npz(case.params, case.cfg, tmp_path / "model.npz", case.train_pairs)
    names = set(np.load(tmp_path / "model.npz").files)
    assert ("W_Q" in names) == (n_layers == 1)
    read = load_checkpoint(tmp_path / "model.npz")
    assert read.cfg == case.cfg
    equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, case.train_pairs)
    assert (read.train_pairs.dtype, read.split) == (np.int32, "train_mask in the file")


def test_precision_is_kept(tmp_path, case):
    params = {name: x.astype(np.float64) for name, x in case.params.items()}
    files.save_npz(params, case.cfg, tmp_path / "model.npz")
    equal(load_checkpoint(tmp_path / "model.npz").params, params)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference models beside the checkout")
def test_the_reference_models_are_read_as_they_are():
    case, _ = reference_case("released_wd0.1")
    read = load_checkpoint(REFERENCE / "released_wd0.1.npz")
    assert read.cfg == case.cfg
    equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, case.train_pairs)


# --- what does not fit is named -------------------------------------------------------------------------------------


def changed(**arrays):
    """The bare arrays with some replaced; None leaves one out."""
    found = bare(random_case(**SHAPE).params) | arrays
    return {name: x for name, x in found.items() if x is not None}


def zeros(*shape):
    return np.zeros(shape, np.float32)


def with_nan(shape):
    x = np.ones(shape, np.float32)
    x[0, 0] = np.nan
    x[-1, -1] = np.inf
    return x


MISFITS = {
    "missing": (changed(W_Q=None), r"no array blocks\.0\.attn\.W_Q \[heads, d_model, d_head\]: its arrays are W_K"),
    "missing later": (changed(W_in=None), r"no array blocks\.0\.mlp\.W_in \[d_model, d_mlp\]"),
    "nothing": ({}, r"no array pos_embed\.W_pos \[positions, d_model\]: its arrays are none"),
    "axes": (changed(W_E=zeros(8)), r"W_E has shape \[8\], but \[tokens, d_model\] is expected"),
    "empty": (changed(W_pos=zeros(3, 0)), r"W_pos has shape \[3, 0\]"),
    "width": (changed(W_in=zeros(D, 9)), r"W_in has shape \[12, 9\], but \[12, 10\], \[d_model, d_mlp\], is expected"),
    "heads": (changed(W_K=zeros(2, D, E)), r"W_K has shape \[2, 12, 4\], but \[3, 12, 4\]"),
    "transposed": (changed(W_Q=zeros(H, E, D)), r"W_Q has shape \[3, 4, 12\], but \[3, 12, 4\]"),
    "d_head": (changed(W_Q=zeros(H, D, 5)), r"W_Q has shape \[3, 12, 5\], but \[3, 12, 4\]"),
    "other heads": (changed(W_Q=zeros(5, D, E)), r"W_K has shape \[3, 12, 4\], but \[5, 12, 4\]"),
    "logits": (changed(W_U=zeros(D, 6)), r"W_U has shape \[12, 6\], but \[12, 7\], \[d_model, P\], is expected"),
    "P is 2": (
        changed(W_E=zeros(3, D)),
        "W_E has 3 tokens, the last of them '=', so that P is 2, but it must be from 3",
    ),
    "nan": (changed(W_out=with_nan((M, D))), "W_out has 2 of its 120 numbers not finite"),
    "integers": (changed(b_in=np.zeros(M, int)), "b_in holds int64, but it must hold floating-point numbers"),
    "complex": (changed(b_in=np.zeros(M, complex)), "b_in holds complex128"),
    "stranger": (changed(W_gate=zeros(D, M)), "an array W_gate, which is no part of a model"),
    "half of LayerNorm": (changed(**{"blocks.0.ln1.w": zeros(D)}), r"has no array blocks\.0\.ln1\.b \[d_model\]"),
    "one position": (changed(W_pos=zeros(1, D)), "W_pos has one position, but a and b are two, or a, b, = three"),
    "twice": (changed(**{"embed.W_E": zeros(P + 1, D)}), r"has both W_E and embed\.W_E"),
    "a gap": (changed(**{"blocks.2.mlp.b_in": zeros(M)}), "has blocks 0, 2, but they must be numbered from 0"),
    "b_U": (changed(b_U=zeros(P) + 1), "b_U is not zero, which cannot be folded into the other weights, but the only"),
    "b_Q": (changed(b_Q=zeros(H, E) + 1), "b_Q is not zero, but the only biases of this project's model are b_in and"),
    "b_O": (changed(b_O=zeros(D - 1)), r"b_O has shape \[11\], but \[12\]"),
    "mask": (changed(train_mask=np.ones(50, bool)), r"train_mask is bool \[50\], but it must be bool \[49\]"),
    "mask of numbers": (changed(train_mask=np.ones(49)), r"train_mask is float64 \[49\], but it must be bool"),
    "no test pairs": (changed(train_mask=np.ones(49, bool)), "train_mask leaves 49 of 49 pairs to train on"),
    "no train pairs": (changed(train_indices=np.zeros(0, int)), "train_indices leaves 0 of 49 pairs"),
    "pair 49": (changed(train_indices=np.array([3, 49])), "different numbers from 0 to 48"),
    "a pair twice": (changed(train_indices=np.array([3, 3])), "different numbers from 0 to 48"),
    "pairs of floats": (changed(train_indices=np.array([0.5])), "train_indices is float64"),
    "bridge": (bridged(random_case(**SHAPE).params), "do not tell the number of heads: give --heads"),
}
for _name in ("b_K", "b_V"):
    MISFITS[_name] = (changed(**{_name: zeros(H, E) + 1}), f"{_name} is not zero")


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_named(name):
    arrays, sentence = MISFITS[name]
    with pytest.raises(InputError, match=sentence) as caught:
        from_arrays(arrays, "model.npz")
    assert str(caught.value).startswith("model.npz")
    assert str(caught.value).endswith(".")


def test_zero_biases_and_buffers_are_accepted():
    extra = {"b_Q": zeros(H, E), "b_U": zeros(P), "mask": np.zeros((0, 0), bool), ATTN + "IGNORE": np.array(-np.inf)}
    equal(from_arrays(changed(**extra)).params, random_case(**SHAPE).params)


def test_the_bias_of_the_equals_sign_goes_with_its_column():
    params = random_case(**SHAPE).params
    b_U = zeros(P + 1)
    b_U[P] = 3
    equal(from_arrays(released(params) | {"unembed.b_U": b_U}).params, params)


def test_unknown_activation(case):
    with pytest.raises(InputError, match="--act 'swish' is unknown: known are gelu, quadratic, relu"):
        from_arrays(case.params, act="swish")
