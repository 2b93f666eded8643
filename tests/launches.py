"""Launch files for tests: the data they name, how they are written and read, and what a launch must be good for."""

from __future__ import annotations

import textwrap
from pathlib import Path

from curation.auditing.audit import mirror_for
from curation.auditing.launch_files import Launch, read_launch
from curation.recognising import recognise_file

CHAT = {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
ALPACA = {"instruction": "1 + 1?", "input": "", "output": "2"}
PAIR = {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}
PROMPT = {
    "data_source": "gsm8k",
    "prompt": CHAT["messages"][:1],
    "reward_model": {"style": "rule", "ground_truth": "2"},
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def read(folder: Path, name: str, text: str, dataset: Path | None = None) -> Launch:
    launch = read_launch(write(folder, name, text), dataset)
    assert launch is not None
    return launch


def told(launch: Launch) -> list[tuple[str, str]]:
    """(file:line, key) of every problem."""
    return [(problem.where, problem.key) for problem in launch.problems]


def usable(launch: Launch) -> None:
    """The mirror takes the options, and the data has rows of the stage."""
    mirror = mirror_for(launch.trainer, launch.options)
    assert launch.stage in mirror.stages
    assert launch.dataset is not None
    assert recognise_file(launch.dataset, stage=launch.stage).stage == launch.stage
