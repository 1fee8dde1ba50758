"""How programs are compiled and run: jax.jit with the options that pay on a CPU, a form for each
platform, values that are computed once (VGGBN_FAST=0 switches all of that off); 64-bit numbers."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax import lax

from vggbn.machine.environment import accelerated

ENABLED = os.environ.get("VGGBN_FAST", "1") != "0"

OPTIONS = {
    # jaxlib sends convolutions to a library whose weight gradient takes several times as long as
    # XLA's own; channel sums are better off there.
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
    # This pass erases every barrier before XLA decides what to compute again: see `once`.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}


def jit(function: Callable, **kwargs) -> Callable:
    """jax.jit with the compiler options that pay on this backend, which starts.

    They change no number beyond rounding, and nothing of the process: see `tune_process`.
    """
    return jax.jit(function, compiler_options=compiler_options(), **kwargs)


def tune_process() -> None:
    """Let this process run a CPU's programs as fast as it can; before jax computes anything.

    For commands and their workers, whose process is theirs: allocator and dispatch are the whole
    process's. A library call leaves them alone.
    """
    if ENABLED and not accelerated():
        run_inline()
        keep_memory()


def run_inline() -> None:
    """Let a CPU run programs in the thread that calls them. Too late once jax has begun to compute.

    jax would run them in threads of its own, whose memory glibc takes from arenas that hold no
    block of 64 MB: a larger step then pays for fresh pages, whatever `keep_memory` has said.
    """
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", False)


@lru_cache
def keep_memory() -> bool:
    """Let glibc keep what a step has freed for the next one; whether it could be told so.

    It gives blocks of 32 MB and more back at once, and the next step pays for fresh pages. Other C
    libraries go their own way.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    wanted = {M_MMAP_THRESHOLD: 2**31 - 1, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    heard = [mallopt(option, value) for option, value in wanted.items()]
    return all(heard)


@lru_cache
def compiler_options() -> dict[str, str]:
    """OPTIONS on a CPU whose jaxlib knows them, else none: another version must not fail."""
    if not ENABLED or jax.default_backend() != "cpu":
        return {}
    try:
        barrier = jax.jit(lambda: lax.optimization_barrier(jnp.zeros(2)), compiler_options=OPTIONS)
        barrier.lower().compile()
    except Exception:  # whatever a jaxlib says of an option that it does not know
        return {}
    return OPTIONS


def on_cpu(fast: Callable, plain: Callable) -> Callable:
    """`fast` where the program is lowered for a CPU, `plain` elsewhere; both of one signature."""
    if not ENABLED or fast is plain:
        return plain
    return partial(lax.platform_dependent, cpu=fast, default=plain)


def once(x):
    """x, an array that is computed once and kept: for the forms that only a CPU gets.

    On a CPU XLA would compute a cheap value again inside every consumer that reads slices of it or
    transposes it. In a program that was not compiled by `jit` it still does.
    """
    return lax.optimization_barrier(x)


def settle(x):
    """x; where the program is lowered for a CPU, it is computed `once`."""
    return on_cpu(once, lambda x: x)(x)


@contextmanager
def enable_x64(on: bool = True) -> Iterator[None]:
    """64-bit numbers inside the block, in all threads: jax's own context manager is new in 0.8."""
    before = jax.config.jax_enable_x64  # pyright: ignore
    jax.config.update("jax_enable_x64", on)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
