"""What waiting costs: ``python -m benchmarks.waiting --help``."""
