"""Every stage of post-training on the quickstart's model, under TRL and verl: what each did to held-out rows.

`python -m tests.benchmarks.stages [--folder DIR] [--without-verl]` makes the quickstart's project and walks, by kedge's
own commands, mid-training -> SFT -> APO -> GRPO under TRL; from the same APO checkpoint GRPO under verl; and from an
SFT that answers in words -> reward model -> PPO under verl with that model, whose effect an exact verifier sees. All
without an accelerator (an hour on two cores).
Every figure is the drift report's: a stage's last checkpoint beside the one that it started from, on questions that no
training file holds (`addition`, `reversal`), on held-out pairs (`preferred`, with the margin between chosen and
rejected; `styles` for the reward model) and on held-out prompts (`rewarded`). The table and the JSON line say what each
stage is for and whether it did that detectably. The same command with the same folder goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console
from rich.table import Table

from curation.errors import EXIT_OK, EXIT_UNDECIDED, UserError
from tests.benchmarks.watching import kedge
from tests.verl_cpu import kedge_project
from tests.verl_cpu.kedge_project import ACTOR, CRITIC, RL, ROLLOUT
from trainers.verl_rl import PRESETS

ADDED = (
    ("data/skills.jsonl", "--stage", "midtrain"), ("addition",), ("data/reversal.jsonl",), ("pairs",), ("questions",),
    ("wordy",), ("styles",),
)  # fmt: skip
UNDER_VERL = RL | {
    "max_prompt_length": 40, "max_response_length": 40, "trainer.test_freq": -1,
    "trainer.v1.sampler.custom_sampler.path": str(kedge_project.HERE / "sampler.py"),
    "trainer.v1.sampler.custom_sampler.name": "OftenLooking",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": 64, f"{ACTOR}.optim.lr": 1e-4, f"{ACTOR}.optim.lr_warmup_steps": 5,
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 64,
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 64,
}  # fmt: skip
VERL_GRPO = PRESETS["grpo"] | UNDER_VERL | {
    "train_batch_size": 32, f"{ACTOR}.ppo_mini_batch_size": 32, f"{ROLLOUT}.n": 8,
    "trainer.total_epochs": 2, "trainer.total_training_steps": 100, "trainer.save_freq": 50,
}  # fmt: skip
VERL_PPO = PRESETS["ppo"] | UNDER_VERL | CRITIC | {
    "train_batch_size": 256, f"{ACTOR}.ppo_mini_batch_size": 128, "critic.ppo_mini_batch_size": 128,
    "critic.ppo_micro_batch_size_per_gpu": 64, "critic.optim.lr": 3e-4,
    "algorithm.kl_ctrl.kl_coef": 0.2,  # at 0.001 the reward grew to the end, and right answers became fewer
    "trainer.total_epochs": 2, "trainer.total_training_steps": 12, "trainer.save_freq": 6,
}  # fmt: skip
RUNS_UNDER_VERL: dict[str, dict[str, Any]] = {
    "verl_grpo": {"trainer": VERL_GRPO, "parent": "apo", "rewards": [{"name": "answer"}]},
    "verl_ppo": {"trainer": VERL_PPO, "parent": "sft_wordy", "rewards": [{"name": "reward_model"}],
                 "reward_model": "reward", "suite": "reported"},
}  # fmt: skip


@dataclass(frozen=True)
class Purpose:
    """What a stage is for, and the benchmark that shows it: a `score` or `margin` above its start's."""

    run: str
    benchmark: str
    by: Literal["score", "margin"] = "score"


SCORES = ("addition", "reversal", "rewarded", "preferred", "styles")
PURPOSES = (
    Purpose("mid", "addition"), Purpose("sft_both", "rewarded"), Purpose("apo", "preferred", "margin"),
    Purpose("grpo", "rewarded"), Purpose("verl_grpo", "rewarded"), Purpose("reward", "styles"),
    Purpose("verl_ppo", "rewarded"),
)  # fmt: skip


