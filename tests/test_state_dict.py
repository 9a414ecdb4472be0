"""What files hold: wrappers, prefixes, aliases, absent biases; models of other architectures are named."""

import collections

import numpy as np
import pytest
from cases import random_case
from foreign import MLP, SHAPE, D, H, M, P, bridged, equal, released, tensors

from grokjax.errors import InputError
from grokjax.interp import files, formats
from grokjax.interp.checkpoint import from_arrays, load_checkpoint
from grokjax.interp.state_dict import unwrap

WRAPPERS = {
    "net": lambda state: {"net": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state},
    "lightning": lambda state: {
        "epoch": 3,
        "state_dict": {f"model.{name}": x for name, x in state.items()},
        "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"act_fn": "gelu"},
    },
    "nested": lambda state: {"model": {"state_dict": state}},
    "an unknown name": lambda state: {"ema_weights": state, "step": 4},
}


@pytest.fixture(scope="module")
def case():
    return random_case(**SHAPE)


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_opened(torch, tmp_path, case, name):
    torch.save(WRAPPERS[name](tensors(torch, case.params)), tmp_path / "model.pth")
    read = load_checkpoint(tmp_path / "model.pth")
    equal(read.params, case.params)
    assert read.cfg.act == ("gelu" if name == "lightning" else "relu")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("make", [dict, released, bridged])
def test_prefixes_that_all_names_share_are_dropped(case, prefix, make):
    read = from_arrays({prefix + name: x for name, x in make(case.params).items()}, n_heads=H)
    equal(read.params, case.params)
    assert any("was dropped from the names" in note for note in read.notes)


def test_aliases_are_dropped_and_said(case):
    W_E = case.params["embed.W_E"]
    read = from_arrays(case.params | {"x_embed": W_E.copy(), "y_embed": W_E.copy()})
    equal(read.params, case.params)
    assert {"x_embed was dropped: it equals another array", "y_embed was dropped: it equals another array"} <= {
        *read.notes
    }
    with pytest.raises(InputError, match=r"separate vocabularies, an embedding for each of embed\.W_E, x_embed"):
        from_arrays(case.params | {"x_embed": W_E + 1})


@pytest.mark.parametrize("make", [dict, released, bridged])
def test_absent_biases_are_zero(case, make):
    names = {MLP + "b_in", MLP + "b_out", MLP + "in.bias", MLP + "out.bias"}
    read = from_arrays({name: x for name, x in make(case.params).items() if name not in names}, n_heads=H)
    assert not read.params[MLP + "b_in"].any()
    assert read.params[MLP + "b_in"].shape == (M,)
    assert "b_in and b_out are not in the file and were taken for zero" in read.notes
    equal(read.params, case.params | {name: np.zeros_like(case.params[name]) for name in (MLP + "b_in", MLP + "b_out")})


def test_longer_contexts_lose_their_end(case):
    W_pos = case.params["pos_embed.W_pos"]
    read = from_arrays(case.params | {"pos_embed.W_pos": np.concatenate([W_pos, W_pos])})
    equal(read.params, case.params)
    assert "3 of W_pos's 6 positions were dropped: a, b, = are three" in read.notes


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("format", [formats.LENS, formats.BRIDGE])
def test_safetensors_in_any_precision(tmp_path, case, dtype, format):
    params = {name: x.astype(dtype) for name, x in case.params.items()}
    files.save_safetensors(params, case.cfg, tmp_path / "model.safetensors", format)
    equal(load_checkpoint(tmp_path / "model.safetensors", n_heads=H).params, params)


def test_bfloat16_becomes_float32(torch, tmp_path, case):
    save_file = pytest.importorskip("safetensors.torch").save_file
    half = {name: x.bfloat16() for name, x in tensors(torch, case.params).items()}
    save_file(half, tmp_path / "model.safetensors")
    read = load_checkpoint(tmp_path / "model.safetensors").params
    equal(read, {name: x.float().numpy() for name, x in half.items()})


def test_several_state_dicts_are_refused(case):
    with pytest.raises(InputError, match=r"holds several state dicts \('one', 'two'\): save the model's alone"):
        unwrap("a.pth", {"one": case.params, "two": case.params})


# --- other architectures --------------------------------------------------------------------------------------------


def pizza(params):
    """Two positions and no "=": as many tokens as logits."""
    found = released(params) | {"pos_embed.W_pos": params["pos_embed.W_pos"][:2]}
    return found | {"embed.W_E": found["embed.W_E"][:, :P], "unembed.W_U": found["unembed.W_U"][:, :P]}


def test_two_positions_are_named_with_the_right_p(case):
    with pytest.raises(InputError, match=r"two positions and no '=' \(P is 7\)"):
        from_arrays(pizza(case.params), "model.pt")


def test_an_attention_rate_is_named(case):
    with pytest.raises(InputError, match=r"attention rate, attn_coeff = 0.5 \(P is 7\)"):
        from_arrays(case.params, said={"attn_coeff": 0.5, "C": 7})
    assert from_arrays(case.params, said={"attn_coeff": 1.0}).cfg == case.cfg


