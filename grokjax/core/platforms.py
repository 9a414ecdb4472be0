"""Code that a CPU has for itself, chosen when a program is lowered for its devices, not by what this process runs on.

So a program for an accelerator is the same whether a machine with one compiles it, or one without.
"""

from collections.abc import Callable

import jax


def choose(on_cpu: Callable, elsewhere: Callable, *args):
    """Calls one of two functions of the same arrays: `on_cpu` where the program is for a CPU, else `elsewhere`.

    Both are traced, so neither may keep what it makes of the arguments. The compiler sees only the one that is chosen.
    """
    return jax.lax.platform_dependent(*args, cpu=on_cpu, default=elsewhere)
