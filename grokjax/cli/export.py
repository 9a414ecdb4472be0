"""Writes a trained model for TransformerLens, or as plain arrays.

    grokjax export results/small:3:40000 model.pth           # HookedTransformer's state dict
    grokjax export results/small:3:40000 model.pth --bridge  # TransformerBridge's
    grokjax export results/small:3:40000 model.safetensors  # the state dict as safetensors; --bridge too
    grokjax export released.pth model.npz                    # arrays by name, with the split if it is known

What it prints is the Python that loads the file.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from grokjax.cli import model, terminal
from grokjax.errors import InputError, one_line

HOOKED = """\
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

model = HookedTransformer(HookedTransformerConfig({config}))
model.load_state_dict({load})
logits = model(torch.tensor([{tokens}]))[:, -1]  # {said}; HookedTransformer ends with TransformerLens 3"""
BRIDGED = """\
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

model = TransformerBridge.boot_native(TransformerBridgeConfig({config}))
model.load_state_dict({load})
logits = model(torch.tensor([{tokens}]))[:, -1]  # {said}; from TransformerLens 3.9 on"""
MLP = """\
import torch

w = {load}
a, b = 1, 2
x = {x}
{layers}
logits = x @ w["unembed.W_U"]"""
STATE = """\
import torch

weights = {load}  # TransformerLens has no {lacking}; grokjax.load_checkpoint reads the file, too"""
SAFE = ".safetensors"
PLAIN = """\
import numpy as np

arrays = dict(np.load({path!r}))"""


def recipe(template: str, cfg, path: str | Path) -> str:
    """Python that loads the file at `path`, which holds a model of `cfg`, from one of the templates above."""
    same = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx")
    given = {name: getattr(cfg, name) for name in same}
    given |= {"act_fn": cfg.act, "normalization_type": cfg.normalization_type}
    if cfg.attention_dir != "causal":
        given["attention_dir"] = cfg.attention_dir
    first_b = cfg.p if cfg.embeddings == "separate" else 0
    tokens = [1, first_b + 2, first_b + cfg.p][: cfg.n_ctx]
    said = 'a, b, "="' if cfg.has_equals else "a, b"
    config = ", ".join(f"{name}={value!r}" for name, value in given.items())
    load = f"torch.load({str(path)!r}, weights_only=True)"
    if cfg.is_mlp and template != PLAIN:
        template = MLP
    elif template != PLAIN and lacking(cfg):
        template = STATE
    if str(path).endswith(SAFE):
        load = f"load_file({str(path)!r})"
        template = f"from safetensors.torch import load_file\n{template}"
    more = _mlp(cfg) if cfg.is_mlp else {"lacking": lacking(cfg)}
    return template.format(config=config, path=str(path), p=cfg.p, load=load, tokens=tokens, said=said, **more)


def lacking(cfg) -> str:
    """What of a model TransformerLens has not, in words; "" for nothing."""
    rate = f"attention rate of {cfg.attention_rate:g}" if cfg.has_rate else ""
    return " and ".join(filter(None, [rate, "quadratic neurons" if cfg.act == "quadratic" else ""]))


def _mlp(cfg) -> dict[str, str]:
    """What the template `MLP` says of a model."""
    second = "embed_b" if cfg.embeddings == "separate" else "embed"
    rows: tuple[str, ...] = 'w["embed.W_E"][a]', f'w["{second}.W_E"][b]'
    act = {"relu": "torch.relu", "gelu": "torch.nn.functional.gelu", "quadratic": "torch.square"}[cfg.act]
    layers = [f'x = {act}(x @ w["blocks.{layer}.mlp.W_in"])' for layer in range(cfg.n_layers)]
    if cfg.inputs == "one_hot":
        rows = tuple(f"torch.eye({cfg.p})[{token}]" for token in "ab")
    x = " + ".join(rows) if cfg.inputs == "summed" else f"torch.cat([{', '.join(rows)}])"
    return {"x": x, "layers": "\n".join(layers)}


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("export", __doc__)
    model.add_model(parser)
    parser.add_argument("out", help="file to write: .npz for plain arrays, .safetensors, or else PyTorch's")
    parser.add_argument("--npz", action="store_true", help="write plain arrays, whatever the name")
    parser.add_argument("--bridge", action="store_true", help="write for TransformerBridge, not for HookedTransformer")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    args = parser.parse_args(argv)

    from grokjax.interp import files
    from grokjax.interp.formats import BRIDGE, LENS
    from grokjax.interp.subject import task_of
    from grokjax.store.files import path as path_of

    path, plain = path_of(args.out), args.npz or args.out.endswith(".npz")
    if plain and args.bridge:
        raise InputError("--bridge is for PyTorch files, but plain arrays are asked for: leave out one of the two.")
    if path.is_dir() or (path.exists() and not args.overwrite):
        raise InputError(f"{path} exists: choose another name{'' if path.is_dir() else ', or --overwrite'}.")
    checkpoint = model.load(args)
    if checkpoint.cfg.is_own:
        raise InputError(
            f"{checkpoint.source} is of the family '{checkpoint.cfg.architecture}', which no other tool reads: take "
            "its arrays from grokjax.open(DIR).params(RUN)."
        )
    if args.bridge and checkpoint.cfg.is_mlp:
        raise InputError(f"{checkpoint.source} is an MLP, of which TransformerLens has none: leave out --bridge.")
    if args.bridge and (lacks := lacking(checkpoint.cfg)):
        raise InputError(f"{checkpoint.source} has {lacks}, which TransformerLens has not: leave out --bridge.")
    if args.group is not None:
        checkpoint = dataclasses.replace(checkpoint, task=task_of(checkpoint, model.task(args)).name)
    what, record = (checkpoint.params, checkpoint.cfg, path), checkpoint.record()
    with terminal.busy(f"writing {path}"):
        if plain:
            beside = {name: value for name, value in record.items() if name != "train_indices"}
            files.save_npz(*what, checkpoint.train_pairs, beside)
        else:
            save = files.save_safetensors if args.out.endswith(SAFE) else files.save_torch
            save(*what, BRIDGE if args.bridge else LENS, record)
    for note in checkpoint.notes:
        print(f"note: {one_line(note)}.", file=sys.stderr)
    terminal.written(path, beside=True)
    terminal.say(recipe(PLAIN if plain else BRIDGED if args.bridge else HOOKED, checkpoint.cfg, path))
