"""The order of tests for several workers of pytest-xdist: what takes longest begins first, and equal work for each worker.

``--dist worksteal`` cuts the collected tests into one part of equal count per worker. A worker that has finished takes tests
from the end of another part. So a part begins with its share of the long tests and ends with short ones: long tests at the
end leave the other workers idle. Tests that share the ranks of ``gloo_pool`` are in one part, since every worker that runs one
of them has to start these ranks. A file stays together unless it is in ``APART``: its tests may share a fixture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

SLOW, FAST = 2.0, 0.02  # seconds of a test by its mark, if neither it nor its file is listed below
APART = (  # tests without common fixtures
    *('tests/test_readme.py', 'tests/test_benchmarks.py', 'tests/test_configs.py'),
    'tests/launch/test_nodes.py',
)
EACH = {
    'tests/test_readme.py': 6.0,
    'tests/test_benchmarks.py': 5.0,
    'tests/test_configs.py': 1.5,
    'tests/test_configs.py::test_strategy_is_an_option_of_every_config': 0.02,
    'tests/test_configs.py::test_config_survives_being_written_down': 0.02,
    'tests/launch/test_nodes.py': 8.0,
}
# their loaders fork workers, which died by SIGSEGV where they collected a store or a process group of earlier tests, before
# ``garbage_left_alone`` of vq/data/workers.py; so these tests are the first of one process, and not in that of ranks
FORKING = (
    *('tests/data/test_fast_loading.py', 'tests/data/test_tables.py', 'tests/data/test_loading.py'),
    *('tests/data/test_loading_exit.py', 'tests/data/test_packed.py', 'tests/data/test_fields.py'),
    *('tests/runners/test_belonging.py', 'tests/cli/test_a_resume_is_the_same_run.py'),
)
SECONDS = {  # of a test or a whole file of slow tests, roughly: only the order depends on it
    'tests/end_to_end/test_document_003.py': 100,
    'tests/end_to_end/test_demo.py': 137,
    'tests/end_to_end/test_digits_layout.py': 55,
    'tests/end_to_end/test_digits_energy.py': 75,
    'tests/cli/test_examples.py': 200,
    'tests/launch/test_agent.py': 85,
    'tests/test_same.py': 60,
    'tests/launch/test_training.py': 50,
    'tests/strategies/test_compile.py': 300,
    'tests/quantizers/test_quantizer_compile.py': 120,
    'tests/end_to_end/test_digits_diffusion.py': 45,
    'tests/test_gpu_benchmark.py': 36,
    'tests/end_to_end/test_old_runs.py': 35,
    'tests/runners/test_lasting_output.py': 35,
    'tests/end_to_end/test_newcomer.py': 34,
    'tests/cli/test_memory.py': 32,
    'tests/denoisers/test_denoiser_compile.py': 32,
    'tests/end_to_end/test_understanding.py': 26,
    'tests/cli/test_a_resume_is_the_same_run.py': 22,
    'tests/cli/test_fidelity_tool.py': 19,
    'tests/test_benchmarks.py::test_six_kills_resume_to_the_same_bytes': 22,
    'tests/test_benchmarks.py::test_fid_benchmark_sees_equal_features_statistics_and_distances': 13,
    'tests/test_readme.py::test_every_block_runs_as_it_stands[README.md]': 33,
    'tests/test_readme.py::test_every_block_runs_as_it_stands[docs/running.md]': 30,
    'tests/test_readme.py::test_every_block_runs_as_it_stands[docs/generation.md]': 31,
    'tests/test_readme.py::test_every_block_runs_as_it_stands[docs/diffusion.md]': 20,
    'tests/test_notebook.py': 20,
    'tests/test_readme.py::test_every_block_runs_as_it_stands[docs/reconstruction.md]': 15,
}


class Test(Protocol):
    """What is used of ``pytest.Item``."""

    @property
    def nodeid(self) -> str: ...


Item = TypeVar('Item', bound=Test)


def counts(tests: int, workers: int) -> list[int]:
    """How many tests each worker gets first."""
    found: list[int] = []
    for left in range(workers, 0, -1):
        found.append((tests - sum(found)) // left)
    return found


def dealt(tests: Sequence[Item], workers: int, slow: set[str], ranks: set[str]) -> list[Item]:
    """All tests in the order to collect them in. ``slow``, ``ranks``: ids of slow tests, and of users of ``gloo_pool``."""
    units: dict[str, list[Item]] = defaultdict(list)
    for test in tests:
        file = test.nodeid.partition('::')[0]
        units['ranks' if test.nodeid in ranks else test.nodeid if file in APART else file].append(test)

    def seconds(name: str) -> float:
        each = EACH.get(name.partition('[')[0]) or EACH.get(name.partition('::')[0], SLOW)
        return SECONDS.get(name) or sum(each if test.nodeid in slow else FAST for test in units[name])

    long = [name for name in units if name in FORKING or any(test.nodeid in slow for test in units[name])]
    parts: list[list[Item]] = [[] for _ in range(workers)]
    spent = [0.0] * workers
    forking = [name for name in long if name in FORKING]
    for name in [*forking, *sorted((name for name in long if name not in FORKING), key=seconds, reverse=True)]:
        apart = name == 'ranks' and bool(forking)
        least = (
            0
            if name in forking
            else min(range(workers), key=lambda number, apart=apart: (apart and number == 0, spent[number]))
        )
        parts[least] += units[name]
        spent[least] += seconds(name)
    room = counts(len(tests), workers)
    rest = [test for name in units if name not in long for test in units[name]]
    for part, size in zip(parts, room, strict=True):
        rest += part[size:]
        del part[size:]
    for part, size in zip(parts, room, strict=True):
        missing = size - len(part)
        part += rest[:missing]
        del rest[:missing]
    return [test for part in parts for test in part]
