"""Every field of an experiment: its default, what it means, what it must be, and whether sweeping it recompiles.

`default()` gives the paper's mainline (Nanda et al. 2023, §3 and App. A), `small()` the same at a size for two CPU
cores; an experiment file changes what differs:

    from grokjax import config

    def get_config(arg=""):
        c = config.default()
        c.sweep.weight_decay = (0.0, 1.0)
        c.sweep.seed = tuple(range(5))
        return c
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from grokjax.errors import InputError, shown, unknown

TRACED, STATIC, SETTING = "traced", "static", "setting"
PRECISIONS = ("float32", "tensorfloat32", "bfloat16_6x", "bfloat16_3x", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Field:
    """One leaf of the config.

    Attributes:
      default: its value in the mainline; None means "may be left unset" and `type` tells what it else is.
      doc: what it means, with the unit.
      kind: TRACED fields can be swept without recompiling, STATIC ones form a compiled group per value, a SETTING
        belongs to the whole sweep.
      type: of a value.
      right: what a value must satisfy, in words, and the test of it.
      on: of a field whose default leaves something out of the program, a value that puts it in: runs with the default
        and runs with any other value are compiled apart, and those of other values together.
    """

    default: Any
    doc: str
    kind: str
    type: type
    right: str = ""
    test: Callable[[Any], bool] = lambda value: True
    on: Any = None


def _positive(default, doc, kind=TRACED, type=float):
    return Field(default, doc, kind, type, "greater than 0", lambda v: v > 0)


def _not_negative(default, doc, kind=TRACED, type=float):
    return Field(default, doc, kind, type, "0 or more", lambda v: v >= 0)


def _strength(doc):
    return dataclasses.replace(_not_negative(0.0, doc), on=1.0)


def _size(default, doc, most):
    return Field(default, doc, STATIC, int, f"from 1 to {most:,}", lambda v: 1 <= v <= most)


def _fraction(default, doc, kind):
    return Field(default, doc, kind, float, "in (0, 1)", lambda v: 0 < v < 1)


def _share(default, doc):
    return Field(default, doc, TRACED, float, "in [0, 1]", lambda v: 0 <= v <= 1)


def _beta(default, doc):
    return Field(default, doc, TRACED, float, "in [0, 1)", lambda v: 0 <= v < 1)


def _seed(default, doc):
    return Field(default, doc, TRACED, int, "in [0, 2³²)", lambda v: 0 <= v < 2**32)


def _name(default, doc, kind=STATIC, known=()):
    return Field(default, doc, kind, str, f"one of {', '.join(known)}", lambda v: not known or v in known)


FIELDS: dict[str, Field] = {
    "task": _name(
        "add",
        "binary operation modulo P: add, subtract, multiply, divide, quadratic, random, a polynomial such as "
        '"a^2 + a*b", or your own; or group',
    ),
    "group": _name(
        None, 'of task group: Z_n, D_n (order 2n), S_n, A_n, Q_8, a product "S_3 x Z_7", or a Cayley table, "mine.npy"'
    ),
    "p": Field(
        113,
        "the modulus P; there are P² pairs. Of task group it is the order, and need not be set",
        STATIC,
        int,
        "from 3 to 9999",
        lambda v: 3 <= v < 10_000,
    ),
    "train_fraction": _fraction(0.3, "share of all pairs to train on; the others are test pairs", STATIC),
    "split": _name(
        "jax", 'how training pairs are drawn: "jax", or "python" for the paper\'s code', STATIC, ("jax", "python")
    ),
    "batch_size": _not_negative(
        0,
        "training pairs of a step, from an order of them all that each epoch draws anew, the last batch being what is"
        " left; 0 = all pairs",
        STATIC,
        int,
    ),
    "seed": _seed(0, "initial weights, and the split unless split_seed is set"),
    "split_seed": _seed(None, "which pairs are trained on (and the answers of task random, and label noise)"),
    "label_noise": Field(
        0.0,
        "share of the training answers drawn anew from all P, by the split's seed",
        TRACED,
        float,
        "in [0, 1]",
        lambda v: 0 <= v <= 1,
        on=0.5,
    ),
    "start_from": dataclasses.replace(
        _name(None, 'a run of another sweep to take the initial weights from, "results/small:3", or its ":STEP"'),
        on="results/small:3",
    ),
    "init_scale": _positive(1.0, "factor on every initial weight"),
    "model.architecture": _name("transformer", "transformer, or mlp on embedded pairs, without biases; or your own"),
    "model.inputs": _name(
        "concatenated",
        "of an mlp: the embeddings of a and b, side by side or summed, or one-hot tokens without embeddings",
        STATIC,
        ("concatenated", "summed", "one_hot"),
    ),
    "model.embeddings": _name(
        None,
        "one embedding for a and another for b, as an mlp has unless this is set, or shared, as a transformer has",
        STATIC,
        ("separate", "shared"),
    ),
    "model.n_layers": _size(1, "transformer blocks, or hidden layers of an mlp", 100),
    "model.d_model": _size(128, "width of the residual stream", 100_000),
    "model.n_heads": _size(4, "attention heads per block; must divide d_model unless d_head is set", 10_000),
    "model.d_head": _size(None, "width of an attention head; d_model / n_heads unless it is set", 100_000),
    "model.d_mlp": _size(512, "neurons per block", 1_000_000),
    "model.act": _name("relu", "the neurons' nonlinearity; quadratic is x²", STATIC, ("relu", "gelu", "quadratic")),
    "model.n_ctx": Field(
        3,
        'tokens that a transformer reads: 3 for a, b, "=", or 2 for a, b; the answer is read above the last',
        STATIC,
        int,
        "3 or 2",
        lambda v: v in (2, 3),
    ),
    "model.attention_rate": Field(
        1.0,
        "share α of softmax in attention, the rest being 1 for every position: 0 is uniform (Zhong et al. 2023)",
        TRACED,
        float,
        "in [0, 1]",
        lambda v: 0 <= v <= 1,
        on=0.5,
    ),
    "model.attention_dir": _name(
        "causal", "whether a position sees those before it alone", STATIC, ("causal", "bidirectional")
    ),
    "model.normalization_type": _name(
        None, "LN for LayerNorm before attention, MLP and unembedding of a transformer", STATIC, ("LN",)
    ),
    "model.unembed": _name(
        "own", "of a transformer: W_U of its own, or tied to W_E of the P residues", STATIC, ("own", "tied")
    ),
    "model.dropout": Field(
        0.0,
        "share of what a block's MLP adds, or of an mlp's neurons, that a training step leaves out",
        TRACED,
        float,
        "in [0, 1)",
        lambda v: 0 <= v < 1,
        on=0.5,
    ),
    "loss": _name(
        "cross_entropy",
        "what is trained on: cross_entropy (exact), cross_entropy_float32, cross_entropy_bfloat16 or "
        "cross_entropy_float16 (the usual log-softmax, rounded so), stablemax, mse (on one-hot answers), or your own",
    ),
    "optimizer": _name(
        "adamw",
        "adamw; adam and sgd (momentum beta1), whose decay is added to the gradient; muon for hidden matrices and "
        "adamw for the rest; or your own",
    ),
    "gradient_transform": _name(
        "none",
        "of the gradient before the optimizer: grokfast (EMA filter), orthograd (⊥Grad), or none",
        known=("none", "grokfast", "orthograd"),
    ),
    "grokfast_alpha": _beta(0.98, "of grokfast: decay of the mean gradient"),
    "grokfast_lamb": _not_negative(2.0, "of grokfast: factor on the mean gradient, which is added to the gradient"),
    "l1": _strength("penalty added to the loss, l1 times the sum of all absolute weights"),
    "l2": _strength("penalty added to the loss, l2 times half the sum of all squared weights"),
    "decay_to": _name(
        "zero", "what weight_decay is towards: zero, or init, the weights begun with", known=("zero", "init")
    ),
    "norm_constraint": _name(
        "none",
        "on all weights together: none, or init, scaled after each step to the norm of the initial ones",
        known=("none", "init"),
    ),
    "learning_rate": _not_negative(1e-3, "step size after warm-up"),
    "weight_decay": _not_negative(
        1.0, "decay λ of every parameter, multiplied by the learning rate; decoupled but for adam and sgd"
    ),
    "beta1": _beta(0.9, "decay of the mean gradient"),
    "beta2": _beta(0.98, "decay of the mean squared gradient"),
    "muon_beta": _beta(0.95, "of muon: momentum of the matrices"),
    "muon_learning_rate": _not_negative(0.02, "of muon: step size of the matrices after warm-up"),
    "eps": _positive(1e-8, "added to the root of the mean squared gradient"),
    "warmup_steps": _not_negative(10, "steps over which the learning rate rises from 0", TRACED, int),
    "schedule": _name(
        "constant",
        "of the learning rate after warm-up: constant, or cosine or linear down to schedule_end at the last step",
        known=("constant", "cosine", "linear"),
    ),
    "schedule_end": _share(0.0, "of schedule: share of the learning rate that it ends at"),
    "steps": Field(
        40_000,
        "steps per run (the paper's epochs, where batch_size is 0)",
        TRACED,
        int,
        "in [1, 2³¹)",
        lambda v: 1 <= v < 2**31,
    ),
    "stop_loss": _not_negative(
        0.0, "end a run early once its test loss is below this, in nats, for stop_evals evaluations; 0 = never"
    ),
    "stop_evals": _positive(3, "evaluations in a row below stop_loss that end a run", TRACED, int),
    "eval_every": _positive(100, "steps between evaluations, which are rows of the metrics table", STATIC, int),
    "measures": Field(("paper",), "groups of measures to log beside the losses", SETTING, tuple),
    "key_rule": _name(
        "W_L",
        "what makes a frequency key: its norm in W_L or in W_E, neurons that it explains, or its share of the logits",
        SETTING,
        ("W_L", "W_E", "neurons", "logits"),
    ),
    "key_threshold": _fraction(
        0.25, "for key_rule W_L and W_E: a frequency is key if its norm is above this fraction of the largest", SETTING
    ),
    "snapshot_every": _positive(
        1_000, "steps between snapshots of the parameters, to replay with final keys", SETTING, int
    ),
    "slow_every": _positive(1_000, "steps between evaluations of slow groups of measures", SETTING, int),
    "checkpoint_every_minutes": _positive(5.0, "minutes between checkpoints to resume from", SETTING),
    "checkpoint_every_steps": _not_negative(
        0, "population steps between checkpoints as well; 0 = by time only", SETTING, int
    ),
    "keep_final_state": Field(
        0,
        "1 keeps the final state of every run, optimizer included, from which --extend trains it longer; 0 does not",
        SETTING,
        int,
        "0 or 1",
        lambda v: v in (0, 1),
    ),
    "slots": _not_negative(0, "runs in training side by side per device; 0 = choose", SETTING, int),
    "precision": _name(
        "float32", "of matrix products; a CPU emulates those it does not have, in training steps only", known=PRECISIONS
    ),
}
# Fields of config.model that one architecture has.
TRANSFORMER_ONLY = ("n_ctx", "d_head", "attention_rate", "attention_dir", "normalization_type", "unembed")
MLP_ONLY = ("inputs",)
SMALL_P = 53
OWN_P = (FIELDS["p"].default, SMALL_P)  # what a config has that nobody has set p in
MOST_VALUES = 100_000  # of an axis, and runs of a sweep
# Settings that do not change any number in the results, so that a resumed sweep may change them.
OPERATIONAL = ("checkpoint_every_minutes", "checkpoint_every_steps", "keep_final_state")


class Mistake(InputError, AttributeError, TypeError):
    """A field that a config does not have, or a value that a field cannot have; told where it is set."""


class Config(ml_collections.ConfigDict):
    """A ConfigDict that tells in a sentence which field is unknown, and which may be meant; or what it must be."""

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> "Config":
        """Makes one of nested mappings."""
        made = cls()
        for name, value in tree.items():
            made[name] = cls.of(value) if isinstance(value, Mapping) else value
        return made

    def __setitem__(self, name, value):
        if self.is_locked and name not in self:
            raise Mistake(str(unknown("config field", name, self.keys())))
        kind = self.get_type(name) if name in self else None
        if kind is tuple:
            listed_ = listed(value)
            value = value if listed_ is None else listed_
        elif kind is int:
            value = whole(value)
        elif kind in (float, str):
            value = scalar(value)
        try:
            super().__setitem__(name, value)
        except TypeError:
            raise Mistake(_not_right(name, value, kind)) from None

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            raise Mistake(str(unknown("config field", name, self.keys()))) from None


def _not_right(name: str, value: Any, kind: Any) -> str:
    """Says what a field, or an axis, must be that a value of another type was given for."""
    path = next((path for path in FIELDS if path.rpartition(".")[2] == name), name)
    if path not in FIELDS or kind not in (tuple, FIELDS[path].type):
        return f"config.{path} is {shown(value)}, but it holds fields: set those."
    is_axis = kind is not FIELDS[path].type
    such_as = f"{' of values' * is_axis}, such as ({shown(value)},)" if kind is tuple else ""
    return f"config.{'sweep.' * is_axis}{path} is {shown(value)}, but it must be {ARTICLE[kind]}{such_as}."


def scalar(value: Any) -> Any:
    """A NumPy or JAX number as Python's; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def whole(value: Any) -> Any:
    """A number such as 2e4 as an integer, since people write them so; anything else as it is."""
    value = scalar(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def listed(values: Any) -> tuple | None:
    """The values of an axis as a tuple: of a tuple, list, range, array of numbers or names, or generator.

    Returns:
      At most one more than `MOST_VALUES`; None where it is none of these.
    """
    if getattr(values, "shape", ()) != () and hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, tuple | list | range | Iterator):
        return None
    return tuple(map(scalar, itertools.islice(values, MOST_VALUES + 1)))


