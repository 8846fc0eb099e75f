"""Benchmarks: speed and memory as ratios, both sides measured side by side in one run (``make bench``)."""
