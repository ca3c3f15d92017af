"""Benchmarks: `python -m benchmarks.step`, `.techniques`, `.growth` and `.gpu`. See docs/performance.md."""
