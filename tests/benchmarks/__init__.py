"""Performance, measured beside a peer in the same run: `python -m tests.benchmarks.NAME [--small]`.

Every benchmark prints a table and, as its last line, one JSON object.
"""
