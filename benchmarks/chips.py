"""Accelerators that programs are compiled for where none is at hand, and what their makers say that they can do.

A topology describes a chip to the compiler. Rates and bandwidths are the makers' peaks, which no program reaches.
"""

import contextlib
import dataclasses
import importlib.util
import os
from collections.abc import Mapping, Sequence
from importlib import metadata

import jax
from jax.experimental import topologies

from benchmarks.hlo import Product
from grokjax.errors import InputError

# The figures of an H100 SXM, in XLA's text form; those that a driver would tell.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
COMPILERS = ("libtpu", "jax-cuda13-pjrt", "nvidia-cuda-nvcc")  # by distribution
GPU_OPTIONS = {
    "xla_gpu_autotune_level": "0",  # there is nothing to time candidates on
    "xla_gpu_experimental_autotune_backends": "TRITON",  # since jaxlib 0.12 no other has a default without a device
    "xla_dump_emitter_re": "ptx",  # what a dump holds of the kernels
}
# How a product that a program asks for is done: which rate, and how many products it takes.
ON_GPU = {"highest": ("float32", 1), "high": ("float32", 1), "default": ("tensorfloat32", 1)}
ON_TPU = {"highest": ("bfloat16", 6), "high": ("bfloat16", 3), "default": ("bfloat16", 1)}
BY_ALGORITHM = {
    "dot_tf32_tf32_f32": ("tensorfloat32", 1),
    "dot_bf16_bf16_f32": ("bfloat16", 1),
    "dot_bf16_bf16_f32_x3": ("bfloat16", 3),
    "dot_bf16_bf16_f32_x6": ("bfloat16", 6),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator.

    Attributes:
      title: its maker's name for it.
      topology: names a description that libtpu has; of a GPU, empty.
      rates: FLOP per second of dense products, by precision.
      bandwidth: bytes per second of its memory.
      memory: bytes.
      source: of these figures.
    """

    title: str
    topology: str
    rates: Mapping[str, float]
    bandwidth: float
    memory: float
    source: str

    @property
    def modules(self) -> tuple[str, ...]:
        """What must be installed to compile for it."""
        return ("libtpu",) if self.topology else ("jax_plugins.xla_cuda13", "nvidia.cu13")

    def seconds(self, product: Product) -> float:
        """The time that a product takes at the chip's rate.

        Raises:
          ValueError: nothing is known about products of this kind.
        """
        how = BY_ALGORITHM | (ON_TPU if self.topology else ON_GPU)
        if product.precision not in how:
            raise ValueError(f"no rate is known for the precision {product.precision!r}.")
        rate, passes = ("bfloat16", 1) if product.dtype == "bf16" else how[product.precision]
        return passes * product.flop / self.rates[rate]


_HOPPER = {"float32": 66.9e12, "tensorfloat32": 494.7e12, "bfloat16": 989.4e12}
_CLOUD = "https://cloud.google.com/tpu/docs/"
CHIPS = {
    "h100": Chip("H100 SXM", "", _HOPPER, 3.352e12, 80e9, "https://www.nvidia.com/en-us/data-center/h100/"),
    "v5e": Chip("TPU v5e", "v5e:2x2", {"bfloat16": 197e12}, 819e9, 16e9, f"{_CLOUD}v5e"),
    "v6e": Chip("TPU v6e", "v6e:2x2", {"bfloat16": 918e12}, 1640e9, 32e9, f"{_CLOUD}v6e"),
    "v5p": Chip("TPU v5p", "v5p:2x2x1", {"bfloat16": 459e12}, 2765e9, 95e9, f"{_CLOUD}v5p"),
}
# Chips that run another's program.
SAME_PROGRAM = {
    "h100": {"h200": Chip("H200 SXM", "", _HOPPER, 4.8e12, 141e9, "https://www.nvidia.com/en-us/data-center/h200/")}
}


def missing(name: str) -> bool:
    """Whether what compiles for a chip is not installed."""
    return any(not _there(module) for module in CHIPS[name].modules)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent
        return False


def versions() -> dict[str, str]:
    """The installed compilers."""
    found = {}
    for name in COMPILERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def require(name: str) -> None:
    """Refuses a chip that nothing here compiles for.

    Raises:
      InputError: what compiles for it is not installed.
    """
    if missing(name):
        raise InputError(
            f"--chip={name} needs a compiler that is not installed: pip install -e '.[ahead]' brings those for all."
        )


def devices(name: str) -> Sequence[jax.Device]:
    """Describes a chip's devices, for programs to be compiled for; nothing can be put on them."""
    if CHIPS[name].topology:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no process holds a TPU
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        return topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[name].topology).devices
    return topologies.get_topology_desc(
        platform="cuda", topology_name="one", target_config=H100, topology="1x1x1"
    ).devices
