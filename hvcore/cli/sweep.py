"""`hvcore sweep CONFIG.toml`: run a sweep of translation models, print its table, write files and plots."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from hvcore.cli.failure import Failure
from hvcore.experiments.config import ConfigError, SweepConfig
from hvcore.experiments.store import StoreError
from hvcore.experiments.sweeps import SweepError
from hvcore.experiments.table import ColumnError


def sweep(options: Namespace) -> int:
    """Run the command; the exit status."""
    try:
        config = SweepConfig.load(options.config, traces=options.traces)
        results = config.run(workers=options.workers, store=options.store, progress=options.progress)
        if options.csv:
            results.to_csv(options.csv)
        if options.parquet:
            results.to_parquet(options.parquet)
        if options.plots:
            Path(options.plots).mkdir(parents=True, exist_ok=True)
            config.draw(results, options.plots)
    except (ConfigError, ColumnError) as failure:
        raise Failure(str(failure), 2) from failure
    except (StoreError, SweepError, ModuleNotFoundError) as failure:
        raise Failure(str(failure), 1) from failure
    except OSError as failure:
        raise Failure(f"{failure.filename}: {failure.strerror}", 2) from failure
    print(results.to_json() if options.json else results.to_text())
    return 0
