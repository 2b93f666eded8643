"""Benchmark items in training rows: an index of items, seeds, verification by alignment, classes, evidence."""
