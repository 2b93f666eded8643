"""The mirrors of TRL's DPO, reward and KTO trainers against the installed ones: ids, masks, dropped rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import schema
from curation.auditing.mirrors.trl_dpo import TRLDPO
from curation.auditing.mirrors.trl_kto import TRLKTO
from curation.auditing.mirrors.trl_reward import TRLReward
from curation.measures.anatomy import anatomy_for
from curation.measures.pair_anatomy import sequences
from curation.rendering import template_messages
from tests.talks import TOOLS, pairs

pytest.importorskip("trl")
LIMITS = [24, 64, 100, None]


def arguments(name: str, folder: Path, **options: Any) -> Any:
    import trl

    return getattr(trl, name)(output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False,
                              report_to="none", per_device_train_batch_size=2, **options)  # fmt: skip


def dataset_of(rows: list[dict[str, Any]]) -> Any:
    """Rows as TRL takes them; every third one has tools."""
    import datasets

    found = []
    for number, row in enumerate(rows):
        turns = {name: template_messages(given) for name, given in row.items()}
        found.append(turns | {"tools": TOOLS if number % 3 == 0 else None, "number": number})
    return datasets.Dataset.from_list(found)


def audited(model: Path, rows: list[dict[str, Any]], mirror: Any) -> tuple[list[Any], pa.Table, pa.Table]:
    """What kedge says of the same rows: rendered pairs, their anatomy, fates (one row per side)."""
    tools = [TOOLS if number % 3 == 0 else None for number in range(len(rows))]
    names = ("prompt", "chosen", "rejected")
    columns = {name: pa.array([row[name] for row in rows], schema.MESSAGES) for name in names}
    table = pa.table(columns | {"tools": pa.array(tools, pa.string())})
    measure = anatomy_for(None, str(model), "tokenizer", "trl_prompt_completion", {}, "preference")
    anatomy = measure.measure(table, "preference")
    row, side, _ = sequences(anatomy)
    fates = mirror.fates(anatomy).table()
    return measure.rendering.render_pairs(table.to_pylist()), anatomy, fates.append_column(
        "row", pa.array(row)).append_column("side", pa.array(side))  # fmt: skip


def kept_rows(fates: pa.Table) -> list[int]:
    return sorted({row for row, fate in zip(fates["row"].to_pylist(), fates["fate"].to_pylist(), strict=True)
                   if fate != "dropped"})  # fmt: skip


def keys(fates: pa.Table) -> list[tuple[int, int]]:
    """(row, side) of every sequence."""
    return list(zip(fates["row"].to_pylist(), fates["side"].to_pylist(), strict=True))


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
@pytest.mark.parametrize("max_length", LIMITS)
def test_dpo_batches_equal_the_trainers(tiny_model, tmp_path, max_length, mode):
    from trl import DPOTrainer

    rows = pairs(seed=3)
    options = {"max_length": max_length, "truncation_mode": mode}
    trainer = DPOTrainer(str(tiny_model), args=arguments("DPOConfig", tmp_path, **options),
                         train_dataset=dataset_of(rows))  # fmt: skip
    rendered, anatomy, fates = audited(tiny_model, rows, TRLDPO(**options))
    kept = kept_rows(fates)
    assert trainer.train_dataset["number"][:] == kept
    place = {key: index for index, key in enumerate(keys(fates))}
    for item in trainer.train_dataset:
        number = item["number"]
        batch = trainer.data_collator([item])
        prompt = min(anatomy["chosen_prompt_tokens"][number].as_py(), anatomy["rejected_prompt_tokens"][number].as_py())
        assert len(item["prompt_ids"]) == prompt
        for side, name in enumerate(("chosen", "rejected")):
            index = place[number, side]
            length = int(batch["attention_mask"][side].sum())
            of = fates["pieces"][index].as_py()
            start = of[0]["start"] if of else 0
            ids = getattr(rendered[number], name).ids
            assert fates["kept_tokens"][index].as_py() == length
            assert batch["input_ids"][side][:length].tolist() == ids[start : start + length].tolist()
            assert fates["kept_trained_tokens"][index].as_py() == int(batch["completion_mask"][side].sum())
    if max_length == 24:
        assert len(kept) < len(rows) or mode == "keep_end"


@pytest.mark.parametrize("max_length", [100, 200, 400, None])
def test_reward_pairs_equal_the_trainers(tiny_model, tmp_path, max_length):
    from trl import RewardTrainer

    rows = pairs(seed=5)
    trainer = RewardTrainer(str(tiny_model), args=arguments("RewardConfig", tmp_path, max_length=max_length),
                            train_dataset=dataset_of(rows))  # fmt: skip
    rendered, _, fates = audited(tiny_model, rows, TRLReward(max_length=max_length))
    kept = kept_rows(fates)
    assert trainer.train_dataset["number"][:] == kept
    assert max_length is None or 0 < len(kept) < len(rows)
    for item in trainer.train_dataset:
        pair = rendered[item["number"]]
        assert (item["chosen_ids"], item["rejected_ids"]) == (pair.chosen.ids.tolist(), pair.rejected.ids.tolist())
    assert set(fates["fate"].to_pylist()) <= {"whole", "dropped"}


@pytest.mark.parametrize("max_length", LIMITS)
def test_kto_rows_equal_the_trainers(tiny_model, tmp_path, max_length):
    from trl import KTOTrainer

    rows = pairs(seed=7)
    trainer = KTOTrainer(str(tiny_model), args=arguments("KTOConfig", tmp_path, max_length=max_length),
                         train_dataset=dataset_of(rows))  # fmt: skip
    rendered, _, fates = audited(tiny_model, rows, TRLKTO(max_length=max_length))
    place = {key: index for index, key in enumerate(keys(fates))}
    seen = set()
    for item in trainer.train_dataset:
        number, side = item["number"], 0 if item["label"] else 1
        seen.add((number, side))
        index = place[number, side]
        batch = trainer.data_collator([item])
        length = int(batch["attention_mask"].sum())
        ids = getattr(rendered[number], ("chosen", "rejected")[side]).ids
        assert fates["kept_tokens"][index].as_py() == length
        assert batch["input_ids"][0][:length].tolist() == ids[:length].tolist()
        assert fates["kept_trained_tokens"][index].as_py() == int(batch["completion_mask"].sum())
    assert seen == {key for key, index in place.items() if fates["fate"][index].as_py() != "dropped"}


def test_a_pair_as_long_as_the_limit_is_whole_and_one_token_more_is_not(tiny_model, tmp_path):
    from trl import RewardTrainer

    rows = pairs(seed=9, count=8)
    _, anatomy, _ = audited(tiny_model, rows, TRLDPO(max_length=None))
    longest = max(int(np.max(anatomy[f"{side}_tokens"].to_numpy())) for side in ("chosen", "rejected"))
    for limit in (longest, longest - 1):
        trainer = RewardTrainer(str(tiny_model), args=arguments("RewardConfig", tmp_path, max_length=limit),
                                train_dataset=dataset_of(rows))  # fmt: skip
        kept = kept_rows(audited(tiny_model, rows, TRLReward(max_length=limit))[2])
        assert trainer.train_dataset["number"][:] == kept
        assert (len(kept) == len(rows)) == (limit == longest)
        fates = audited(tiny_model, rows, TRLDPO(max_length=limit))[2]["fate"].to_pylist()
        assert ("cut" in fates or "dropped" in fates) == (limit < longest)


def test_a_pair_that_the_cut_makes_equal_trains_nothing_and_stays(tiny_model, tmp_path):
    from trl import DPOTrainer

    row = {"prompt": [{"role": "user", "content": "x"}],
           "chosen": [{"role": "assistant", "content": "same words " * 20 + "and a good end"}],
           "rejected": [{"role": "assistant", "content": "same words " * 20 + "or a bad one"}]}  # fmt: skip
    rows = [row, row]  # the first has tools, which fill the context
    trainer = DPOTrainer(str(tiny_model), args=arguments("DPOConfig", tmp_path, max_length=40),
                         train_dataset=dataset_of(rows))  # fmt: skip
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert len(trainer.train_dataset) == 1
    assert batch["input_ids"][0].tolist() == batch["input_ids"][1].tolist()
    _, anatomy, fates = audited(tiny_model, rows, TRLDPO(max_length=40))
    assert fates["fate"].to_pylist() == ["dropped", "cut", "dropped", "cut"]
    assert anatomy["common_prefix"][1].as_py() >= 40


def test_rows_that_lack_a_side_are_refused_by_dpo_and_taken_by_kto(tiny_model):
    rows = [dict(row) for row in pairs(seed=11, count=4)]
    rows[1]["rejected"], rows[2]["chosen"] = None, None
    _, anatomy, fates = audited(tiny_model, rows, TRLKTO())
    assert "2 rows lack" in TRLDPO().refuses(anatomy)[0] and TRLKTO().refuses(anatomy) == []
    assert keys(fates) == [(0, 0), (1, 0), (3, 0), (0, 1), (2, 1), (3, 1)]