def make(folder: Path) -> None:
    """The quickstart's project with its five sources added and measured, and the runs under verl."""
    from curation.quickstart.journey import prepare

    prepare(folder)
    for name, more in RUNS_UNDER_VERL.items():
        content = {"mixture": "questions", "suite": "stages", **more}
        (folder / "catalogs" / "runs" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    for arguments in (*(("add", *source) for source in ADDED), ("measure",)):
        run(folder, *arguments)


def run(folder: Path, *arguments: str) -> None:
    """One command. Raises RuntimeError where it neither succeeds nor stays undecided."""
    print(f"$ kedge {' '.join(arguments)}", file=sys.stderr, flush=True)
    code = subprocess.run(kedge(*arguments), cwd=folder, stdout=sys.stderr).returncode
    if code not in (EXIT_OK, EXIT_UNDECIDED):
        raise RuntimeError(f"kedge {' '.join(arguments)} ended with {code}; the same command goes on in {folder}")


def figures(folder: Path, purpose: Purpose) -> dict[str, Any]:
    """Of a run's drift report: each benchmark's score of the run's start and last checkpoint, margins, and whether what
    the stage is for improved detectably."""
    done = subprocess.run(kedge("drift", purpose.run, "--json"), cwd=folder, capture_output=True, text=True)
    report = json.loads(done.stdout)
    own = [item for item in report["comparisons"] if (item["a"], item["b"]) == (report["start"], report["last"])]
    scores = {item["benchmark"]: {name: item[name] for name in ("score_a", "score_b", "interval", "direction", "n")}
              for item in own}  # fmt: skip
    margins = {item["benchmark"]: {name: item[name] for name in ("difference", "interval", "p", "n")}
               for item in report["margins"] if item["b"] == report["last"]}  # fmt: skip
    if purpose.by == "margin":
        did = margins[purpose.benchmark]["interval"][0] > 0
    else:
        did = scores[purpose.benchmark]["direction"] == "improved"
    return {"start": report["start"], "last": report["last"], "scores": scores, "margins": margins,
            "for": f"{purpose.benchmark}, {purpose.by}", "did": did,
            "report": report["report"]}  # fmt: skip


def show(found: dict[str, dict[str, Any]]) -> None:
    """The table of stages."""
    table = Table(title="stages, in points; margins in nats")
    for name in (
        "stage",
        "from",
        "addition",
        "reversal",
        "rewarded",
        "preferred",
        "styles",
        "margin",
        "is for",
        "did it",
    ):
        table.add_column(name)
    for item in found.values():
        cells = list(_cells(item))
        table.add_row(item["last"], item["start"], *cells, item["for"], "yes" if item["did"] else "NOT DETECTABLY")
    Console(stderr=True, width=160).print(table)


def _cells(item: dict[str, Any]) -> Iterator[str]:
    for name in SCORES:
        score = item["scores"].get(name)
        yield f"{100 * score['score_a']:.1f} → {100 * score['score_b']:.1f}" if score else ""
    margin = item["margins"].get("preferred")
    yield f"{margin['difference']:+.2f} [{margin['interval'][0]:+.2f}, {margin['interval'][1]:+.2f}]" if margin else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--without-verl", action="store_true")
    asked = parser.parse_args()
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="stages-")) / "project").resolve()
    make(folder)
    for name in ("grpo", "reward"):
        run(folder, "train", name, "--chain")
    purposes = [purpose for purpose in PURPOSES if not (asked.without_verl and purpose.run.startswith("verl_"))]
    if not asked.without_verl:
        with kedge_project.without_accelerator():
            for name in RUNS_UNDER_VERL:
                run(folder, "train", name, "--chain")
    found = {purpose.run: figures(folder, purpose) for purpose in purposes}
    show(found)
    print(json.dumps({"folder": str(folder), "did_their_work": sum(item["did"] for item in found.values()),
                      "num_stages": len(found), "stages": found}))  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
