"""`kedge generate JOB`: what was there, what is new, how the answers ended."""

from __future__ import annotations

from typing import Any

from curation.catalog import Catalog
from curation.config import find_project, shown
from curation.console import out, print_json, say, table
from curation.errors import InstrumentError
from curation.generation import ERROR
from curation.generation._work import Generated, generate


def print_generation(job: str, as_json: bool) -> None:
    """Generate what is missing of a job and print what it has now. Raises InstrumentError, after all is printed, where
    every answer that was asked for failed."""
    done = generate(Catalog(find_project()), job)
    if as_json:
        print_json(summary(done))
    else:
        _print(done)
    failed = done.finish_reasons[ERROR]
    if done.num_asked and not done.num_generated:
        raise InstrumentError(f"none of the {done.num_asked:,} answers came: {done.detail}",
                              f"mend the cause, then run: kedge generate {done.job}")  # fmt: skip
    if failed:
        say(f"{failed:,} answers failed ({done.detail}); to ask them again: kedge generate {done.job}")


def summary(done: Generated) -> dict[str, Any]:
    """The counts of a job as `--json` prints them. `tokens_per_second` is of what was generated now, None where nothing
    was."""
    return {
        "job": done.job, "model": done.model, "weights": done.weights, "fingerprint": done.fingerprint,
        "folder": shown(done.folder), "rows": done.num_rows, "repeated": done.num_repeated,
        "without_prompt": done.num_without, "prompts": done.num_prompts, "samples": done.num_samples,
        "already_there": done.num_there, "generated": done.num_generated, "finish_reasons": done.finish_reasons,
        "output_tokens": done.output_tokens,
        "tokens_per_second": done.output_tokens / done.seconds if done.output_tokens else None,
    }  # fmt: skip


def _print(done: Generated) -> None:
    told = summary(done)
    names = ["prompts", "samples", "already_there", "generated"]
    cells = [told[name] for name in names] + [*done.finish_reasons.values(), told["tokens_per_second"]]
    table(f"{done.job}: {done.model}", [*(name.replace("_", " ") for name in names), *done.finish_reasons, "tokens/s"],
          [cells])  # fmt: skip
    for count, what in ((done.num_repeated, "have the prompt of another"), (done.num_without, "have no prompt")):
        if count:
            out.print(f"{count:,} of {done.num_rows:,} rows {what}", markup=False)
    out.print(f"{done.job}@{done.fingerprint[:12]}: in {shown(done.folder)}", markup=False)
    out.print(f"next: kedge sql \"SELECT text FROM generation WHERE job = '{done.job}'\"", markup=False)
