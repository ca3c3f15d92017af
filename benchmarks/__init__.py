"""Benchmarks: `python -m benchmarks.step`, `.techniques`, `.growth` and `.gpu`; docs/performance.md explains them."""
