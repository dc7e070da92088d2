"""The walker against volatility3's Intel layers, which forensics uses, on a memory image with random tables.

They know presence, page sizes and addresses, and neither rights nor reserved bits, so the tables have none that are
wrong. Skipped where volatility3 is not installed.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from tables_by_hand import Machine

pytest.importorskip("volatility3")
from volatility3.framework import contexts, exceptions
from volatility3.framework.layers import intel, physical

OK, NOT_PRESENT, NESTED = 0, 1, 6
PAGES_A_LEVEL = 4
LAYERS = {"32-bit": intel.Intel, "pae": intel.IntelPAE, "4-level": intel.Intel32e}
LEVELS = {"32-bit": 2, "pae": 2, "4-level": 4}
FIRST = 0x100


def fill(machine: Machine, mode: str, rng: random.Random) -> int:
    """Random tables, some pages of them a level; the page number of the top one."""
    width, size = (10, 4) if mode == "32-bit" else (9, 8)
    for level in range(1, LEVELS[mode] + 1):
        for number in range(PAGES_A_LEVEL):
            page = FIRST + PAGES_A_LEVEL * (level - 1) + number
            for index in range(1 << width):
                entry = 7 | rng.getrandbits(2) << 5 if rng.random() < 0.85 else rng.getrandbits(5) << 1
                if level == 1 or (level in (2, 3) and rng.random() < 0.2):
                    shift = 12 + width * (level - 1)
                    entry |= rng.getrandbits(26 - min(shift, 25)) << shift | (0x80 if level > 1 else 0)
                else:
                    entry |= FIRST + PAGES_A_LEVEL * (level - 2) + rng.randrange(PAGES_A_LEVEL) << 12
                if mode != "32-bit":
                    entry |= rng.getrandbits(1) << 63
                machine.put((page << 12) + index * size, entry & (1 << 8 * size) - 1, size)
    top = FIRST + PAGES_A_LEVEL * (LEVELS[mode] - 1)
    if mode != "pae":
        return top
    pointers = FIRST + PAGES_A_LEVEL * LEVELS[mode]
    for index in range(4):
        machine.put((pointers << 12) + 8 * index, top + index << 12 | 1)
    return pointers


def layer_over(image: bytes, mode: str, root: int) -> Any:
    context = contexts.Context()
    context.add_layer(physical.BufferDataLayer(context, "image", "image", buffer=image))
    context.config["layer.memory_layer"] = "image"
    context.config["layer.page_map_offset"] = root
    return LAYERS[mode](context, config_path="layer", name="layer")


@pytest.mark.parametrize("mode", LAYERS)
def test_translations_of_an_image(mode: str) -> None:
    rng = random.Random(mode)
    machine = Machine()
    for page in range(0, 64 << 20, 1 << 21):
        machine.map(page, 21)
    machine.top = fill(machine, mode, rng) << 12
    machine.enter(mode)
    layer = layer_over(machine.memory.read(0, 64 << 20), mode, machine.top)
    outcomes = {OK: 0, NOT_PRESENT: 0, NESTED: 0}
    for _ in range(1500):
        gva = rng.getrandbits(48 if mode == "4-level" else 32)
        canonical = gva | (0xFFFF << 48 if gva >> 47 else 0)
        found = machine.vp.probe(canonical)
        try:
            expected, _ = layer.translate(gva)
        except exceptions.InvalidAddressException:
            expected = None
        # What is translated to beyond the image is invalid for them, and not mapped for the second level.
        assert found.status in (OK, NOT_PRESENT, NESTED)
        assert (found.address if found.status == OK else None) == expected, (hex(gva), found)
        outcomes[found.status] += 1
    assert min(outcomes[OK], outcomes[NOT_PRESENT]) > 100
