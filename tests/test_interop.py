"""Other people's checkpoints: read into one model, written so that TransformerLens agrees, refused in a sentence."""

import importlib.metadata
import importlib.util
import os
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import slow
from cases import REFERENCE, random_case, reference_case
from hypothesis import given, settings
from hypothesis import strategies as st

from grokjax import cli, export, interop, layouts, model, tasks
from grokjax.errors import InputError
from grokjax.model import ModelConfig

P, D, H, E, M = 7, 12, 3, 4, 10
SHAPE = {"p": P, "d_model": D, "n_heads": H, "d_mlp": M}
ATTN, MLP = "blocks.0.attn.", "blocks.0.mlp."


@pytest.fixture(scope="module")
def case():
    return random_case(**SHAPE)


def equal(a, b):
    """Parameters, bit for bit and in one order of axes."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        assert a[name].dtype == b[name].dtype


# --- each layout, written out by hand -------------------------------------------------------------------------------


def bare(params):
    return {name.rsplit(".", 1)[1]: x for name, x in params.items()}


def released(params):
    """As the paper's code holds them: x is a column there, and "=" has a logit."""
    w = bare(params)
    return {
        "embed.W_E": w["W_E"].T,
        "pos_embed.W_pos": w["W_pos"],
        **{ATTN + name: w[name].transpose(0, 2, 1) for name in ("W_K", "W_Q", "W_V")},
        ATTN + "W_O": w["W_O"].reshape(-1, w["W_E"].shape[1]).T,
        ATTN + "mask": np.tril(np.ones((3, 3), np.float32)),
        MLP + "W_in": w["W_in"].T,
        MLP + "b_in": w["b_in"],
        MLP + "W_out": w["W_out"].T,
        MLP + "b_out": w["b_out"],
        "unembed.W_U": np.concatenate([w["W_U"], np.full((len(w["W_U"]), 1), 5, np.float32)], 1),
    }


def bridged(params):
    """As TransformerBridge's state_dict has them: torch's Linear layers."""
    w = bare(params)
    d = w["W_E"].shape[1]
    found = {"embed.weight": w["W_E"], "pos_embed.weight": w["W_pos"], "unembed.weight": w["W_U"].T}
    for name in "qkv":
        found[f"{ATTN}{name}.weight"] = w[f"W_{name.upper()}"].transpose(0, 2, 1).reshape(-1, d)
        found[f"{ATTN}{name}.bias"] = np.zeros(d, np.float32)
    return found | {
        ATTN + "o.weight": w["W_O"].reshape(-1, d).T,
        ATTN + "o.bias": np.zeros(d, np.float32),
        MLP + "in.weight": w["W_in"].T,
        MLP + "in.bias": w["b_in"],
        MLP + "out.weight": w["W_out"].T,
        MLP + "out.bias": w["b_out"],
        "unembed.bias": np.zeros(w["W_U"].shape[1], np.float32),
    }


LAYOUTS = {"bare": bare, "dotted": dict, "released": released, "bridged": bridged}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_into_the_same_model(case, name):
    read = interop.from_arrays(LAYOUTS[name](case.params), n_heads=H if name == "bridged" else None)
    assert read.cfg == case.cfg
    equal(read.params, case.params)
    assert read.train_pairs is None
    assert read.notes == (("the column of '=' in W_U was dropped",) if name == "released" else ())


@given(
    p=st.integers(3, 12),
    n_layers=st.integers(1, 3),
    n_heads=st.integers(1, 3),
    d_head=st.integers(1, 4),
    d_mlp=st.integers(1, 6),
    layout=st.sampled_from([layouts.LENS, layouts.PAPER, layouts.BRIDGE]),
)
def test_sizes_are_read_from_the_arrays(p, n_layers, n_heads, d_head, d_mlp, layout):
    cfg = ModelConfig(p, n_layers, n_heads * d_head, n_heads, d_mlp)
    rng = np.random.default_rng(0)
    params = {key: rng.normal(size=shape) for key, shape in model.shapes(cfg).items()}
    read = interop.from_arrays(layouts.write(params, cfg, layout), n_heads=n_heads)
    assert read.cfg == cfg
    equal(read.params, params)


def test_what_is_written_is_what_was_written_by_hand(case):
    for layout, by_hand in ((layouts.BRIDGE, bridged(case.params)), (layouts.PAPER, released(case.params))):
        written = layouts.write(case.params, case.cfg, layout)
        for name, expected in by_hand.items():
            if name in written:  # buffers are not
                np.testing.assert_array_equal(written[name], expected[..., : written[name].shape[-1]])


