"""LightEval's custom tasks: one per request set of the job file that the environment names.

LightEval imports this file by its path. Prompts arrive rendered and tokenized, so that a chat template's arguments are
honoured and no beginning-of-sequence token is doubled; the own sample id travels in `Doc.specific`, because LightEval
overwrites `Doc.id` with the row's number.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

JOB_VARIABLE = "KEDGE_LIGHTEVAL_JOB"


def task_name(index: int) -> str:
    """LightEval's name of a request set; its own names allow no free text."""
    return f"kedge_{index:03d}"


def _document(line: dict[str, Any], task: str | None = None) -> Any:
    from lighteval.tasks.requests import Doc

    specific = {"sample_id": line["sample_id"], "repeat": line["repeat"], "prompt_ids": line["prompt_ids"]}
    return Doc(
        task_name=task or "",
        query=line["prompt"],
        choices=line["options"] or [line["gold"]],
        gold_index=line["gold_index"],
        specific=specific,
    )


def tasks(job: dict[str, Any], folder: Path) -> list[Any]:
    """LightEval's task configurations for a job whose request files lie in `folder`."""
    from lighteval.metrics.metrics import Metrics
    from lighteval.tasks.lighteval_task import LightevalTaskConfig

    return [
        LightevalTaskConfig(
            name=task_name(index),
            prompt_function=_document,
            hf_repo=str(folder / f"requests-{index:03d}"),
            hf_subset="default",
            hf_avail_splits=["test"],
            evaluation_splits=["test"],
            metrics=[Metrics.loglikelihood_acc if item["options"] else Metrics.exact_match],
            generation_size=-1 if item["options"] else item["max_new_tokens"],
            stop_sequence=[],
            version=1,
        )
        for index, item in enumerate(job["sets"])
    ]


if JOB_VARIABLE in os.environ:
    _path = Path(os.environ[JOB_VARIABLE])
    TASKS_TABLE = tasks(json.loads(_path.read_text()), _path.parent)
