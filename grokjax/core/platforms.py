"""Code that a CPU or a GPU has for itself, chosen when a program is lowered for its devices, not by this process's own.

So a program for an accelerator is the same whether a machine with one compiles it, or one without.
"""

from collections.abc import Callable

import jax


def choose(on_cpu: Callable, elsewhere: Callable, *args):
    """Calls one of two functions of the same arrays: `on_cpu` where the program is for a CPU, else `elsewhere`.

    Both are traced, so neither may keep what it makes of the arguments. The compiler sees only the one that is chosen.
    """
    return jax.lax.platform_dependent(*args, cpu=on_cpu, default=elsewhere)


def choose_gpu(on_gpu: Callable, elsewhere: Callable, *args):
    """Calls one of two functions as `choose` does: `on_gpu` where the program is for a GPU, else `elsewhere`."""
    return jax.lax.platform_dependent(*args, cuda=on_gpu, rocm=on_gpu, default=elsewhere)