def test_one_head_does_not_hide_the_layout():
    case = random_case(11, d_model=12, n_heads=1, d_mlp=5)  # W_E and W_Q are square
    assert case.params["embed.W_E"].shape == (12, 12)
    for layout in (dict, released):
        equal(interop.from_arrays(layout(case.params)).params, case.params)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_layers", [1, 2])
def test_npz_there_and_back(tmp_path, n_layers):
    case = random_case(**SHAPE, n_layers=n_layers)
    interop.save_npz(case.params, case.cfg, tmp_path / "model.npz", case.train_pairs)
    names = set(np.load(tmp_path / "model.npz").files)
    assert ("W_Q" in names) == (n_layers == 1)
    read = interop.load(tmp_path / "model.npz")
    assert read.cfg == case.cfg
    equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, case.train_pairs)
    assert (read.train_pairs.dtype, read.split) == (np.int32, "train_mask in the file")


def test_precision_is_kept(tmp_path, case):
    params = {name: x.astype(np.float64) for name, x in case.params.items()}
    interop.save_npz(params, case.cfg, tmp_path / "model.npz")
    equal(interop.load(tmp_path / "model.npz").params, params)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference models beside the checkout")
def test_the_reference_models_are_read_as_they_are():
    case, _ = reference_case("released_wd0.1")
    read = interop.load(REFERENCE / "released_wd0.1.npz")
    assert read.cfg == case.cfg
    equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, case.train_pairs)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def tensors(torch, arrays):
    return {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}


