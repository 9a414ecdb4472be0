"""PyTorch files, TransformerLens's and the paper's: read into one model, written so that TransformerLens agrees."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import types

import numpy as np
import oracle
import pytest
from cases import random_case
from foreign import ATTN, SHAPE, D, E, H, P, bridged, equal, released, tensors

from grokjax import tasks
from grokjax.cli import export
from grokjax.errors import InputError
from grokjax.interp import files, formats
from grokjax.interp.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def case():
    return random_case(**SHAPE)


@pytest.mark.parametrize("format", [formats.LENS, formats.BRIDGE], ids=["lens", "bridge"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_there_and_back(torch, tmp_path, case, format, legacy):
    path = tmp_path / "model.pth"
    files.save_torch(case.params, case.cfg, path, format)
    state_dict = torch.load(path, weights_only=True)
    assert all(isinstance(x, torch.Tensor) for x in state_dict.values())
    if legacy:
        torch.save(state_dict, path, _use_new_zipfile_serialization=False)
    read = load_checkpoint(path, n_heads=H)
    assert read.cfg == case.cfg
    equal(read.params, case.params)


def test_hooked_transformers_buffers_are_written(torch, tmp_path, case):
    files.save_torch(case.params, case.cfg, tmp_path / "model.pth")
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
    read = load_checkpoint(tmp_path / "final.pth")
    equal(read.params, case.params)
    np.testing.assert_array_equal(read.train_pairs, tasks.train_pairs(P, 0.4, 3, "python"))
    assert (read.task, read.split_seed) == ("subtract", 3)
    assert read.split == "python:3:0.4, as the file's config says"
    assert read.format == "the paper's released code"


def test_a_split_beside_the_state_dict(torch, tmp_path, case):
    indices = np.array([5, 3, 40])
    for form in (torch.from_numpy(indices), indices.tolist()):
        content = {"model": tensors(torch, case.params), "train_indices": form, "test_losses": [1.0]}
        torch.save(content, tmp_path / "demo.pth")
        assert load_checkpoint(tmp_path / "demo.pth").train_pairs.tolist() == [3, 5, 40]


def test_half_precision(torch, tmp_path, case):
    half = {name: x.bfloat16() for name, x in tensors(torch, case.params).items()}
    torch.save(half, tmp_path / "half.pth")
    read = load_checkpoint(tmp_path / "half.pth").params
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
    read = load_checkpoint(tmp_path / "demo.pth")
    assert (read.cfg.n_heads, read.cfg.act) == (H, "gelu")
    assert load_checkpoint(tmp_path / "demo.pth", act="relu").cfg.act == "relu"


@pytest.mark.parametrize(
    ("name", "own", "value"),
    [
        ("normalization_type", None, "LNPre"),
        ("positional_embedding_type", "standard", "shortformer"),
        ("act_fn", "relu", "gelu_new"),
        ("attention_dir", "causal", "sideways"),
        ("use_attn_scale", True, False),
        ("scale_attn_by_inverse_layer_idx", False, True),
        ("parallel_attn_mlp", False, True),
    ],
)
def test_a_config_of_another_model_is_refused(torch, tmp_path, case, monkeypatch, name, own, value):
    path = tmp_path / "demo.pth"
    save_with_config(torch, path, case, CONFIG_CLASSES[0], case.params, monkeypatch, **{name: own})
    assert load_checkpoint(path).cfg.p == case.cfg.p
    save_with_config(torch, path, case, CONFIG_CLASSES[0], case.params, monkeypatch, **{name: value})
    with pytest.raises(InputError, match=rf"demo.pth: config\.{name}.*{value}"):
        load_checkpoint(path)


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
        exact = oracle.all_logits(case.params, case.cfg.act)
        np.testing.assert_allclose(np.load(f"{path}.npy"), exact, rtol=1e-5, atol=1e-5 * np.max(np.abs(exact)))
        equal(load_checkpoint(f"{path}.again", n_heads=case.cfg.n_heads).params, case.params)


def exported(tmp_path, format, template):
    """Two models, exported with what export prints."""
    found = []
    for shape in TWO:
        case, path = random_case(**SHAPE, **shape), tmp_path / f"{len(found)}.pth"
        files.save_torch(case.params, case.cfg, path, format)
        found.append(((case, path), export.recipe(template, case.cfg, path)))
    return found


@needs_lens
def test_what_is_for_hooked_transformer_gives_equal_logits(torch, tmp_path):
    through_lens(exported(tmp_path, formats.LENS, export.HOOKED if LENS_VERSION < (4, 0) else CONVERTED))


@needs_bridge
def test_transformer_bridge_gives_equal_logits(torch, tmp_path):
    through_lens(exported(tmp_path, formats.BRIDGE, export.BRIDGED))