def default() -> ml_collections.ConfigDict:
    """The mainline as a locked ConfigDict, with an empty `sweep` that has a place for every field one can sweep.

    Example:
      >>> c = default()
      >>> c.sweep.weight_decay, c.sweep.seed = (0.0, 1.0), (0, 1, 2)
      >>> c.p, c.steps
      (113, 40000)
    """
    tree: dict[str, Any] = {}
    sweep: dict[str, Any] = {}
    for path, field in FIELDS.items():
        _put(tree, path, config_dict.placeholder(field.type) if field.default is None else field.default)
        if field.kind != SETTING:
            _put(sweep, path, config_dict.placeholder(tuple))
    tree["sweep"] = sweep
    return Config.of(tree).lock()


def small() -> ml_collections.ConfigDict:
    """The mainline for two CPU cores: P = 53, half of the pairs, half the width, 2 500 larger steps.

    Example:
      >>> c = small()
      >>> c.task = "subtract"
      >>> c.task
      'subtract'
    """
    c = default()
    c.p = SMALL_P
    c.train_fraction = 0.5  # of 40 %, some draws are not grokked within 5 000 steps at any λ; of half, all are
    c.model.d_model = 64
    c.model.d_mlp = 256
    c.learning_rate = 3e-3
    c.steps = 2_500
    c.eval_every = 50
    c.snapshot_every = 250
    return c


