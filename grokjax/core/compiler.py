"""What XLA is told beside the user's XLA_FLAGS, so that a run has the same bits in every process.

On a GPU, XLA times several kernels for a product or a fusion and takes the fastest, which may be another one in the
next process, and with it other bits; and some of its kernels add in whatever order their threads come. The option
`xla_gpu_deterministic_ops` rules out both. It goes with the programs of training and evaluation, not into XLA_FLAGS, so
that it holds however far JAX has started and changes nothing for other programs of the process.
"""

import os
from typing import Any

ON_GPU = {"xla_gpu_deterministic_ops": True}
# Who has a say in any of these decides for all: what was asked for is what happens.
USERS = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops", "autotune")


def options(platform: str) -> dict[str, Any]:
    """Options for `jax.jit` of a program whose bits count.

    Args:
      platform: of the devices that it is for, as JAX names it.

    Returns:
      By XLA's names; empty where XLA_FLAGS says how deterministic a GPU is to be, and on other devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if platform not in ("gpu", "cuda", "rocm") or any(name in flags for name in USERS):
        return {}
    return dict(ON_GPU)
