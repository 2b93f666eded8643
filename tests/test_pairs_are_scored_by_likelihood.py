"""Benchmarks of pairs for policies: log-likelihoods equal transformers' and TRL's own, are kept, and grow by DPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation import checkpoints, schema
from curation.catalog import Catalog
from curation.errors import UserError
from curation.mixtures import find_frozen
from evals.drift import drift
from evals.drift_report import as_json, markdown, page
from evals.evaluating import EvalReport, evaluate
from evals.pairs import PAIRS, PART, load_pairs
from evals.scores import read_beside, read_scores
from tests.pair_runs import enter, make_project, records, rows_of, score_here, turn, write_lines, write_yaml

BETA = 0.1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Catalog, dict[str, float]]:
    """The project, with the run `dpo` after five steps of TRL's DPO, and what TRL says of the held-out pairs."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    catalog = make_project(tmp_path_factory.mktemp("pairs") / "project", tiny_model)
    root, frozen = catalog.project.root, find_frozen(catalog, "pairs")
    torch.manual_seed(0)
    args = DPOConfig(output_dir=str(root / "out"), max_steps=5, per_device_train_batch_size=8, learning_rate=2e-3,
                     per_device_eval_batch_size=64, beta=BETA, report_to="none", use_cpu=True, bf16=False,
                     save_strategy="no", disable_tqdm=True, gradient_checkpointing=False, logging_steps=5)  # fmt: skip
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(root / "model"), args=args,
        processing_class=AutoTokenizer.from_pretrained(root / "model"),
        train_dataset=Dataset.from_list(rows_of(frozen.train)),
        eval_dataset=Dataset.from_list(rows_of(frozen.held_out)),
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model(str(root / "dpo-5"))
    enter(catalog, "dpo", 5, "dpo-5")
    return catalog, metrics


@pytest.fixture(scope="module")
def scored(trained: tuple[Catalog, dict[str, float]]) -> tuple[Catalog, EvalReport, dict[str, float]]:
    """The project after `eval dpo`; its process is tested in test_pairs_are_scored_in_a_process."""
    catalog, metrics = trained
    with pytest.MonkeyPatch.context() as patched:
        score_here(patched)
        return catalog, evaluate(catalog, "dpo"), metrics


def pairs_of(catalog: Catalog, reference: str, benchmark: str = "held") -> list[dict[str, Any]]:
    checkpoint = checkpoints.find(catalog, reference)
    found = read_scores(catalog, checkpoint, benchmark)
    assert found is not None
    table = read_beside(catalog, checkpoint, benchmark, found[1], PART)
    assert table is not None and table.schema == PAIRS
    return table.to_pylist()


