"""What files hold: wrappers, prefixes, aliases, absent biases; models of other architectures are named."""

import collections
import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from cases import random_case
from foreign import ATTN, MLP, SHAPE, D, H, M, P, bridged, equal, released, tensors

from grokjax.core import model
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


def pizza(case):
    """As the code released with Zhong et al. 2023 has it: two positions, and as many logits as tokens."""
    return released(case.params) | {
        "embed.W_E": case.params["embed.W_E"].T,
        "unembed.W_U": np.pad(case.params["unembed.W_U"], ((0, 0), (0, case.cfg.d_vocab - P))),
        ATTN + "mask": np.tril(np.ones((2, 2), np.float32)),
    }


@pytest.mark.parametrize("embeddings", ["shared", "separate"])
def test_two_positions_and_their_attention_rate_load(embeddings):
    two = random_case(**SHAPE, n_ctx=2, embeddings=embeddings)
    said = {"attn_coeff": 0.5, "C": P, "attention_dir": "casual", "diff_vocab": embeddings == "separate"}
    read = from_arrays(pizza(two), "model.pt", said=said)
    expected = dataclasses.replace(two.cfg, attention_rate=0.5, attention_dir="bidirectional")
    assert read.cfg == expected
    equal(read.params, two.params)
    assert "attention is taken to go both ways, as in the code released with Zhong et al. 2023" in read.notes


def test_an_attention_rate_is_told_by_the_file_or_the_flag(case):
    assert from_arrays(case.params, said={"attn_coeff": 0.5}).cfg.attention_rate == 0.5
    assert from_arrays(case.params, rate=0.5).cfg.attention_rate == 0.5
    assert from_arrays(case.params, said={"attn_coeff": 1.0}).cfg == case.cfg
    with pytest.raises(InputError, match=r"--attention-rate is 0.3, but the model says that its attention rate is 0.5"):
        from_arrays(case.params, said={"attn_coeff": 0.5}, rate=0.3)
    with pytest.raises(InputError, match=r"--attention-rate is 3, but it must be in \[0, 1\]|--attention-rate is 3.0"):
        from_arrays(case.params, rate=3.0)


def test_a_config_beside_the_file_is_read(torch, tmp_path):
    two = random_case(**SHAPE, n_ctx=2)
    torch.save(tensors(torch, pizza(two)), tmp_path / "model_abc.pt")
    assert load_checkpoint(tmp_path / "model_abc.pt").cfg.attention_rate == 1
    (tmp_path / "config_abc.json").write_text(json.dumps({"attn_coeff": 0.25, "act_fn": "ReLU", "n_heads": H}))
    read = load_checkpoint(tmp_path / "model_abc.pt")
    assert (read.cfg.attention_rate, read.cfg.act, read.cfg.n_ctx) == (0.25, "relu", 2)
    (tmp_path / "config_abc.json").write_text("{")
    assert load_checkpoint(tmp_path / "model_abc.pt").cfg.attention_rate == 1


@pytest.mark.parametrize("shape", [{"normalization_type": "LN", "n_layers": 2}, {"d_head": 5}, {"unembed": "tied"}])
@pytest.mark.parametrize("format", [formats.LENS, formats.BRIDGE], ids=["lens", "bridge"])
def test_shapes_are_read_from_arrays(shape, format):
    there = random_case(**SHAPE, **shape)
    written = formats.write(there.params, there.cfg, format)
    read = from_arrays(written, n_heads=H)
    assert read.cfg == there.cfg
    equal(read.params, there.params)
    assert ("W_U equals W_E, so that they were taken for tied" in read.notes) == ("unembed" in shape)


def test_separate_vocabularies_are_named(case):
    arrays = {name: x for name, x in case.params.items() if name != "embed.W_E"}
    W_E = case.params["embed.W_E"]
    with pytest.raises(InputError, match=r"an embedding for each of embed_a.weight, embed_b.weight \(P is 7\)"):
        from_arrays(arrays | {"embed_a.weight": W_E, "embed_b.weight": W_E + 1})


def test_linear_layers_on_one_hot_pairs_load(torch):
    net = torch.nn.Sequential(torch.nn.Linear(2 * P, M), torch.nn.ReLU(), torch.nn.Linear(M, M), torch.nn.ReLU())
    net.append(torch.nn.Linear(M, P))
    read = from_arrays({name: x.numpy() for name, x in net.state_dict().items()})
    assert (read.cfg.p, read.cfg.inputs, read.cfg.n_layers, read.cfg.d_mlp) == (P, "one_hot", 2, M)
    pairs = np.arange(P * P)
    one_hot = np.concatenate([np.eye(P)[pairs // P], np.eye(P)[pairs % P]], 1)
    expected = net(torch.tensor(one_hot, dtype=torch.float32)).detach().numpy()
    params = {name: jnp.asarray(x) for name, x in read.params.items()}
    np.testing.assert_allclose(model.forward_grid(read.cfg, params)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["A", "C", "D", "X"])
def test_mlps_released_with_zhong_et_al_load(kind):
    """Their model types, by the definitions in their code: A sums embeddings, C sums hidden layers, D concatenates."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    embeddings = (
        {"embed1.weight": draw(P, D), "embed2.weight": draw(P, D)} if kind == "X" else {"embed.weight": draw(P, D)}
    )
    arrays = {"unembed.weight": draw(P, M), "l1.weight": draw(M, 2 * D if kind == "D" else D), "l1.bias": draw(M)}
    read = from_arrays(embeddings | arrays, said={"model_type": kind})
    first, second = ([*embeddings.values()] * 2)[:2]
    expected = np.zeros((P * P, P))
    for pair in range(P * P):
        a, b = first[pair // P], second[pair % P]
        x = np.concatenate([a, b]) if kind == "D" else a + b
        pre = arrays["l1.weight"] @ x + arrays["l1.bias"] * (2 if kind == "C" else 1)
        expected[pair] = arrays["unembed.weight"] @ np.maximum(pre, 0)
    params = {name: jnp.asarray(x) for name, x in read.params.items()}
    np.testing.assert_allclose(model.forward_grid(read.cfg, params)[0], expected, rtol=1e-3, atol=1e-4)


def test_an_mlp_of_unknown_names_is_named(torch):
    net = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(P, D), "fc": torch.nn.Linear(2 * D, P)})
    with pytest.raises(InputError, match=r"an MLP alone, without attention \(P is 7\), and none of those known"):
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
