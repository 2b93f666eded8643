"""Rows as verl's own datasets hold and render them; runs inside verl's environment, for verl_check.py."""

from __future__ import annotations

from typing import Any

Case = dict[str, Any]
COMPARED_ROWS = 2000
SHOWN = 5


def lengths(case: Case, cfg: Any) -> tuple[dict[str, int], list[str]]:
    """Rows that verl's own dataset holds of what was written, and where it renders rows otherwise than the audit."""
    from omegaconf import OmegaConf
    from verl.utils import hf_tokenizer

    OmegaConf.set_struct(cfg, False)
    cfg.data.cache_dir = case["cache"]
    tokenizer = hf_tokenizer(case["tokenizer"])
    found: dict[str, int] = {}
    differing: list[str] = []
    for split, num_rows in case["data"].items():
        if num_rows:
            dataset = built(case, cfg, split, tokenizer)
            found[split] = len(dataset)
            if split == "train":
                differing = compared(case, dataset, tokenizer)
    return found, differing


def built(case: Case, cfg: Any, split: str, tokenizer: Any) -> Any:
    files = cfg.data[f"{split}_files"]
    if case["entry"] == "sft":
        from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

        return MultiTurnSFTDataset(files, tokenizer, cfg.data)
    from verl.utils.dataset.rl_dataset import RLHFDataset

    return RLHFDataset(files, tokenizer, cfg.data)


def compared(case: Case, dataset: Any, tokenizer: Any) -> list[str]:
    """Up to 2,000 rows, evenly spaced, whose ids in verl are not those of the audit."""
    import numpy as np
    import pyarrow.parquet as pq
    import xxhash

    audited = {row["row_id"]: row for row in pq.read_table(case["audited"]).to_pylist()}
    kwargs = case["settings"].get("data.apply_chat_template_kwargs") or {}
    problems = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, COMPARED_ROWS).astype(int)).tolist():
        if case["entry"] == "sft":
            row_id = dataset.dataframe["row_id"].iloc[index]
            ids = dataset[index]["input_ids"].tolist()
        else:
            row = dataset.dataframe[index]
            row_id = row["extra_info"]["row_id"]
            ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False, **kwargs)
        wanted = audited.get(row_id)
        if wanted is None or wanted["ids_hash"] is None:
            continue
        if xxhash.xxh3_64_intdigest(np.asarray(ids, "<i4").tobytes()) != wanted["ids_hash"]:
            problems.append(f"row {row_id}: verl renders {len(ids)} tokens, the audit {wanted['tokens']}")
    return problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
