"""Figures that can be measured again: `python -m benchmarks [NAME]…`. Ratios and differences are taken in one run."""
