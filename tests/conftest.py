"""What all tests share: repeatable runs, quick compiling, strict shapes, and the real data."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import programs
from vggbn.machine.environment import FLOAT32, accelerated

ROOT = Path(__file__).resolve().parents[1]

# Before jax and keras are imported. JAX_PLATFORMS is the user's own choice and stays as it is.
os.environ["KERAS_BACKEND"] = "jax"
os.environ["MPLBACKEND"] = "Agg"
os.environ |= programs.quick(os.environ)
if accelerated():
    os.environ |= FLOAT32


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores (-n auto): some tests wait for processes that they start."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    programs.keep_programs(config)
    if config.getoption("dist", "no") == "no":  # else the workers of pytest-xdist run the tests
        with programs.alone(Path(__file__)):
            _configure_libraries()


def _configure_libraries() -> None:
    import hypothesis
    import jax

    # Compiled programs are millions of objects that stay: to look through them less often saves
    # time.
    gc.set_threshold(50_000, 50, 100)
    # A (n,) meeting a (n, m) by accident is the classic silent bug: every broadcast is to be
    # written.
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # The same examples in every run; compilation makes the time of a single example meaningless.
    hypothesis.settings.register_profile(
        "repeatable", derandomize=True, deadline=None, database=None
    )
    hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Import a file of tests in one worker at a time: the others find its bytecode."""
    if isinstance(collector, pytest.Module):
        with programs.alone(collector.path):
            return (yield)
    return (yield)


def real_data_dir() -> Path:
    """The folder with `tfds/` and `clothing/`: VGGBN_DATA_DIR, else ../shared/data."""
    return Path(os.environ.get("VGGBN_DATA_DIR") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data; a test that needs it is skipped without it, and fails under CI=true."""
    folder = real_data_dir()
    if not folder.is_dir():
        reason = f"no real test data in {folder}; name its folder in VGGBN_DATA_DIR"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    return folder.resolve()
