"""Stack distances against lists, and against the models that they predict."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hvcore.experiments import StackDistances, TranslationModel, stack_distances
from hvcore.experiments.records import make_records


def plain_distances(pages, sets):
    """The definition: where a page lies in its set's list, youngest first."""
    stacks = {}
    found = []
    for page in pages:
        stack = stacks.setdefault(page % sets, [])
        found.append(stack.index(page) if page in stack else -1)
        if page in stack:
            stack.remove(page)
        stack.insert(0, page)
    return found


def some_pages(rng, count, most):
    recent, pages = [0], []
    for _ in range(count):
        recent.append(rng.randrange(most) if rng.random() < 0.4 else rng.choice(recent[-30:]))
        pages.append(recent[-1])
    return pages


@pytest.mark.parametrize("sets", [1, 2, 7, 16])
@pytest.mark.parametrize("most", [3, 100, 3000])
def test_distances(sets, most):
    pages = some_pages(random.Random(f"{sets} {most}"), 6000, most)
    expected = plain_distances(pages, sets)
    records = make_records(np.array(pages, np.uint64) << np.uint64(12))
    counting = StackDistances(sets=sets)
    found = np.concatenate([counting.distances(records[at : at + 999]) for at in range(0, len(records), 999)])
    assert found.tolist() == expected
    later = [distance for distance in expected if distance >= 0]
    assert counting.histogram.tolist() == np.bincount(later).tolist()
    assert (counting.uses, counting.pages) == (len(pages), len(set(pages)))


@pytest.mark.parametrize("sets", [1, 4, 12])
def test_one_pass_says_what_every_lru_structure_misses(sets):
    pages = some_pages(random.Random(sets), 5000, 200)
    trace = np.array(pages, np.uint64) << np.uint64(12)
    curve = stack_distances(trace, sets=sets).miss_curve()
    assert curve[0] == len(pages) and curve[-1] == len(set(pages))
    for ways in (1, 2, 3, 8, 16, 17, 40):
        misses = TranslationModel(dtlb=f"{sets * ways}/{ways}").run(trace)["dtlb"].misses
        assert stack_distances(trace, sets=sets).misses(ways) == misses == curve[min(ways, len(curve) - 1)]


def test_kinds_and_page_sizes():
    records = make_records([0x1000, 0x1000, 0x20_0000, 0x1FFF, 0x3F_FFFF], [0, 1, 1, 4, 2])
    assert stack_distances(records).uses == 4
    assert stack_distances(records, kinds="L").pages == 2
    assert stack_distances(records, page_size="2 MiB").histogram.tolist() == [2]
    assert stack_distances(records[:0]).miss_curve().tolist() == [0]


@pytest.mark.parametrize("arguments", [{"sets": 0}, {"page_size": 5}, {"kinds": "X"}, {"kinds": ""}])
def test_refusals(arguments):
    with pytest.raises(ValueError, match=r"sets|page size|kinds"):
        StackDistances(**arguments)


def test_hostile_addresses():
    rng = np.random.default_rng(5)
    found = stack_distances(rng.integers(0, 1 << 64, 50_000, dtype=np.uint64), sets=3)
    assert found.uses == 50_000 == found.pages