@pytest.mark.parametrize("layout", [layouts.LENS, layouts.BRIDGE], ids=["lens", "bridge"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_there_and_back(torch, tmp_path, case, layout, legacy):
    path = tmp_path / "model.pth"
    interop.save_torch(case.params, case.cfg, path, layout)
    state_dict = torch.load(path, weights_only=True)
    assert all(isinstance(x, torch.Tensor) for x in state_dict.values())
    if legacy:
        torch.save(state_dict, path, _use_new_zipfile_serialization=False)
    read = interop.load(path, n_heads=H)
    assert read.cfg == case.cfg
    equal(read.params, case.params)


def test_hooked_transformers_buffers_are_written(torch, tmp_path, case):
    interop.save_torch(case.params, case.cfg, tmp_path / "model.pth")
    state_dict = torch.load(tmp_path / "model.pth", weights_only=True)
    zeros = {ATTN + "b_Q": (H, E), ATTN + "b_K": (H, E), ATTN + "b_V": (H, E), ATTN + "b_O": (D,), "unembed.b_U": (P,)}
    for name, shape in zeros.items():
        assert state_dict[name].shape == shape
        assert not state_dict[name].any()
    assert state_dict[ATTN + "mask"].tolist() == np.tril(np.ones((3, 3), bool)).tolist()
    assert state_dict[ATTN + "IGNORE"] == -np.inf
    assert state_dict.keys() - zeros.keys() - {ATTN + "mask", ATTN + "IGNORE"} == case.params.keys()


def test_a_released_file_tells_its_split_and_task(torch, tmp_path, case):
    content = {
        "model": tensors(torch, released(case.params)),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "train_losses": [4.7, 4.6],
        "config": {"p": P, "fn_name": "subtract", "frac_train": 0.4, "seed": 3, "lr": 1e-3},
    }
    torch.save(content, tmp_path / "final.pth")
    read = interop.load(tmp_path / "final.pth")
    equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, tasks.train_pairs(P, 0.4, 3, "python"))
    assert (read.task, read.split_seed) == ("subtract", 3)
    assert read.split == "python:3:0.4, as the file's config says"
    assert read.layout == "the paper's released code"


def test_a_split_beside_the_state_dict(torch, tmp_path, case):
    indices = np.array([5, 3, 40])
    for form in (torch.from_numpy(indices), indices.tolist()):
        content = {"model": tensors(torch, case.params), "train_indices": form, "test_losses": [1.0]}
        torch.save(content, tmp_path / "demo.pth")
        assert interop.load(tmp_path / "demo.pth").train_pairs.tolist() == [3, 5, 40]


def test_half_precision(torch, tmp_path, case):
    half = {name: x.bfloat16() for name, x in tensors(torch, case.params).items()}
    torch.save(half, tmp_path / "half.pth")
    read = interop.load(tmp_path / "half.pth").params
    assert {x.dtype for x in read.values()} == {np.dtype("float32")}
    np.testing.assert_allclose(read["embed.W_E"], case.params["embed.W_E"], rtol=1e-2)


CONFIG_CLASSES = (
    "transformer_lens.HookedTransformerConfig",
    "transformer_lens.config.hooked_transformer_config",
    "transformer_lens.config.transformer_bridge_config",
)


def save_with_config(torch, path, case, module, arrays, monkeypatch, **said):
    """A state dict beside a pickled TransformerLens config, as the library's grokking demo saves it."""
    name = "TransformerBridgeConfig" if "bridge" in module else "HookedTransformerConfig"
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    config_class = type(name, (), {"__module__": module, "__qualname__": name})
    setattr(sys.modules[module], name, config_class)
    config = config_class()
    config.__dict__ |= {"n_heads": H, "act_fn": "gelu", "attn_scale": np.float64(2), "dtype": torch.float32} | said
    torch.save({"model": tensors(torch, arrays), "config": config}, path)
    monkeypatch.undo()


@pytest.mark.parametrize("module", CONFIG_CLASSES)
def test_a_pickled_lens_config_is_read_without_its_code(torch, tmp_path, case, module, monkeypatch):
    save_with_config(torch, tmp_path / "demo.pth", case, module, bridged(case.params), monkeypatch)
    read = interop.load(tmp_path / "demo.pth")
    assert (read.cfg.n_heads, read.cfg.act) == (H, "gelu")
    assert interop.load(tmp_path / "demo.pth", act="relu").cfg.act == "relu"


@pytest.mark.parametrize(
    ("name", "value"),
    [("normalization_type", "LNPre"), ("positional_embedding_type", "shortformer"), ("act_fn", "gelu_new")],
)
def test_a_config_of_another_model_is_refused(torch, tmp_path, case, monkeypatch, name, value):
    path = tmp_path / "demo.pth"
    save_with_config(torch, path, case, CONFIG_CLASSES[0], case.params, monkeypatch, **{name: value})
    with pytest.raises(InputError, match=rf"demo.pth: config\.{name}.*{value}"):
        interop.load(path)


# --- TransformerLens itself -----------------------------------------------------------------------------------------


def lens_version():
    """(major, minor) of the installed transformer_lens; its packages warn while they are imported, so it is not."""
    if importlib.util.find_spec("transformer_lens") is None:
        return (0, 0)
    return tuple(int(part) for part in importlib.metadata.version("transformer_lens").split(".")[:2])


LENS_VERSION = lens_version()
needs_lens = pytest.mark.skipif(LENS_VERSION == (0, 0), reason="transformer_lens is not installed")
needs_bridge = pytest.mark.skipif(LENS_VERSION < (3, 9), reason="no transformer_lens from 3.9 on is installed")
TWO = ({}, {"n_layers": 2, "act": "gelu"})
# After what grokjax.export prints: the logits of every pair, and the state dict as the library saves it.
AFTER = """
import numpy
pairs = torch.arange({p} * {p})
with torch.no_grad():
    logits = model(torch.stack([pairs // {p}, pairs % {p}, torch.full_like(pairs, {p})], 1))[:, -1]
numpy.save({path!r} + ".npy", logits.numpy())
torch.save(model.state_dict(), {path!r} + ".again")
"""
# TransformerLens 4 has no HookedTransformer, but a converter for its files.
CONVERTED = """
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

config = TransformerBridgeConfig({config})
model = TransformerBridge.boot_native(config)
model.load_state_dict(convert_tl_checkpoint(torch.load({path!r}), config))
"""


def through_lens(recipes):
    """Runs recipes, each by (case, path), in a process of its own, and holds what comes out against the models."""
    code = [recipe + AFTER.format(p=case.cfg.p, path=str(path)) for (case, path), recipe in recipes]
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(code)], check=True, capture_output=True)
    for (case, path), _ in recipes:
        exact = slow.all_logits(case.params, case.cfg.act)
        np.testing.assert_allclose(np.load(f"{path}.npy"), exact, rtol=1e-5, atol=1e-5 * np.max(np.abs(exact)))
        equal(interop.load(f"{path}.again", n_heads=case.cfg.n_heads).params, case.params)


