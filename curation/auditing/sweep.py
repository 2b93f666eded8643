"""A sweep: the same rows under many context lengths, by arithmetic over stored anatomy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curation.auditing.audit import mirror_for
from curation.auditing.case import Case, checks_of, template_checks
from curation.auditing.judged import Judged, by_source
from curation.auditing.packing_checks import padding_waste
from curation.auditing.what_if import longest_on, memory_at

LENGTHS = tuple(2**power for power in range(9, 18))  # 512 to 131,072
KEEP = 0.99
SAMPLED = 10_000
Other = tuple[str, str, dict[str, Any]]  # label, mirror, options
PER_DEVICE = 8  # TRL's default
PACKED: list[Other] = [(f"TRL SFT, {strategy}", "trl_sft", {"packing": True, "packing_strategy": strategy})
          for strategy in ("bfd", "bfd_split", "wrapped")]  # fmt: skip
TURNS: list[Other] = [("LLaMA-Factory SFT", "llama_factory_sft", {}), ("axolotl SFT, drop", "axolotl_sft", {})]
OTHERS: dict[str, list[Other]] = {
    "midtrain": [("TRL SFT", "trl_sft", {}), *PACKED],
    "sft": [("TRL SFT", "trl_sft", {}), *PACKED, *TURNS],
    "preference": [("TRL DPO", "trl_dpo", {}), ("TRL reward", "trl_reward", {}), ("TRL KTO", "trl_kto", {}),
                   ("LLaMA-Factory DPO", "llama_factory_dpo", {}), ("axolotl DPO, drop", "axolotl_dpo", {})],
    "unpaired": [("TRL KTO", "trl_kto", {})],
    "rlvr": [("verl RL, filtered", "verl_rl", {"filter_overlong_prompts": True}),
             ("verl RL, unfiltered", "verl_rl", {"filter_overlong_prompts": False})],
}  # fmt: skip


@dataclass
class Sweep:
    """What every length keeps. `lengths` has one entry per context length, ascending: `max_length`, counts over all
    sequences (those of judged.by_source), `sources` (the same per source), `failed`, the ids of the checks that are
    errors, `padding_waste` (share of a batch), `sequences`, `steps` (at `batch_size` sequences) and `memory` (what_if;
    None where the model is unknown). `trainers` holds the same counts under other trainers and packings, over at most
    SAMPLED rows, `longest` the longest context that fits on each preset of devices. `proposals` names the smallest
    lengths, in tokens, that keep 99 % of the answers, of the closed thoughts and of the rows of every source; None
    where there are none."""

    subject: str
    mirror: str
    options: dict[str, Any]
    num_rows: int
    lengths: list[dict[str, Any]]
    proposals: dict[str, int | None]
    trainers: list[dict[str, Any]] = field(default_factory=list)
    longest: dict[str, int | None] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything a report shows."""
        return {name: value for name, value in vars(self).items() if name != "folder"}


def sweep(case: Case, lengths: tuple[int, ...] = LENGTHS) -> Sweep:
    """Audit N rows at every length up to the first that holds the longest sequence."""
    mirror = case.mirror
    longest = int(np.max(case.sequences[2]["tokens"].to_numpy(), initial=1))
    everything = case.judged(mirror.at(longest).fates(case.anatomy))
    batch = batch_size(case)
    failing = [check.id for check in template_checks(case) if check.level == "error"]
    wanted = [length for length in lengths if length < 2 * longest] or list(lengths[:1])
    entries = []
    for length in wanted:
        at = replace(case, mirror=mirror.at(length))
        judged = everything.under(at.mirror.fates(case.anatomy))
        counts = by_source(judged)
        failed = [check.id for check in checks_of(at, judged, counts) if check.level == "error"] + failing
        sequences = judged.fates.num_bins() or int((~judged.dropped).sum())
        waste = 0.0 if at.mirror.packs else padding_waste(judged.kept[judged.kept > 0], per_device(case))
        entries.append({"max_length": length, "failed": failed, "sources": counts[:-1], "padding_waste": waste,
                        "sequences": sequences, "batch_size": batch, "steps": -(-sequences // batch),
                        "memory": memory_at(case, length)} | counts[-1])  # fmt: skip
    options = mirror.model_dump(mode="json", exclude={mirror.limits})
    return Sweep(case.subject, mirror.plugin_name(), options, case.rows.num_rows, entries, proposals(everything),
                 trainers(case, wanted), longest_on(case), {"default_step": not case.setting.options,
                                                             "stage": case.stage})  # fmt: skip


def per_device(case: Case) -> int:
    """Sequences of one device in one forward pass, as the options say or the trainer's default does."""
    return int(case.setting.options.get("per_device_train_batch_size", PER_DEVICE))


def batch_size(case: Case) -> int:
    """Sequences behind one optimiser step."""
    return per_device(case) * int(case.setting.options.get("gradient_accumulation_steps", 1)) * \
        case.setting.num_processes  # fmt: skip


def sample(case: Case) -> Case:
    """Every k-th row, so that at most SAMPLED stay."""
    rows = np.arange(0, case.rows.num_rows, -(-case.rows.num_rows // SAMPLED) or 1)
    return replace(case, rows=case.rows.take(rows), anatomy=case.anatomy.take(rows), labels={})


def trainers(case: Case, lengths: list[int]) -> list[dict[str, Any]]:
    """What other trainers, and the same with packing, keep at every length: arithmetic over the same anatomy."""
    few = sample(case)
    found = []
    kind = "unpaired" if case.mirror.plugin_name() == "trl_kto" else case.stage
    for label, name, options in OTHERS[kind]:
        mirror = mirror_for(name, options, checked=True)
        if mirror.plugin_name() == "trl_sft" and case.mirror.plugin_name() == "trl_sft":
            mirror = case.mirror.model_copy(update=options)
        counts, judged = [], None
        for length in lengths:
            fates = mirror.at(length).fates(few.anatomy)
            judged = few.judged(fates) if judged is None else judged.under(fates)
            bins = fates.num_bins()
            filled = None if bins is None else float(fates.kept.sum() / (bins * length))
            counts.append({"max_length": length, "filled": filled} | by_source(judged)[-1])
        found.append({"trainer": label, "mirror": name, "read_not_run": mirror.read_not_run, "options": options,
                      "num_rows": few.rows.num_rows, "lengths": counts})  # fmt: skip
    return found


def proposals(rows: Judged) -> dict[str, int | None]:
    """The smallest context length that keeps a share of 99 %, in the source that needs most: of answers, of closed
    thoughts, of whole rows."""
    needed = {
        "answers": (rows.has_answer, rows.answer_end),
        "thoughts": (rows.closes, rows.close_end),
        "rows": (~rows.errors, rows.tokens),
    }
    found: dict[str, int | None] = {}
    for name, (having, length) in needed.items():
        groups = [having & (rows.source == index) for index in range(len(rows.names))]
        ends = [int(np.quantile(length[group], KEEP, method="inverted_cdf")) for group in groups if group.any()]
        found[name] = max(ends, default=None)
    return found
