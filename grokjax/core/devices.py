"""The machine's devices and memory: a CPU's cores as JAX devices, memory to use and memory to give back."""

import contextlib
import ctypes
import importlib.util
import os
from pathlib import Path

import jax

from grokjax.errors import InputError

MOST_DEVICES = 16  # each holds one run's evaluation in memory


def n_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(n_runs: int, recorded: int | None = None) -> int:
    """Makes as many devices of the CPU as there are cores and runs for them.

    A core that has a run to itself is faster than cores that share every product of one run. Call it before anything
    is computed; it does nothing afterwards, or where the user has said how many devices there are to be
    (JAX_NUM_CPU_DEVICES, or --xla_force_host_platform_device_count in XLA_FLAGS). Other platforms are not concerned.

    Args:
      n_runs: of the sweep.
      recorded: devices that the sweep has been trained on so far, which are made again, since bits depend on them.

    Returns:
      The number of devices that could not be made because JAX has started already; 0 where they have been made, or are
      not this function's business.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.config.values["jax_num_cpu_devices"] != -1 or "host_platform_device_count" in flags:
        return 0
    wanted = recorded or max(1, min(n_cores(), n_runs, MOST_DEVICES))
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # JAX has started already
        return wanted
    return 0


def awaited() -> str:
    """The platform that JAX will start on, as far as that shows without starting it; "" where it does not.

    Once JAX has started, a CPU's devices are no longer to be chosen (`spread`).
    """
    if wanted := jax.config.values["jax_platforms"]:
        return wanted.partition(",")[0]
    # A virtual machine with TPUs shows them as one or the other, by their generation.
    has_tpu = any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return "tpu" if has_tpu and importlib.util.find_spec("libtpu") else ""


def require() -> None:
    """Starts JAX on the devices that JAX_PLATFORMS asks for.

    Raises:
      InputError: this machine, or this JAX, has none of them.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # whatever a backend fails with, that of JAX itself among it
        wanted = jax.config.values["jax_platforms"]
        if not wanted:
            raise
        why = str(error).partition("\n")[0][:300]
        raise InputError(
            f"JAX_PLATFORMS={wanted} asks for a device that JAX does not find here{f' ({why})' if why else ''}: "
            "unset it to use what there is, or install JAX for that device, such as pip install 'jax[cuda12]'."
        ) from None


def give_back_memory() -> None:
    """Gives back what this process has freed.

    The GNU C library keeps what compilers and many short threads have freed: hundreds of MiB after the first
    compilation, and more by the hour. It takes a moment; other C libraries keep less and have no such function.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def memory(device: jax.Device) -> int:
    """Bytes that JAX may use of a device's memory; 8 GiB where it does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", 8 << 30)