def _put(tree, path, value):
    *parents, leaf = path.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
    tree[leaf] = value


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config's fields by dotted path, without the sweep; lists become tuples, whole numbers floats where asked.

    Raises:
      InputError: a field is missing, unknown or of the wrong type.
    """
    given = leaves(config, "the config", but="sweep")
    for path in given:
        if path not in FIELDS:
            raise unknown("config field", path, FIELDS)
    for path in FIELDS:
        if path not in given:
            raise InputError(f"config.{path} is missing: start from grokjax.config.default().")
    return {path: coerce(path, value) for path, value in given.items()}


def leaves(tree, label: str, but: str | None = None) -> dict[str, Any]:
    """The leaves of a nested mapping by dotted path.

    Args:
      tree: the mapping.
      label: what to call it in the message.
      but: the name of an entry to leave out.

    Raises:
      InputError: it cannot be read.
    """
    try:
        return _leaves({name: value for name, value in tree.items() if name != but}, "")
    except Exception as error:  # a mapping of any kind, nested however deep
        raise InputError(f"{label} cannot be read ({type(error).__name__}: {error}).") from error


def _leaves(tree, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in dict(tree.items()).items():
        path = f"{prefix}{name}"
        found |= _leaves(value, path + ".") if hasattr(value, "items") else {path: value}
    return found


def coerce(path: str, value: Any, label: str | None = None):
    """The value as the field's type, checked on its own.

    Args:
      path: the field.
      value: the value given.
      label: what to call it in the message, by default "config.<path>".

    Raises:
      InputError: wrong type, not finite, or outside the field's range.
    """
    field, label = FIELDS[path], label or f"config.{path}"
    if value is None and field.default is None:
        return None
    value = scalar(value)
    if field.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    if field.type is tuple and isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, field.type) or isinstance(value, bool):
        raise InputError(f"{label} is {shown(value)}, but it must be {ARTICLE[field.type]}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{label} is {value}, but it must be finite.")
    if not field.test(value):
        raise InputError(f"{label} is {shown(value)}, but it must be {field.right}.")
    if isinstance(value, int) and value >= 2**31 and not path.endswith("seed"):
        raise InputError(f"{label} is {shown(value)}, but it must be less than 2³¹.")
    if isinstance(value, float) and field.kind == TRACED and abs(value) > MOST_FLOAT:
        raise InputError(f"{label} is {value}, but it must be at most {MOST_FLOAT}, as float32 holds it.")
    return value


MOST_FLOAT = 3.4e38
ARTICLE = {int: "an integer", float: "a number", str: "a string", tuple: "a tuple"}