def exported(tmp_path, layout, template):
    """Two models, exported with what export prints."""
    found = []
    for shape in TWO:
        case, path = random_case(**SHAPE, **shape), tmp_path / f"{len(found)}.pth"
        interop.save_torch(case.params, case.cfg, path, layout)
        found.append(((case, path), export.recipe(template, case.cfg, path)))
    return found


@needs_lens
def test_what_is_for_hooked_transformer_gives_equal_logits(torch, tmp_path):
    through_lens(exported(tmp_path, layouts.LENS, export.HOOKED if LENS_VERSION < (4, 0) else CONVERTED))


@needs_bridge
def test_transformer_bridge_gives_equal_logits(torch, tmp_path):
    through_lens(exported(tmp_path, layouts.BRIDGE, export.BRIDGED))


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
    "nothing": ({}, r"no array pos_embed\.W_pos \[3 positions, d_model\]: its arrays are none"),
    "positions": (changed(W_pos=zeros(4, D)), r"W_pos has shape \[4, 12\], but \[3, 12\], \[3 positions, d_model\]"),
    "axes": (changed(W_E=zeros(8)), r"W_E has shape \[8\], but \[P \+ 1, d_model\] is expected"),
    "empty": (changed(W_pos=zeros(3, 0)), r"W_pos has shape \[3, 0\]"),
    "width": (changed(W_in=zeros(D, 9)), r"W_in has shape \[12, 9\], but \[12, 10\], \[d_model, d_mlp\], is expected"),
    "heads": (changed(W_K=zeros(2, D, E)), r"W_K has shape \[2, 12, 4\], but \[3, 12, 4\]"),
    "transposed": (changed(W_Q=zeros(H, E, D)), r"W_Q has shape \[3, 4, 12\], but \[3, 12, 4\]"),
    "d_head": (changed(W_Q=zeros(H, D, 5)), r"W_Q has shape \[3, 12, 5\], but \[3, 12, 4\]"),
    "indivisible": (changed(W_Q=zeros(5, D, E)), "d_model = 12, but it must be divisible by the number of heads, 5"),
    "logits": (changed(W_U=zeros(D, 6)), r"W_U has shape \[12, 6\], but \[12, 7\], \[d_model, P\], is expected"),
    "P is 2": (
        changed(W_E=zeros(3, D)),
        "W_E has 3 tokens, the last of them '=', so that P is 2, but it must be from 3",
    ),
    "nan": (changed(W_out=with_nan((M, D))), "W_out has 2 of its 120 numbers not finite"),
    "integers": (changed(b_in=np.zeros(M, int)), "b_in holds int64, but it must hold floating-point numbers"),
    "complex": (changed(b_in=np.zeros(M, complex)), "b_in holds complex128"),
    "stranger": (changed(W_gate=zeros(D, M)), "an array W_gate, which is no part of a model"),
    "LayerNorm": (changed(**{"blocks.0.ln1.w": zeros(D)}), r"blocks\.0\.ln1\.w, but this project's model has no Layer"),
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
        interop.from_arrays(arrays, "model.npz")
    assert str(caught.value).startswith("model.npz")
    assert str(caught.value).endswith(".")


def test_zero_biases_and_buffers_are_accepted():
    extra = {"b_Q": zeros(H, E), "b_U": zeros(P), "mask": np.zeros((0, 0), bool), ATTN + "IGNORE": np.array(-np.inf)}
    equal(interop.from_arrays(changed(**extra)).params, random_case(**SHAPE).params)


def test_the_bias_of_the_equals_sign_goes_with_its_column():
    params = random_case(**SHAPE).params
    b_U = zeros(P + 1)
    b_U[P] = 3
    equal(interop.from_arrays(released(params) | {"unembed.b_U": b_U}).params, params)


def test_unknown_activation(case):
    with pytest.raises(InputError, match="--act 'swish' is unknown: known are gelu, relu"):
        interop.from_arrays(case.params, act="swish")


