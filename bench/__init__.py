"""Benchmarks: `python -m bench all`. How each number is measured stands in METHODOLOGY.md."""
