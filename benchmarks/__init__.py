"""Benchmarks: `make bench`. Real processes, an external load generator, ratios within one run, medians."""
