"""The mirrors of TRL's GRPO and RLOO trainers against the installed ones: prompts are passed whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation import schema
from curation.auditing.audit import mirror_for
from curation.errors import UserError
from curation.measures.anatomy import anatomy_for
from curation.rendering import template_messages
from tests.talks import prompts

pytest.importorskip("trl")


def trainer_of(name: str, model: Path, folder: Path, rows: list[Any]) -> Any:
    import datasets
    import trl

    dataset = datasets.Dataset.from_list([{"prompt": template_messages(row)} for row in rows])
    config = getattr(trl, f"{name}Config")(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", num_generations=2,
        per_device_train_batch_size=2, max_completion_length=4)  # fmt: skip
    return getattr(trl, f"{name}Trainer")(str(model), args=config, train_dataset=dataset,
                                          reward_funcs=lambda completions, **_: [0.0] * len(completions))  # fmt: skip


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_prompts_reach_the_policy_whole_beyond_every_limit(tiny_model, tmp_path, name):
    rows = prompts(seed=3)
    rows.append([{"role": "user", "content": "far beyond the positions of the model " * 200}])
    trainer = trainer_of(name, tiny_model, tmp_path, rows)
    assert len(trainer.train_dataset) == len(rows)
    given = trainer._tokenize_prompts([template_messages(row) for row in rows])
    ids = given[0] if isinstance(given, tuple) else given
    table = pa.table({"prompt": pa.array(rows, schema.MESSAGES), "tools": pa.nulls(len(rows), pa.string()),
                      "reference_solution": pa.nulls(len(rows), pa.string())})  # fmt: skip
    measure = anatomy_for(None, str(tiny_model), "tokenizer", "whole", {}, "rlvr")
    rendered = measure.rendering.render_prompts(table.to_pylist())
    assert [item.ids.tolist() for item in rendered] == [list(item) for item in ids]
    mirror = mirror_for(f"trl_{name.lower()}", {"vllm_max_model_length": 64})
    fates = mirror.fates(measure.measure(table, "rlvr"))
    assert fates.kept.tolist() == [len(item) for item in ids] and fates.whole.all()


def test_a_limit_on_prompts_is_told_to_be_dead():
    with pytest.raises(UserError, match="this option is dead"):
        mirror_for("trl_grpo", {"max_prompt_length": 512})
