"""How low may the precision of matrix products be? Time to grok and the losses reached, in five precisions.

    python launch.py --config=experiments/precision.py --workdir=results/precision

trains the paper's model with λ = 1 and 16 seeds in each precision, for an accelerator. With

    python launch.py --config=experiments/precision.py:small --workdir=results/precision_small

a model of P = 53 does the same in a quarter of an hour on two CPU cores, which emulate the products they do not have;
without the two emulations by several bfloat16 products, of 16 and 24 bits. docs/precision.md says what came out.

What the device lacks is left out: a TPU has no tensorfloat32.
"""

import sys

from grokjax import config
from grokjax.core import devices, precision
from grokjax.errors import unknown


def get_config(arg: str = ""):
    """The study's config; `arg` is "" or "small"."""
    if arg not in ("", "small"):
        raise unknown("variant of experiments/precision.py", arg, ["small"])
    c = config.small() if arg == "small" else config.default()
    c.measures = ("paper", "stability")
    c.sweep.precision = config.PRECISIONS
    c.sweep.seed = tuple(range(16))
    left_out = precision.lacking(devices.awaited())
    if arg == "small":
        c.steps = 2_000
        c.snapshot_every = 2_000
        c.sweep.precision = ("float32", "tensorfloat32", "bfloat16")
    if left_out:
        print(f"note: without {', '.join(left_out)}, which this device does not have.", file=sys.stderr)
        c.sweep.precision = tuple(name for name in c.sweep.precision if name not in left_out)
    return c
