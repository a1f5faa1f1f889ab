"""The order of tests for several workers: long ones first, in equal shares, and none lost."""

from __future__ import annotations

import dataclasses
import random

from tests import order
from tests.snippets import ROOT


@dataclasses.dataclass(frozen=True)
class Named:
    nodeid: str


def some(file: str, count: int) -> list[Named]:
    return [Named(f'tests/{file}.py::test[{number}]') for number in range(count)]


def test_each_part_begins_with_its_share_of_long_tests() -> None:
    fast, slow, ranked = some('fast', 60), [some(f'slow_{number}', 4) for number in range(6)], some('ranks', 6)
    tests = [*fast, *(test for file in slow for test in file), *ranked]
    random.Random(0).shuffle(tests)
    ids = {test.nodeid for test in tests if test not in fast}
    found = order.dealt(tests, 3, ids, {test.nodeid for test in ranked})
    assert sorted(found, key=str) == sorted(tests, key=str)
    parts = [found[:30], found[30:60], found[60:]]
    shares = [[test.nodeid in ids for test in part] for part in parts]
    assert all(share == sorted(share, reverse=True) for share in shares), 'slow tests come first'
    assert sorted(map(sum, shares)) == [8, 10, 12]  # of 16, 20 and 24 s: two, one and three files, one part has the ranks
    assert {test for test in parts[0] if test in ranked} == set(ranked)
    for file in slow:
        places = sorted(found.index(test) for test in file)
        assert places == [*range(places[0], places[0] + 4)], 'a file stays together'


def test_tests_that_fork_workers_are_not_with_those_of_ranks() -> None:
    ranked, others = some('ranks', 9), [*some('slow', 20), *some('fast', 40)]
    forking = [Named(f'{order.FORKING[0]}::test[{number}]') for number in range(5)]
    slow = {test.nodeid for test in [*ranked, *others[:20]]}
    found = order.dealt([*others, *forking, *ranked], 2, slow, {test.nodeid for test in ranked})
    first, second = found[:37], found[37:]
    assert set(ranked) <= set(second) and first[: len(forking)] == forking, 'they are the first of their process'


def test_more_slow_tests_than_a_part_holds() -> None:
    tests = [*some('readme', 1), *some('many', 20)]
    found = order.dealt(tests, 4, {test.nodeid for test in tests}, set())
    assert sorted(found, key=str) == sorted(tests, key=str)
    assert order.counts(21, 4) == [5, 5, 5, 6]


def test_the_listed_files_exist() -> None:
    assert all((ROOT / name.partition('::')[0]).is_file() for name in [*order.SECONDS, *order.APART, *order.FORKING])
