"""The process in which rewards are computed: `python -P -m trainers.rewards.service CONFIG.json`.

CONFIG.json holds `rewards` (see combining.components), and may hold `project` (the folder that paths are relative to)
and `failed_value`; with `-` in its place it is the first line of standard input. Then one JSON object a line: asked
`{"samples": [...], "skip": {name: outcome}}`, answered `{"results": [...]}` after a line `{"at": NAME}` for every
component that is asked. The first line is `{"ready": [names], "parts": [names of their parts]}`, or `{"problem":
text}`. What components print goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from curation.errors import KedgeError
from trainers.rewards import Sample
from trainers.rewards.combining import combine, components


def main() -> int:
    """Serve until standard input ends."""
    output = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    parent = os.getppid()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    asked = sys.stdin.buffer
    config = json.loads(asked.readline() if sys.argv[1] == "-" else Path(sys.argv[1]).read_bytes())
    try:
        if config.get("project"):
            os.chdir(config["project"])
        parts = components(config["rewards"])
    except (KedgeError, OSError) as error:
        output.write(json.dumps({"problem": str(error)}) + "\n")
        return 2
    ready = {"ready": [part.name for part in parts], "parts": [name for part in parts for name in part.names[1:]]}
    output.write(json.dumps(ready) + "\n")
    for line in asked:
        request = json.loads(line)
        samples = [Sample.read(record) for record in request["samples"]]
        results = combine(parts, samples, failed_value=float(config.get("failed_value", 0.0)),
                          skip=request.get("skip"),
                          starting=lambda name: print(json.dumps({"at": name}), file=output))  # fmt: skip
        output.write(json.dumps({"results": results}, default=_text, allow_nan=False) + "\n")
    return 0


def _text(value: Any) -> str | float:
    """What JSON does not know: numbers of other packages, else text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(value)


def _leave_with(parent: int) -> None:
    """End when the process that asks is gone, also inside of a component that never returns."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
