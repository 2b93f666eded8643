"""Performance, measured beside a peer in the same run: `python -m tests.benchmarks.NAME [--small]`.

Every benchmark prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse


def wanted_rows(arguments: list[str] | None, doc: str, *, small: int) -> int:
    """The number of rows that a benchmark's command line asks for: 1,000,000, `small` with --small, or --rows N."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--small", action="store_true", help=f"{small:,} rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    return small if options.small else int(options.rows)
