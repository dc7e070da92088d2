"""Models fed by an address space: without TLBs and caches they read what the walker itself read, entry for entry."""

from __future__ import annotations

import numpy as np
import pytest

import hvcore as hv

PAGES = {4: ("4 KiB", "2 MiB", "1 GiB"), 5: ("4 KiB", "2 MiB", "1 GiB"), 3: ("4 KiB", "2 MiB"), 2: ("4 KiB", "4 MiB")}


@pytest.mark.parametrize("levels", PAGES)
@pytest.mark.parametrize("nested", [None, 3, 4, 5])
def test_every_reference_of_the_walker_is_one_of_the_model(levels: int, nested: int | None) -> None:
    for page_size in PAGES[levels]:
        for nested_page_size in ("4 KiB", "2 MiB") if nested else ("4 KiB",):
            space = hv.paging.AddressSpace(levels=levels, nested=nested, nested_page_size=nested_page_size)
            size = "1 GiB" if page_size == "1 GiB" else "64 MiB"
            space.map(gva=0, gpa=1 << 30, size=size, page_size=page_size)
            gvas = np.random.default_rng(levels).integers(0, 80 << 20, 3000).astype(np.uint64)
            walked = space.translate(gvas)
            reached = walked.status == 0
            assert space.walk_levels == (2 if levels == 3 else levels, nested or 0)
            table_page_size = nested_page_size if nested else None
            model = hv.paging.TranslationModel(
                levels=space.walk_levels[0], nested_levels=nested or 0, table_page_size=table_page_size
            )
            counted = model.run(gvas, space)
            assert counted.faults == (~reached).sum() and counted.walks == reached.sum() > 0
            assert counted.guest_references == walked.references[reached].sum()
            assert counted.nested_references == walked.nested_references[reached].sum()


def test_a_model_of_other_levels_is_refused() -> None:
    space = hv.paging.AddressSpace(levels=5, nested=4)
    gvas = np.zeros(1, np.uint64)
    for wrong in ({"levels": 4, "nested_levels": 4}, {"levels": 5, "nested_levels": 0}):
        with pytest.raises(ValueError, match="levels"):
            hv.paging.TranslationModel(**wrong).run(gvas, space)
    assert hv.paging.TranslationModel(levels=5, nested_levels=4).run(gvas, space).faults == 1
