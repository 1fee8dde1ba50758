"""Seconds by purpose: each second counted once, compilation apart."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from vggbn.machine import clock
from vggbn.machine.clock import Clock

TRACE, COMPILE = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile")


@pytest.fixture
def at(monkeypatch):
    """Set the time: at(wall, compiled)."""
    now = {"wall": 0.0}
    fake = SimpleNamespace(perf_counter=lambda: now["wall"])
    compilation = clock._Compilation()
    monkeypatch.setattr(clock, "time", fake)
    monkeypatch.setattr(clock, "_compilation", compilation)

    def set_to(wall, compiled=0.0):
        now.update(wall=wall)
        compilation.seconds = compiled

    return set_to


def test_every_second_is_counted_once(at):
    timer = Clock("a")
    for wall, purpose in ((1.0, "b"), (3.0, "a"), (7.0, "c")):
        at(wall)
        timer.to(purpose)
    at(15.0)
    assert timer.stop() == {"compile": 0.0, "a": 5.0, "b": 2.0, "c": 8.0, "total": 15.0}


def test_compilation_is_taken_out_of_whatever_it_is_done_for(at):
    timer = Clock("a")
    at(4.0, compiled=3.0)
    timer.to("b")
    at(6.0, compiled=3.5)
    assert timer.stop() == {"compile": 3.5, "a": 1.0, "b": 1.5, "total": 6.0}


def test_a_trace_within_a_trace_counts_once():
    seen = clock._Compilation()
    for event, start, end in (
        (TRACE, 2.0, 3.0),
        (TRACE, 4.0, 5.0),
        (TRACE, 1.0, 6.0),
        (COMPILE, 7.0, 9.0),
        ("/jax/checkpoint/write", 0.0, 10.0),
    ):
        seen(event, start, end)
    assert seen.seconds == 7.0


def test_jax_tells_of_its_compilations():
    @jax.jit
    def new(x):
        return jnp.tanh(x) * 3

    x = jnp.ones(7)
    for expected in (True, False):  # the second call finds the compiled function
        timer = Clock("a")
        new(x).block_until_ready()
        seconds = timer.stop()
        assert (seconds["compile"] > 0) == expected
        assert seconds["a"] + seconds["compile"] == pytest.approx(seconds["total"])
        assert seconds["a"] > 0