# --- files that are bad ---------------------------------------------------------------------------------------------


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def bad_files(folder, case):
    """Bad files of every kind, each with what must be said of it."""
    good = folder / "good.npz"
    interop.save_npz(case.params, case.cfg, good)
    whole = good.read_bytes()
    np.save(folder / "single.npy", np.zeros(3))
    np.savez(folder / "pickled.npz", W_E=np.array([Trap(folder / "sprung"), 1], object))
    np.savez(folder / "none.npz")
    contents = {
        "cut.npz": whole[: len(whole) // 2],
        "empty.npz": b"",
        "text.npz": b"W_E = 3\n",
        "zip.npz": b"PK\x03\x04nothing",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {
        "cut.npz": "cannot be read: it is damaged or cut short",
        "empty.npz": "neither an npz file nor one of PyTorch's",
        "text.npz": "neither an npz file nor one of PyTorch's",
        "zip.npz": "cannot be read: it is damaged or cut short",
        "single.npy": "is a single array, but a model is many",
        "pickled.npz": "holds pickled objects, which are never loaded",
        "none.npz": "no array pos_embed.W_pos",
        "nowhere.npz": "is no file: name one, or a snapshot as workdir:run:step",
        "": "is a directory: name a file, or a run of a sweep as",
        "nowhere:3:100": "is no directory, but a sweep's is expected before ':3'",
        ":3": "holds no sweep",
        "x" * 5000: "is no file",
        "nul\0": "is no file",
    }


def test_bad_files_are_a_sentence(tmp_path, case):
    for name, sentence in bad_files(tmp_path, case).items():
        with pytest.raises(InputError) as caught:
            interop.load(f"{tmp_path}/{name}" if name[:1] != ":" else f"{tmp_path}{name}")
        assert sentence in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_may_not_be_read(tmp_path, case, monkeypatch):
    interop.save_npz(case.params, case.cfg, tmp_path / "model.npz")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"model\.npz cannot be read \(Permission denied\)"):
        interop.load(tmp_path / "model.npz")


def test_bad_torch_files_are_a_sentence(torch, tmp_path, case):
    state_dict = tensors(torch, case.params)
    contents = {
        "code": ({"model": state_dict, "hook": Trap(tmp_path / "sprung")}, "holds pickled code ("),
        "module": (torch.nn.Linear(2, 2), "which is never run: save a plain state dict, torch.save(model.state_dict()"),
        "list": ([state_dict], "holds a list, but a state dict is expected"),
        "tensor": (torch.zeros(3), "holds a Tensor, but a state dict is expected"),
        "curves": ({"train_losses": [1.0]}, "train_losses is a list, but a plain tensor is expected"),
        "model": ({"model": [1]}, "'model' is a list, but a state dict is expected"),
        "sparse": (state_dict | {"embed.W_E": torch.eye(3).to_sparse()}, "embed.W_E is a Tensor, but a plain tensor"),
        "nothing": ({}, "no array pos_embed.W_pos"),
    }
    for name, (content, sentence) in contents.items():
        for new in (True, False):
            torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new)
            with pytest.raises(InputError) as caught:
                interop.load(tmp_path / name)
            assert sentence in str(caught.value)
    with open(tmp_path / "plain.pkl", "wb") as file:
        pickle.dump(Trap(tmp_path / "sprung"), file, protocol=2)
    with pytest.raises(InputError, match=r"plain\.pkl (holds pickled code|cannot be read)"):
        interop.load(tmp_path / "plain.pkl")
    assert not (tmp_path / "sprung").exists()


def test_torch_is_asked_for_where_it_is_needed(torch, tmp_path, case, monkeypatch):
    interop.save_torch(case.params, case.cfg, tmp_path / "model.pth")
    interop.save_npz(case.params, case.cfg, tmp_path / "model.npz")
    monkeypatch.setitem(sys.modules, "torch", None)
    interop.load(tmp_path / "model.npz")
    for call in (lambda: interop.load(tmp_path / "model.pth"), lambda: interop.save_torch(case.params, case.cfg, "x")):
        with pytest.raises(InputError, match=r"PyTorch is not installed.*pip install 'grokjax\[torch\]'"):
            call()


FUZZ = settings(max_examples=150)


