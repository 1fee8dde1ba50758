"""A library call leaves the process as it was; a command and its workers tune theirs."""

import ctypes
import os

import jax
import pytest

from vggbn.evaluate import evaluate
from vggbn.machine import compiling
from vggbn.runs.run import Store, get_run, load_data
from vggbn.training.recipe import Recipe

MLP = Recipe(
    data="digits", image_size=8, model="mlp", norm="batch", fc=11, hidden=1, steps=3, batch=16,
    evaluations=2, population_batches=1, activation="sigmoid",
)  # fmt: skip


@pytest.fixture
def mallopts(monkeypatch):
    """The calls of mallopt, which do nothing."""
    calls = []

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, option, value):
            calls.append((option, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    compiling.keep_memory.cache_clear()
    yield calls
    compiling.keep_memory.cache_clear()


def state_of_the_process():
    return dict(jax.config.values), dict(os.environ)


def test_training_and_evaluating_change_nothing_of_the_process(tmp_path, mallopts):
    before = state_of_the_process()
    store = Store(tmp_path / "runs")
    run = get_run(MLP, 0, store)
    dataset = load_data(MLP, 0, store)
    evaluate(run.trained, dataset.test)
    assert state_of_the_process() == before
    assert mallopts == []


@pytest.mark.parametrize(("enabled", "accelerator"), [(True, False), (False, False), (True, True)])
def test_a_command_tunes_its_process_for_a_cpu(mallopts, monkeypatch, enabled, accelerator):
    monkeypatch.setattr(compiling, "ENABLED", enabled)
    monkeypatch.setattr(compiling, "accelerated", lambda: accelerator)
    monkeypatch.delenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", raising=False)
    before = jax.config.values["jax_cpu_enable_async_dispatch"]
    try:
        jax.config.update("jax_cpu_enable_async_dispatch", True)
        compiling.tune_process()
        tuned = enabled and not accelerator
        assert jax.config.values["jax_cpu_enable_async_dispatch"] is not tuned
        assert bool(mallopts) is tuned
    finally:
        jax.config.update("jax_cpu_enable_async_dispatch", before)
