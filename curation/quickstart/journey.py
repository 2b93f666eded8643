"""The quickstart walks kedge's own commands, so that what it shows is what its users type."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from curation.config import PROJECT_FILE, SHIPPED
from curation.console import out, say
from curation.errors import EXIT_FAILED, EXIT_OK, InstrumentError
from curation.quickstart import skills, tiny_model

NAMES = "add reverse user assistant"


@dataclass(frozen=True)
class Step:
    """One command of the journey. `expected` is its exit code; a different one stops the quickstart."""

    why: str
    arguments: tuple[str, ...]
    expected: int = EXIT_OK


JOURNEY = (
    Step(
        "Rows: three sources, each record kept with its file and line",
        ("add", "data/skills.jsonl", "--stage", "midtrain"),
    ),
    Step("One broken record is a counted reject, not a crash", ("add", "addition")),
    Step("", ("add", "data/reversal.jsonl")),
    Step("Signals beside the rows", ("measure",)),
    Step("Rules: what each would leave out, and why", ("rules",)),
    Step("Mixtures from SQL", ("mix", "build", "mid")),
    Step("First look, then freeze: SFT lacks a skill that mid-training has", ("mix", "show", "sft")),
    Step("", ("mix", "build", "sft")),
    Step("An audit that must fail: 28 tokens cut </think> and the answer", ("audit", "sft_short"), EXIT_FAILED),
    Step("The same audits at a length that fits", ("audit", "mid")),
    Step("Mid-training on both skills", ("train", "mid")),
    Step("", ("audit", "sft")),
    Step("SFT on addition alone", ("train", "sft")),
    Step("LightEval on every checkpoint", ("eval", "mid")),
    Step("", ("eval", "sft")),
    Step("Drift: mid-training taught both skills", ("drift", "mid")),
    Step("Drift: SFT on one skill lost the other, and the report says so", ("drift", "sft"), EXIT_FAILED),
)
NEXT = (
    "kedge mix show sft",
    "kedge sql \"SELECT source, count(*) AS num_rows FROM rows GROUP BY source\"",
    "kedge why ROW_ID                 (a row_id from: kedge sql \"SELECT row_id FROM rows LIMIT 1\")",
    "kedge audit sft_short --to report",
    "kedge drift sft --to report",
    "add a take of 'reversal' to catalogs/mixtures/sft.sql, then: kedge mix build sft, audit sft, train sft",
)  # fmt: skip


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Run the block with `folder` as the working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def prepare(folder: Path, *, rows: int = 10_000, items: int = 100) -> None:
    """Write the project: its files, generated data, a tokenizer trained on it and a model with random weights. What is
    there already is kept, so that an interrupted quickstart goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(SHIPPED / "quickstart", folder / "catalogs", dirs_exist_ok=True)
    skills.write_data(folder / "data", rows=rows, items=items)
    model = folder / "models" / "tiny"
    if not (model / "generation_config.json").is_file():
        say("making a Llama of one million parameters and a tokenizer trained on the rows")
        texts = (folder / "data" / "skills.jsonl").read_text().splitlines()[:4000]
        words = [*texts, *[f"{name}\n" for name in NAMES.split()] * 50]
        tiny_model.make_tokenizer(model, words, by_character=True, special_thoughts=False)
        tiny_model.make_model(model, hidden=128, layers=4, positions=256)
        template = SHIPPED / "templates" / "chatml.jinja"
        (model / "chat_template.jinja").write_bytes(template.read_bytes())
    if not (folder / PROJECT_FILE).is_file():
        (folder / PROJECT_FILE).write_text("tokenizers:\n  tiny: models/tiny\n")


def walk(folder: Path, run: Callable[[list[str]], int], steps: tuple[Step, ...] = JOURNEY) -> None:
    """Run the journey's commands in `folder` with `run`, which takes arguments and returns an exit code. Raises
    InstrumentError where a command ends with another code than expected."""
    with inside(folder):
        for number, step in enumerate(steps, 1):
            if step.why:
                out.print(f"\n[bold]{step.why}[/bold]")
            out.print(f"[cyan]({number}/{len(steps)}) $ kedge {' '.join(step.arguments)}[/cyan]")
            code = run(list(step.arguments))
            if code != step.expected:
                raise InstrumentError(f"'kedge {' '.join(step.arguments)}' ended with {code}, not {step.expected}",
                                      f"run it again in {folder} to see why")  # fmt: skip
    reports = sorted(path for path in (folder / "lake").rglob("*.html") if ".tmp-" not in str(path))
    out.print("\n[bold]Reports[/bold]")
    for path in reports:
        out.print(f"  {path}", markup=False)
    out.print(f"\n[bold]Next, in {folder}[/bold]")
    for line in NEXT:
        out.print(f"  {line}", markup=False)