def test_separate_vocabularies_are_named(case):
    arrays = {name: x for name, x in case.params.items() if name != "embed.W_E"}
    W_E = case.params["embed.W_E"]
    with pytest.raises(InputError, match=r"an embedding for each of embed_a.weight, embed_b.weight \(P is 7\)"):
        from_arrays(arrays | {"embed_a.weight": W_E, "embed_b.weight": W_E + 1})


def test_an_mlp_is_named(torch):
    net = torch.nn.Sequential(torch.nn.Linear(2 * P, M), torch.nn.ReLU(), torch.nn.Linear(M, P))
    with pytest.raises(InputError, match=r"an MLP alone, without attention \(P is 7\)"):
        from_arrays({name: x.numpy() for name, x in net.state_dict().items()})
    net = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(P, D), "fc": torch.nn.Linear(2 * D, P)})
    with pytest.raises(InputError, match=r"an MLP alone, without attention \(P is 7\)"):
        from_arrays({name: x.detach().numpy() for name, x in net.state_dict().items()})


# --- what exports say -----------------------------------------------------------------------------------------------


RECORD = {"version": "0.1.0", "act_fn": "gelu", "task": "subtract", "p": P, "n_heads": H, "split": "jax"}
RECORD |= {"split_seed": 3, "train_fraction": 0.4, "seed": 2, "step": 600, "train_indices": [1, 5, 40]}


@pytest.mark.parametrize("first", [b"PK", b"\x80\x02"])
def test_safetensors_whose_first_bytes_look_like_another_format(tmp_path, case, first):
    """They begin with the length of their header, which metadata may make any."""
    path, wanted = tmp_path / "model.safetensors", int.from_bytes(first, "little")
    record = {"act_fn": case.cfg.act, "version": "0.1.0"}
    files.save_safetensors(case.params, case.cfg, path, formats.LENS, record)
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    length = n + (wanted - n) % (1 << 16)
    path.write_bytes(length.to_bytes(8, "little") + data[8 : 8 + n].ljust(length) + data[8 + n :])
    assert path.read_bytes()[:2] == first
    read = load_checkpoint(path, n_heads=H)
    equal(read.params, case.params)
    assert read.origin["version"] == "0.1.0"


@pytest.mark.parametrize("name", ["model.npz", "model.pth", "model.safetensors", "bridge.pth", "bridge.safetensors"])
def test_an_export_says_what_it_is(request, tmp_path, case, name):
    path, format = tmp_path / name, formats.BRIDGE if "bridge" in name else formats.LENS
    if name.endswith("npz"):
        files.save_npz(
            case.params, case.cfg, path, np.array([1, 5, 40]), {k: RECORD[k] for k in RECORD if k != "train_indices"}
        )
    elif name.endswith("pth"):
        torch = request.getfixturevalue("torch")
        files.save_torch(case.params, case.cfg, path, format, RECORD)
        state_dict = torch.load(path, weights_only=True)
        assert isinstance(state_dict, collections.OrderedDict)
        assert all(isinstance(x, torch.Tensor) for x in state_dict.values())
    else:
        files.save_safetensors(case.params, case.cfg, path, format, RECORD)
    read = load_checkpoint(path)
    equal(read.params, case.params)
    assert (read.cfg.act, read.cfg.n_heads, read.task, read.split_seed) == ("gelu", H, "subtract", 3)
    assert read.train_pairs.tolist() == [1, 5, 40]
    assert read.split == "jax:3:0.4, as the file's record says"
    assert (read.origin["seed"], read.origin["step"]) == (2, 600)
    for flags, sentence in (({"act": "relu"}, "--act is relu, but"), ({"n_heads": 2}, "--heads is 2, but")):
        with pytest.raises(InputError, match=sentence):
            load_checkpoint(path, **flags)


@pytest.mark.parametrize(
    "odd",
    [{"act_fn": 3}, {"act_fn": "tanh"}, {"p": 8}, {"n_heads": 2}, {"split_seed": []}, {"train_indices": [[1], 2]}],
)
def test_a_damaged_record_is_a_sentence(tmp_path, case, odd):
    files.save_safetensors(case.params, case.cfg, tmp_path / "m.safetensors", formats.LENS, {"version": "0.1.0"} | odd)
    with pytest.raises(InputError):
        load_checkpoint(tmp_path / "m.safetensors")


def test_an_npz_that_was_loaded_by_hand_says_what_it_is():
    """As `dict(np.load(FILE))` gives an export: its record is an array of text among the others."""
    arrays = {"embed.W_E": np.zeros((3, 2)), "grokjax": np.array('{"p": 2, "act_fn": "gelu"}')}
    found = unwrap("the model", arrays)
    assert set(found.arrays) == {"embed.W_E"}
    assert found.said == {"p": 2, "act_fn": "gelu"}
    with pytest.raises(InputError, match=r"the entry 'grokjax' is .*, but the record of an export is expected"):
        unwrap("the model", arrays | {"grokjax": np.array("{")})
