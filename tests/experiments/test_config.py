"""Sweeps of models from a TOML file: what they measure is what the models count; what is wrong is refused at once."""

from __future__ import annotations

import gzip
import json
import shutil
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from hvcore.cli import main
from hvcore.experiments.config import ConfigError, SweepConfig, build_model
from hvcore.experiments.models import TranslationModel
from hvcore.experiments.records import Kind
from hvcore.experiments.traces import read_trace

TRACE = Path(__file__).parent / "data" / "true.lackey.txt.gz"
STUDY = Path(__file__).parents[2] / "docs" / "study"
CONFIG = """
title = "small"
columns = ["walks", "references_per_walk"]
[traces]
start = "true.lackey.txt.gz"
[model]
preset = "skylake-server"
stlb = "{entries}/4 4K+2M"
nested_levels = "{levels}"
[grid]
trace = ["start"]
entries = [128, 1024]
levels = [4, 5]
page_size = ["4 KiB", "2 MiB"]
"walk_caches.pde" = ["none", "32/4"]
[[plots]]
file = "walks.svg"
x = "entries"
y = "walks"
by = ["page_size"]
where = { levels = 4, "walk_caches.pde" = "none" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copy(TRACE, tmp_path)
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


def test_every_point_is_what_a_model_counts(config: Path) -> None:
    results = SweepConfig.load(config).run(workers=1)
    assert len(results) == 16 and results.measured == ("walks", "references_per_walk")
    for row in results.rows():
        caches = {"pdpte": "4/4", "pml4e": "2/2"} | ({"pde": "32/4"} if row["walk_caches.pde"] != "none" else {})
        model = TranslationModel.preset(
            "skylake-server", stlb=f"{row['entries']}/4 4K+2M", nested_levels=row["levels"], levels=row["levels"],
            page_size=row["page_size"], walk_caches=caches,
        )  # fmt: skip
        counted = model.run(read_trace(TRACE))
        assert row["walks"] == counted.walks
        assert row["references_per_walk"] == (counted.guest_references + counted.nested_references) / counted.walks


def test_the_command_writes_table_and_plots_and_goes_on_from_its_store(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    folder = config.parent
    command = ["sweep", str(config), "--store", str(folder / "store"), "--workers", "1", "--json"]
    assert main([*command, "--csv", str(folder / "table.csv"), "--plots", str(folder / "plots")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 16 and (folder / "plots" / "walks.svg").stat().st_size > 1000
    assert len((folder / "table.csv").read_text().splitlines()) == 17
    measured = (folder / "store").read_bytes()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == rows and (folder / "store").read_bytes() == measured
    (folder / TRACE.name).write_bytes(gzip.compress(b"I  04001000,3\n"))  # another trace under the same name
    assert main(command) == 1
    assert "holds the sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ('"skylake-server"', "skylake-serve"),
        ("entries = [128, 1024]", "colour = [1]"),
        ("entries = [128, 1024]", "entries = [127]"),
        ('trace = ["start"]', 'trace = ["stop"]'),
        ("title =", "titel ="),
        ("[grid]", "[grid"),
        ("entries = [128, 1024]", "entries = []"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    config: Path, wrong: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    replacement = '"skylake-serve"' if word == "skylake-serve" else word
    config.write_text(CONFIG.replace(wrong, replacement))
    with pytest.raises(ConfigError, match=str(config)):
        SweepConfig.load(config)
    assert main(["sweep", str(config)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_trace_that_is_missing_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / TRACE.name).unlink()
    assert main(["sweep", str(config), "--workers", "1", "--no-progress"]) == 2
    assert TRACE.name in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pages", "tlb", "walk_caches", "iotlb"])
def test_the_study_can_be_made_again(name: str, tmp_path: Path) -> None:
    """Its points are models, and its table has a row for each of them; the figures need the traces."""
    config = SweepConfig.load(STUDY / f"{name}.toml", traces=tmp_path)
    points = 1
    for values in config.grid.values():
        points *= len(values)
    assert len((STUDY / f"{name}.csv").read_text().splitlines()) == points + 1
    assert (STUDY / config.plots[0]["file"]).exists()


def test_devices_of_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model and unit count the same, live and once more; a row of the table is what the program gives."""
    monkeypatch.syspath_prepend(str(STUDY))
    devices, study = import_module("study_devices"), import_module("study")
    preset = partial(TranslationModel.preset, "virtuoso-iommu")
    trace = devices.record("dn", 150, preset())
    assert set(trace["asid"].tolist()) == {1, 2} and set(trace["kind"].tolist()) == {Kind.LOAD, Kind.STORE}
    for page_size in ("4 KiB", "2 MiB"):
        model = preset(page_size=page_size)
        unit = devices.count_in_unit(trace, model, page_size)
        with pytest.raises(AssertionError, match="the unit counts"):
            devices.compare(unit, model)
        model.run(trace)
        devices.compare(unit, model)
    trace = devices.record(*study.DEVICE_TRACES["adapter"], preset())
    row = f"adapter,4 KiB,4,64,{len(trace)},{preset().run(trace)['iotlb'].misses},"
    assert row in (STUDY / "iotlb.csv").read_text()


def test_none_leaves_a_structure_out() -> None:
    model = build_model({"preset": "skylake-server", "stlb": "none"}, {"walk_caches.pde": "none"})
    assert {"stlb", "pde"}.isdisjoint(one.name for one in model.structures)
