"""A small model as other people's checkpoints hold it: each layout, written out by hand."""

import numpy as np

P, D, H, E, M = 7, 12, 3, 4, 10
SHAPE = {"p": P, "d_model": D, "n_heads": H, "d_mlp": M}
ATTN, MLP = "blocks.0.attn.", "blocks.0.mlp."


def equal(a, b):
    """Parameters, bit for bit and in one order of axes."""
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        assert a[name].dtype == b[name].dtype, name


def bare(params):
    """As an npz file of one layer has them, and the reference models."""
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


def tensors(torch, arrays):
    return {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