def mean(rows: list[dict[str, Any]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def test_log_likelihoods_are_those_that_transformers_gives_answer_by_answer(scored):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    catalog, _, _ = scored
    folder = checkpoints.find(catalog, "dpo@5").folder(catalog)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    stored = {row["sample_id"]: row for row in pairs_of(catalog, "dpo@5")}
    items = load_pairs(catalog, "held").items
    assert len(items) == len(stored) > 10
    for item in items:
        prompt = tokenizer.apply_chat_template(item.row["prompt"], add_generation_prompt=True)["input_ids"]
        for side in ("chosen", "rejected"):
            ids = tokenizer.apply_chat_template(item.row["prompt"] + item.row[side])["input_ids"]
            with torch.no_grad():
                known = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
            own = sum(known[place - 1, ids[place]].item() for place in range(len(prompt), len(ids)))
            assert stored[item.sample_id][side] == pytest.approx(own, abs=1e-3)
            assert stored[item.sample_id][f"{side}_tokens"] == len(ids) - len(prompt)


def test_they_are_the_figures_of_trls_own_evaluation(scored):
    catalog, _, metrics = scored
    before, after = pairs_of(catalog, "base-model@0"), pairs_of(catalog, "dpo@5")
    assert metrics["eval_logps/chosen"] == pytest.approx(mean(after, "chosen"), rel=1e-5)
    assert metrics["eval_logps/rejected"] == pytest.approx(mean(after, "rejected"), rel=1e-5)
    grown = BETA * (mean(after, "margin") - mean(before, "margin"))
    assert metrics["eval_rewards/margins"] == pytest.approx(grown, rel=1e-3)


def test_every_pair_has_a_state_and_right_means_that_chosen_is_likelier(scored):
    catalog, report, _ = scored
    assert [(row["checkpoint"], row["benchmark"]) for row in report.results] == [
        ("base-model@0", "held"), ("dpo@5", "held")]  # fmt: skip
    found = read_scores(catalog, checkpoints.find(catalog, "dpo@5"), "held")
    assert found is not None
    rows, pairs = found[0].to_pylist(), pairs_of(catalog, "dpo@5")
    assert found[0].schema == schema.SCORES
    assert [row["sample_id"] for row in rows] == [row["sample_id"] for row in pairs]
    assert [row["score"] for row in rows] == [float(row["chosen"] > row["rejected"]) for row in pairs]
    last = report.results[-1]
    assert (last["score"], last["n"]) == (mean(rows, "score"), len(rows))
    assert last["margin"] == pytest.approx(mean(pairs, "margin"))
    assert {row["source"] for row in pairs} == {"a", "b"} and {row["policy_step"] for row in pairs} == {0, 100, 200}
    assert "--- chosen\nThe answer is" in rows[0]["prompt"] and "--- rejected\nIt may be" in rows[0]["prompt"]


def test_nothing_is_scored_twice_and_nothing_is_left_over(scored, monkeypatch):
    catalog, _, _ = scored
    written = score_here(monkeypatch)
    assert evaluate(catalog, "dpo").evaluated == [] and not written
    assert not list((catalog.lake / ".scoring").glob("*"))


def test_drift_shows_the_margin_that_grew(scored):
    catalog, _, metrics = scored
    report = drift(catalog, "dpo")
    (margin,) = report.margins
    assert margin.difference == pytest.approx(metrics["eval_rewards/margins"] / BETA, rel=1e-3)
    assert margin.interval is not None and margin.interval.low > 0 and margin.p is not None and margin.p < 0.05
    assert "the margin (log-likelihood) grew from base-model@0 to dpo@5" in margin.line
    for text in (page(report), markdown(report), json.dumps(as_json(report), default=str)):
        assert "grew from base-model@0 to dpo@5" in text


def test_normalised_log_likelihoods_are_those_of_a_token(scored, monkeypatch):
    catalog, _, _ = scored
    score_here(monkeypatch)
    catalogs = catalog.project.catalogs
    write_yaml(catalogs / "benchmarks" / "each.yaml", {"kind": "pairs", "mixture": "pairs", "normalise": "length"})
    write_yaml(catalogs / "suites" / "each.yaml", {"benchmarks": [{"name": "each"}]})
    evaluate(catalog, "dpo@5", "each")
    whole = {row["sample_id"]: row for row in pairs_of(catalog, "dpo@5")}
    for row in pairs_of(catalog, "dpo@5", "each"):
        assert row["chosen"] == pytest.approx(whole[row["sample_id"]]["chosen"] / row["chosen_tokens"])
        assert row["margin"] == row["chosen"] - row["rejected"]


def test_a_pair_that_is_longer_than_the_context_is_an_error_and_never_cut(scored, monkeypatch):
    catalog, _, _ = scored
    score_here(monkeypatch)
    root = catalog.project.root
    rows = records(6)
    rows[2]["prompt"] = turn("user", "17 plus 25? " * 400)
    write_lines(root / "long.jsonl", rows)
    write_yaml(root / "catalogs" / "benchmarks" / "long.yaml", {"kind": "pairs", "data": "long.jsonl"})
    write_yaml(root / "catalogs" / "suites" / "long.yaml", {"benchmarks": [{"name": "long"}]})
    result = evaluate(catalog, "dpo@5", "long").results[-1]
    assert (result["n"], result["error"], result["right"] + result["wrong"]) == (6, 1, 5)
    found = read_scores(catalog, checkpoints.find(catalog, "dpo@5"), "long")
    assert found is not None
    told = [row["detail"] for row in found[0].to_pylist() if row["state"] == "error"]
    assert len(told) == 1 and told[0].endswith("tokens, the model has 1,024 positions")
    assert sum(row["margin"] is None for row in pairs_of(catalog, "dpo@5", "long")) == 1


def test_rows_with_one_side_are_no_pairs_and_equal_pairs_are_one_cluster(scored, capfd):
    catalog, _, _ = scored
    root = catalog.project.root
    whole, alone = records(2)
    alone |= {"row_id": "f" * 32, "rejected": None}
    write_lines(root / "mixed.jsonl", [whole, whole, alone])
    write_yaml(root / "catalogs" / "benchmarks" / "mixed.yaml", {"kind": "pairs", "data": "mixed.jsonl"})
    first, second = load_pairs(catalog, "mixed").items
    assert second.sample_id == f"{first.sample_id}-2" and first.cluster == second.cluster
    assert "mixed: 1 rows have one answer only and are no pairs; 2 pairs are left" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "pairs"}, "give exactly one of 'data'"),
        ({"kind": "pairs", "data": "x", "mixture": "y"}, "give exactly one of 'data'"),
        ({"kind": "pairs", "data": "pairs.jsonl", "question": "{{ q }}"}, "kind pairs has no 'question'"),
        ({"kind": "pairs", "data": "pairs.jsonl", "prompt": "plain"}, "neither plain prompts nor repeats"),
        ({"kind": "reward", "mixture": "pairs"}, "is a mixture of stage preference, not rlvr"),
        ({"kind": "pairs", "data": "half.jsonl"}, "half.jsonl:2: is no record of shape"),
        ({"kind": "generative", "data": "x"}, "kind generative needs 'question'"),
    ],
)  # fmt: skip
def test_a_benchmark_that_cannot_be_asked_says_why(settings: dict[str, Any], told: str, scored, monkeypatch):
    from evals.benchmarks import load_task

    catalog, _, _ = scored
    root = catalog.project.root
    write_lines(root / "half.jsonl", [records(1)[0], {"prompt": "a", "chosen": "b"}])
    path = root / "catalogs" / "benchmarks" / "bad.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=told):
        (load_pairs if settings["kind"] == "pairs" else load_task)(catalog, "bad")
    path.unlink()
