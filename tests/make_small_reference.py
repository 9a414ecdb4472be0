"""Makes tests/data/small_reference.npz and .json: a small trained model and what every definition says of it.

    python tests/make_small_reference.py            # the listed values again, from the weights that are there
    python tests/make_small_reference.py --train    # new weights first; other machines train to other weights

The model adds modulo 53 and has just grokked: its losses span 1e-7 (train) to 1e-3 (test) and the circuit is still
forming. The values are computed in float64 by oracle.py and oracle_later.py, which share nothing with grokjax.
"""

import json
import sys
from pathlib import Path

import numpy as np
import oracle
import oracle_later

from grokjax import tasks
from grokjax.core.model import ModelConfig
from grokjax.core.problem import Inputs, Problem
from grokjax.interp import files
from grokjax.training import one_run

FILES = Path(__file__).parent / "data" / "small_reference"
P, FRACTION, SEED, STEPS = 53, 0.4, 0, 1_500
SHAPE = {"d_model": 32, "n_heads": 4, "d_mlp": 128}
LEARNING_RATE = 5e-3
LISTED = 12  # digits


def train() -> None:
    """Writes new weights, with the pairs they were trained on."""
    import jax
    from cases import hyperparameters

    problem = Problem(ModelConfig(P, **SHAPE), tasks.n_train(P, FRACTION))
    inputs = Inputs(
        seed=np.uint32(SEED),
        hyperparameters=hyperparameters(learning_rate=LEARNING_RATE),
        train_pairs=tasks.train_pairs(P, FRACTION, SEED),
        answers=tasks.answers("add", P),
    )
    state = jax.jit(lambda inputs: one_run.train(problem, one_run.init(problem, inputs), STEPS))(inputs)
    files.save_npz(state.params, problem.model, FILES.with_suffix(".npz"), inputs.train_pairs)


NAMES = {
    **{name: f"blocks.0.attn.{name}" for name in ("W_Q", "W_K", "W_V", "W_O")},
    **{name: f"blocks.0.mlp.{name}" for name in ("W_in", "b_in", "W_out", "b_out")},
    "W_E": "embed.W_E",
    "W_pos": "pos_embed.W_pos",
    "W_U": "unembed.W_U",
}


def values() -> dict[str, object]:
    """Every listed value, from the weights in the file."""
    arrays = dict(np.load(FILES.with_suffix(".npz")))
    params = {key: arrays[name].astype(np.float64) for name, key in NAMES.items()}
    train_pairs = np.flatnonzero(arrays["train_mask"])
    answers = np.array([(a + b) % P for a in range(P) for b in range(P)])
    logits, acts = oracle.forward(params, np.arange(P * P))
    keys = oracle.key_freqs(params)
    found = oracle.paper_measures(params, train_pairs, answers, keys=keys)
    freq, fve = oracle_later.neuron_fit(oracle_later.neuron_shares(acts))
    found |= {
        "key_freqs": keys,
        "trig_coef_all": oracle_later.trig_coef_all(logits),
        "fve_logits_trig": oracle_later.fve_logits_trig(logits, keys),
        "products_loss": oracle.mean_loss(oracle_later.products_logits(logits, keys), answers),
        "neuron_freq": freq,
        "neuron_fve": fve,
        "neurons_over_85": int(np.sum(fve > 0.85)),
    }
    return {name: _listed(value) for name, value in found.items()}


def _listed(value):
    if isinstance(value, int | list):
        return value
    value = np.asarray(value)
    return (
        value.tolist() if value.dtype.kind == "i" else np.vectorize(lambda x: float(f"{x:.{LISTED}g}"))(value).tolist()
    )


def main() -> None:
    if "--train" in sys.argv:
        train()
    entries = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in values().items()]
    FILES.with_suffix(".json").write_text("{\n" + ",\n".join(entries) + "\n}\n")


if __name__ == "__main__":
    main()
