"""Following a run while it trains: every finding is told once, written down, and a stop stops it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curation.config import shown
from curation.console import say
from trainers.monitors import Finding
from trainers.monitors.names import names_of
from trainers.monitors.readings import Readings, complete_lines
from trainers.monitors.rollouts import Rollouts
from trainers.monitors.rules import Rule, judge

EVERY_SECONDS = 0.5
SHARE_OF_TIME = 10  # between looks, as a multiple of what the last one took: a long log must not keep a core busy
COMMAND_SECONDS = 300
FINDINGS = "monitors.jsonl"


@dataclass
class Watch:
    """A job that is followed: what was read of it so far, and the (name, step) of the findings that were told."""

    job: dict[str, Any]
    rules: Sequence[Rule]
    run: Readings
    rollouts: Rollouts
    known: set[tuple[str, int]]
    offset: int = 0


@contextlib.contextmanager
def watched(job: dict[str, Any], rules: Sequence[Rule], every_seconds: float = EVERY_SECONDS) -> Iterator[None]:
    """Follow a job in a thread while the body runs its training process; what the log holds before the body is what
    earlier starts left."""
    watch, over = start(job, rules), threading.Event()
    thread = threading.Thread(target=follow, args=(watch, over, every_seconds), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def follow(watch: Watch, stop: threading.Event, every_seconds: float = EVERY_SECONDS) -> None:
    """Judge a job's log (`progress`) and rollouts (`evidence`) as they grow, until `stop` is set and once more then.

    A new finding is printed and added to `monitors.jsonl` beside the log; one of the level `stop` creates the job's
    `stop` file (the training process then saves a checkpoint and ends) and runs the rule's command. Started again, it
    tells nothing twice: findings up to the step that training goes on from are known from `monitors.jsonl`, later ones
    are forgotten with the readings that made them."""
    spent = _timed(watch, anew=True)
    while not stop.wait(max(every_seconds, SHARE_OF_TIME * spent)):
        spent = _timed(watch)
    look(watch, last=True)


def _timed(watch: Watch, anew: bool = False) -> float:
    """Seconds that a look took."""
    start = time.monotonic()
    look(watch, anew=anew)
    return time.monotonic() - start


def start(job: dict[str, Any], rules: Sequence[Rule]) -> Watch:
    """What earlier starts of the job left: readings and findings up to the step that it goes on from."""
    path = Path(job["progress"])
    step = resumed_step(job)
    known = {(item.name, item.step) for item in read_findings(path.parent) if item.step <= step}
    watch = Watch(job, rules, begin(job), Rollouts(Path(job["evidence"])), known)
    _read(watch)
    watch.rollouts.read(watch.run)
    watch.run.cut(step)
    watch.rollouts.cut(step)
    return watch


def look(watch: Watch, last: bool = False, anew: bool = False) -> None:
    """Read what was written since the last look and tell what is new in it; with `last` every step is over."""
    if not _read(watch) and not last and not anew:
        return
    watch.rollouts.read(watch.run, last)
    by_name = {rule.name: rule for rule in watch.rules}
    for finding in judge(watch.run, watch.rules):
        if (finding.name, finding.step) not in watch.known:
            watch.known.add((finding.name, finding.step))
            _tell(finding, watch.job, by_name[finding.name])


def _read(watch: Watch) -> bool:
    lines, watch.offset = complete_lines(Path(watch.job["progress"]), watch.offset)
    for line in lines:
        watch.run.add(line)
    return bool(lines)


def begin(job: dict[str, Any]) -> Readings:
    """Readings of a job before its first line: the trainer's names, the lengths of its pairs, its held-out rows."""
    run = Readings(names_of(str(job.get("trainer", ""))))
    run.num_held_out = _num_rows(job.get("held_out") or [])
    if job.get("stage") == "preference":
        run.lengths = pair_lengths(job.get("fates"))
    return run


def everything(job: dict[str, Any]) -> Readings:
    """All readings of a job, of its log and its rollouts."""
    run = begin(job)
    for line in complete_lines(Path(job["progress"]), 0)[0]:
        run.add(line)
    Rollouts(Path(job["evidence"])).read(run, last=True)
    return run


def resumed_step(job: dict[str, Any]) -> int:
    """The step of the checkpoint of its own that a job goes on from; 0 where it starts anew."""
    resume = job.get("resume")
    if resume is None or Path(job["output"]) != Path(resume).parent:
        return 0
    number = re.search(r"\d+$", Path(resume).name)
    return int(number[0]) if number else 0


def read_findings(folder: Path) -> list[Finding]:
    """The findings that were written down in a run's folder, in their order."""
    found = []
    for line in complete_lines(folder / FINDINGS, 0)[0]:
        value = line.get("value")
        found.append(Finding(line["name"], line["level"], line["step"], float("nan") if value is None else value,
                             line["what"], line["next"]))  # fmt: skip
    return found


def pair_lengths(fates: str | None) -> Any:
    """Trained tokens that stay of the chosen and rejected sides of an audited mixture: int64[2, N] over the pairs that
    have both; None where the file is absent or has no sides."""
    import numpy as np
    import pyarrow.parquet as pq

    if fates is None or not Path(fates).is_file() or "side" not in pq.read_schema(fates).names:
        return None
    table = pq.read_table(fates, columns=["position", "side", "kept_trained_tokens"])
    side, position, tokens = (table[name].to_numpy() for name in ("side", "position", "kept_trained_tokens"))
    both = [dict(zip(position[side == number].tolist(), tokens[side == number].tolist(), strict=True))
            for number in (0, 1)]  # fmt: skip
    shared = sorted(place for place in both[0].keys() & both[1].keys() if both[0][place] and both[1][place])
    return np.array([[of[place] for place in shared] for of in both], np.int64) if shared else None


def _num_rows(parts: Sequence[str]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(part).num_rows for part in parts if Path(part).is_file())


def _tell(finding: Finding, job: dict[str, Any], rule: Rule) -> None:
    folder = Path(job["progress"]).parent
    say(str(finding))
    value = asdict(finding)
    with (folder / FINDINGS).open("a") as stream:
        stream.write(json.dumps(value | {"value": None if finding.value != finding.value else finding.value}) + "\n")
    if rule.level == "stop":
        Path(job["stop"]).touch()
        say(f"stopping {job['record']['run']}: it saves a checkpoint and ends")
        if rule.command is not None:
            _command(rule.command, finding, job)


def _command(command: str, finding: Finding, job: dict[str, Any]) -> None:
    """Run a user's shell command with the finding in its environment; its output goes to monitors.log."""
    told = {"MONITOR": finding.name, "LEVEL": finding.level, "STEP": str(finding.step), "VALUE": str(finding.value),
            "WHAT": finding.what, "NEXT": finding.next, "RUN": str(job["record"]["run"]),
            "FOLDER": str(Path(job["progress"]).parent)}  # fmt: skip
    environment = os.environ | {f"KEDGE_{name}": text for name, text in told.items()}
    log = Path(job["progress"]).with_name("monitors.log")
    with log.open("ab") as stream:
        try:
            code = subprocess.run(command, shell=True, check=False, stdin=subprocess.DEVNULL, stdout=stream,
                                  stderr=subprocess.STDOUT, cwd=job["project"], timeout=COMMAND_SECONDS,
                                  env=environment).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            say(f"the command of {finding.name} was ended after {COMMAND_SECONDS} seconds; see {shown(log)}")
            return
    if code:
        say(f"the command of {finding.name} ended with {code}; see {shown(log)}")
