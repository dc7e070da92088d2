"""Experiments: traces, models of address translation, sweeps over configurations, tables and plots."""
