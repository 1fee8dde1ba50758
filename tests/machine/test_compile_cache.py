"""Compiled programs on disk: found by the next process, whole, bounded, the user's own choice."""

import os
import time
import warnings
import zlib

import jax
import pytest

from tests.machine import cache_jobs
from vggbn.jobs import pool
from vggbn.jobs.pool import Events, Job, run_jobs
from vggbn.machine import compile_cache, compiling, provenance
from vggbn.runs import run as runs
from vggbn.runs.place import Place
from vggbn.training.recipe import Recipe

TINY = Recipe(
    data="digits",
    image_size=8,
    split="fixed",
    model="mlp",
    norm="batch",
    fc=8,
    steps=2,
    evaluations=1,
    population_batches=1,
)


@pytest.fixture(scope="module", autouse=True)
def no_choice_of_the_users():
    """Nor the suite's own, which tests/support/programs.py makes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(("JAX_COMPILATION", "JAX_ENABLE_COMPILATION", "JAX_PERSISTENT")):
                patch.delenv(name)
        yield


# --- from process to process ---------------------------------------------------------------------


def in_a_worker(work, payload):
    """({asked, hits, misses}, what work returns), in a new process."""
    answers = []
    events = Events(lambda *_: None, lambda job, answer: answers.append(answer), pytest.fail)
    run_jobs([Job("run", 0, payload)], work, events, workers=1)
    return answers[0]


@pytest.fixture(scope="module")
def first(no_choice_of_the_users, tmp_path_factory):
    """(store, what was compiled, record) of a run that began with an empty cache."""
    store = runs.Store(tmp_path_factory.mktemp("out") / "runs")
    return store, *in_a_worker(cache_jobs.train, (TINY, store))


def entries(cache):
    return sorted(cache.glob("compiled/*/*-cache"))


def numbers(record):
    return record["history"], record["final"]


def refused() -> int:
    """How many programs a run asks for in vain: a jaxlib may not know the options of `jit`."""
    return int(compiling.ENABLED and not compiling.compiler_options())


def test_a_first_run_keeps_all_that_it_compiles(first):
    store, compiled, record = first
    assert compiled["asked"] - refused() == compiled["misses"] == len(entries(store.cache)) > 10
    assert compiled["hits"] == 0
    assert record["seconds"]["compile"] > 0


def test_a_second_run_in_a_new_process_compiles_nothing_and_has_the_same_numbers(first):
    store, before, record = first
    compiled, again = in_a_worker(cache_jobs.train, (TINY, store))
    assert compiled == {"asked": before["asked"], "hits": before["misses"], "misses": 0}
    assert numbers(again) == numbers(record)


def test_damaged_programs_are_compiled_again_and_then_replaced(tmp_path, capfd):
    before, (found, _) = in_a_worker(cache_jobs.compile_some, tmp_path)
    assert before["misses"] == len(entries(tmp_path)) == before["asked"] >= cache_jobs.SOME
    for i, path in enumerate(entries(tmp_path)):
        raw = path.read_bytes()
        path.write_bytes((raw[: len(raw) // 2], b"", b"\0" * len(raw), raw)[i % 4])
    whole = len(range(3, before["asked"], 4))
    compiled, (again, _) = in_a_worker(cache_jobs.compile_some, tmp_path)
    assert compiled["hits"] == whole > 0
    assert again == found
    assert "persistent compilation cache" not in capfd.readouterr().err
    compile_cache.tidy(tmp_path)
    assert len(entries(tmp_path)) == whole
    in_a_worker(cache_jobs.compile_some, tmp_path)
    assert len(entries(tmp_path)) == before["asked"]
    assert not any(map(compile_cache._damaged, entries(tmp_path)))


def test_a_user_can_turn_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "0")
    compiled, (_, seconds) = in_a_worker(cache_jobs.compile_some, tmp_path)
    assert compiled == {"asked": 0, "hits": 0, "misses": 0}
    assert entries(tmp_path) == []
    assert seconds["compile"] > 0


# --- in this process -----------------------------------------------------------------------------

JAX_S_OWN = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 1.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}


@pytest.fixture
def options():
    """jax's options as a dict function, at first jax's own, put back after the test; nothing is
    compiled meanwhile."""
    before = {name: getattr(jax.config, name) for name in JAX_S_OWN}
    for name, value in JAX_S_OWN.items():
        jax.config.update(name, value)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        yield lambda: {name: getattr(jax.config, name) for name in JAX_S_OWN}
    for name, value in before.items():
        jax.config.update(name, value)


def test_small_programs_are_kept_in_the_folder_of_this_machine(options, tmp_path):
    compile_cache.use(tmp_path)
    assert tuple(options().values()) == (str(compile_cache.folder(tmp_path)), 0.0, -1)
    assert compile_cache.folder(tmp_path).parent == tmp_path / "compiled"


def test_the_folder_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compile_cache.folder("here") == compile_cache.folder(tmp_path / "here")


def test_a_folder_of_the_users_own_wins(options, tmp_path):
    jax.config.update("jax_compilation_cache_dir", "theirs")
    before = options()
    compile_cache.use(tmp_path)
    assert options() == before


def test_a_threshold_of_the_users_own_wins(options, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1.0")
    compile_cache.use(tmp_path)
    assert options()["jax_persistent_cache_min_compile_time_secs"] == 1.0
    assert options()["jax_persistent_cache_min_entry_size_bytes"] == -1


@pytest.mark.parametrize("theirs", [None, "theirs"])
def test_an_entry_that_is_just_being_written_is_nothing_to_tell(options, tmp_path, theirs, recwarn):
    jax.config.update("jax_compilation_cache_dir", theirs)
    compile_cache.use(tmp_path)
    warnings.warn("Error reading persistent compilation cache entry for 'f'", stacklevel=1)
    assert not recwarn.list


@pytest.mark.parametrize("change", ["cpu", "jaxlib", "threads"])
def test_programs_of_another_kind_have_another_folder(change, tmp_path, monkeypatch):
    before = compile_cache.folder(tmp_path)
    assert compile_cache.folder(tmp_path) == before
    target, name = {
        "cpu": (provenance, "_cpuinfo"),
        "jaxlib": (compile_cache.importlib.metadata, "version"),
        "threads": (provenance, "threads"),
    }[change]
    monkeypatch.setattr(target, name, lambda *_: "another")
    assert compile_cache.folder(tmp_path) != before


def test_the_features_of_this_cpu_are_known():
    words = set(provenance.cpu_features().split())
    assert words & {"sse2", "asimd", "x86_64", "aarch64", "arm64"}


# --- what is kept --------------------------------------------------------------------------------


def entry(folder, name, *, age, raw=None):
    """A whole entry of a folder, `age` seconds old; its size is that of 1,000 random bytes."""
    path = folder / "compiled" / "kind" / f"{name}-cache"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zlib.compress(os.urandom(1000)) if raw is None else raw)
    os.utime(path, (time.time() - age,) * 2)
    return path


def left(folder):
    return {path.name.removesuffix("-cache") for path in folder.glob("compiled/*/*-cache")}


def test_damaged_entries_are_deleted_and_whole_ones_stay(tmp_path):
    whole = entry(tmp_path, "whole", age=9).read_bytes()
    entry(tmp_path, "cut", age=1, raw=whole[:-1])
    entry(tmp_path, "empty", age=1, raw=b"")
    entry(tmp_path, "flipped", age=1, raw=whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    other = entry(tmp_path, "other", age=1).rename(tmp_path / "compiled" / "kind" / "autotune")
    compile_cache.tidy(tmp_path)
    assert left(tmp_path) == {"whole"}
    assert other.exists(), "what is no program is none of its business"


def test_the_oldest_go_first_and_only_as_many_as_must(tmp_path):
    for age in (3, 1, 2, 4):
        size = entry(tmp_path, f"{age}", age=age).stat().st_size
    compile_cache.tidy(tmp_path, limit=4 * size)
    assert left(tmp_path) == {"1", "2", "3", "4"}
    compile_cache.tidy(tmp_path, limit=3 * size - 1)
    assert left(tmp_path) == {"1", "2"}


def test_there_may_be_nothing_yet(tmp_path):
    compile_cache.tidy(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_workers_find_the_cache_and_old_entries_are_tidied_up(tmp_path, monkeypatch):
    from vggbn.runs import many as train_many

    store = runs.Store(tmp_path / "runs")
    entry(store.cache, "cut", age=1, raw=b"x")
    idle = pool.Engine(lambda *_: None, 1, here=True)
    train_many.train_many({"run": Place(TINY, 0, store)}, idle, lambda *_: None)
    assert left(store.cache) == set()
    used = []
    monkeypatch.setattr(compile_cache, "use", used.append)
    monkeypatch.setattr(runs, "find_record", lambda *_: {"found": True})
    assert train_many._train(Place(TINY, 0, store), lambda record: None) == {"found": True}
    assert used == [store.cache]