def fuzzed(data, whole):
    """The bytes of a file, cut short or with some bits turned."""
    content = bytearray(whole)
    for position in data.draw(st.lists(st.integers(0, 8 * len(whole) - 1), max_size=4), "bits to turn"):
        content[position // 8] ^= 1 << position % 8
    return bytes(
        content[: data.draw(st.integers(0, len(whole)), "length") if data.draw(st.booleans(), "cut") else None]
    )


def loads_or_says_why(path):
    sentence = "."
    try:
        read = interop.load(path)
    except InputError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    if sentence != ".":
        return
    assert {name: x.shape for name, x in read.params.items()} == model.shapes(read.cfg)
    assert all(np.all(np.isfinite(x)) for x in read.params.values())


@pytest.fixture(scope="module")
def whole_npz(tmp_path_factory):
    """A small model's file as bytes, compressed and not; and a place to write to."""
    folder = tmp_path_factory.mktemp("fuzz")
    case = random_case(3, d_model=2, n_heads=1, d_mlp=2)
    interop.save_npz(case.params, case.cfg, folder / "model.npz", case.train_pairs)
    np.savez(folder / "plain.npz", **bare(case.params))
    return [(folder / name).read_bytes() for name in ("model.npz", "plain.npz")], folder / "fuzzed"


@FUZZ
@given(data=st.data())
def test_damaged_npz_files_are_a_sentence(whole_npz, data):
    whole, path = whole_npz
    path.write_bytes(fuzzed(data, data.draw(st.sampled_from(whole))))
    loads_or_says_why(path)


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_torch_files_are_a_sentence(whole_torch, data):
    whole, path = whole_torch
    path.write_bytes(fuzzed(data, data.draw(st.sampled_from(whole))))
    loads_or_says_why(path)


@pytest.fixture(scope="module")
def whole_torch(tmp_path_factory):
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("fuzz")
    case = random_case(3, d_model=2, n_heads=1, d_mlp=2)
    for name, new in (("new.pth", True), ("old.pth", False)):
        torch.save(tensors(torch, case.params), folder / name, _use_new_zipfile_serialization=new)
    return [(folder / name).read_bytes() for name in ("new.pth", "old.pth")], folder / "fuzzed"


@FUZZ
@given(content=st.binary(max_size=200), head=st.sampled_from([b"", b"PK", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY"]))
def test_any_bytes_are_a_sentence(tmp_path_factory, content, head):
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(head + content)
    with pytest.raises(InputError):
        interop.load(path)


# --- grokjax.export -------------------------------------------------------------------------------------------------


@pytest.fixture
def run_export(tmp_path, case, capsys, monkeypatch):
    """The command in this process, with a model at model.npz."""
    monkeypatch.chdir(tmp_path)
    interop.save_npz(case.params, case.cfg, "model.npz", case.train_pairs)

    def run(*args):
        status = 0
        try:
            cli.guarded(export.main, args)
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_export_and_back(run_export, torch, case):
    for args in (("lens.pth",), ("bridge.pth", "--bridge"), ("arrays.npz",), ("arrays", "--npz")):
        status, out, err = run_export("model.npz", *args)
        assert (status, err) == (0, "")
        assert f"load('{args[0]}')" in out
        read = interop.load(args[0], n_heads=H)
        equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, case.train_pairs)
    status, _, _ = run_export("lens.pth", "again.pth", "--act=gelu")
    assert status == 0


def test_what_export_prints_describes_the_model(run_export, torch, case):
    _, out, _ = run_export("model.npz", "lens.pth", "--act=gelu")
    for part in ("n_layers=1", "d_vocab=8", "d_vocab_out=7", "n_ctx=3", "act_fn='gelu'", "normalization_type=None"):
        assert part in out
    compile(out, "recipe", "exec")


EXPORT_MISTAKES = {
    "no model": (["nowhere.npz", "out.npz"], "nowhere.npz is no file"),
    "no place": (["model.npz", "nowhere/out.npz"], "nowhere/out.npz cannot be written (No such file or directory)"),
    "exists": (["model.npz", "model.npz"], "model.npz exists: choose another name, or --overwrite"),
    "a directory": (["model.npz", "."], "exists: choose another name."),
    "both": (["model.npz", "out.npz", "--bridge"], "--bridge is for PyTorch files"),
    "heads": (["model.npz", "out.npz", "--heads=0"], "--heads is 0, but it must be 1 or more"),
    "act": (["model.npz", "out.npz", "--act=tanh"], "--act 'tanh' is unknown"),
    "arguments": (["model.npz"], "required: out"),
    "flag": (["model.npz", "out.npz", "--bridg3"], "--bridg3"),
}


@pytest.mark.parametrize("name", EXPORT_MISTAKES)
def test_export_mistakes_are_one_sentence(run_export, tmp_path, name):
    args, sentence = EXPORT_MISTAKES[name]
    before = sorted(tmp_path.iterdir())
    status, out, err = run_export(*args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert sorted(tmp_path.iterdir()) == before
