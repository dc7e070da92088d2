"""Benchmarks. Each file asks one question and answers it with ratios of things measured in the same run.

Run `pytest benchmarks` (pytest.ini beside this file collects bench_*.py), or with --benchmark-disable to see that
they still work: one round of tiny sizes and no judgement of times.
"""
