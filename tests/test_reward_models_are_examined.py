"""Reward models scored and reported: one trained by TRL, a constant head, and one that counts tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import UserError
from evals.drift import drift
from evals.drift_report import margin_lines
from evals.evaluating import EvalReport, evaluate
from evals.pairs import PART, load_pairs, load_probe_pairs
from evals.reward_models import accuracy, combine
from evals.scores import read_beside, read_scores
from evals.scoring import is_reward_model
from tests.pair_runs import enter, records, score_here, write_lines, write_yaml

STEPS = 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Catalog:
    """A base, the reward models `rm@20` (TRL), `constant@1`, `counting@1` and `adapted@1` (LoRA), and 40 pairs."""
    root = tmp_path_factory.mktemp("rewards") / "project"
    root.mkdir()
    write_yaml(root / "kedge.yaml", {"tokenizers": {}})
    rows = records(90)
    write_lines(root / "held.jsonl", [row | {"margin": 1.0 + n % 3} for n, row in enumerate(rows[50:])])
    write_yaml(root / "catalogs" / "benchmarks" / "held.yaml", {"kind": "pairs", "data": "held.jsonl",
                                                                "source": "origin"})  # fmt: skip
    members = ["rm@20", "counting@1"]
    write_yaml(root / "catalogs" / "suites" / "one.yaml", {
        "benchmarks": [{"name": "held", "margin": 0.2}],
        "ensembles": {"calm": {"members": members}, "careful": {"members": members, "reward": "min"}},
    })  # fmt: skip
    shutil.copytree(tiny_model, root / "model")
    catalog = Catalog(find_project(root))
    checkpoints.register_base(catalog, "model")
    train(root, rows[:50])
    make_heads(root)
    enter(catalog, "rm", STEPS, "rm-20")
    for run in ("constant", "counting"):
        enter(catalog, run, 1, run)
    base = checkpoints.find(catalog, "base-model")
    enter(catalog, "adapted", 1, "adapted", base_path="model", base_hash=base.weights_hash)
    return catalog


def train(root: Path, rows: list[dict[str, Any]]) -> None:
    """Twenty steps of TRL's RewardTrainer."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    model = AutoModelForSequenceClassification.from_pretrained(root / "model", num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    args = RewardConfig(output_dir=str(root / "out"), max_steps=STEPS, per_device_train_batch_size=8,
                        learning_rate=5e-4, report_to="none", use_cpu=True, bf16=False, save_strategy="no",
                        disable_tqdm=True, gradient_checkpointing=False, logging_steps=STEPS)  # fmt: skip
    pairs = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows]
    trainer = RewardTrainer(model=model, args=args, processing_class=tokenizer, train_dataset=Dataset.from_list(pairs))
    trainer.train()
    trainer.save_model(str(root / "rm-20"))


def make_heads(root: Path) -> None:
    """`constant`: a head of zeros. `counting`: every token attends to all equally, the marks that begin a turn are seen
    and weigh against the score, and there are as many in every answer: the more tokens, the higher the score.
    `adapted`: an adapter with a head of its own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        LlamaConfig,
        LlamaForSequenceClassification,
    )

    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    constant = AutoModelForSequenceClassification.from_pretrained(root / "rm-20")
    constant.score.weight.data.zero_()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        num_labels=1, max_position_embeddings=1024, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    counting = LlamaForSequenceClassification(config)
    with torch.no_grad():
        for name, weight in counting.named_parameters():
            if "norm" not in name:
                weight.zero_()
        layer = counting.model.layers[0].self_attn
        counting.model.embed_tokens.weight[:, 2] = 1.0
        counting.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("<|im_start|>"), 0] = 1.0
        layer.v_proj.weight[0, 0] = layer.o_proj.weight[1, 0] = 1.0
        counting.score.weight[0, 1] = -30.0
    for model, name in ((constant, "constant"), (counting, "counting")):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    torch.manual_seed(1)
    base = AutoModelForSequenceClassification.from_pretrained(root / "model", num_labels=1)
    lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["o_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(root / "adapted")


@pytest.fixture(scope="module")
def scored(project: Catalog) -> tuple[Catalog, dict[str, EvalReport]]:
    """Every reward model after `eval` (the base of the first one too)."""
    with pytest.MonkeyPatch.context() as patched:
        score_here(patched)
        evaluate(project, "counting@1")  # a member of the ensembles that the others report
        return project, {name: evaluate(project, name, to=project.project.root / "told" / name)
                         for name in ("rm", "constant@1", "counting@1", "adapted@1")}  # fmt: skip


def scores_of(catalog: Catalog, reference: str, benchmark: str = "held") -> dict[str, dict[str, Any]]:
    checkpoint = checkpoints.find(catalog, reference)
    found = read_scores(catalog, checkpoint, benchmark)
    assert found is not None
    table = read_beside(catalog, checkpoint, benchmark, found[1], PART)
    assert table is not None
    return {row["sample_id"]: row for row in table.to_pylist()}


def sides(rows: dict[str, dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([rows[key][side] for key in sorted(rows)]) for side in ("chosen", "rejected"))  # type: ignore[return-value]


def told(catalog: Catalog, name: str) -> dict[str, Any]:
    return dict(json.loads((catalog.project.root / "told" / name / "reward_model.json").read_text()))


def test_a_reward_model_is_known_by_its_architecture_or_its_adapter(project):
    known = {item.id: is_reward_model(project, item) for item in checkpoints.every(project)}
    assert known == {"base-model@0": False, "rm@20": True, "constant@1": True, "counting@1": True, "adapted@1": True}


def test_scores_and_accuracy_are_those_that_transformers_gives(scored):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    catalog, reports = scored
    folder = checkpoints.find(catalog, "rm@20").folder(catalog)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows, right = scores_of(catalog, "rm@20"), 0
    items = load_pairs(catalog, "held").items
    for item in items:
        with torch.no_grad():
            own = [model(torch.tensor([tokenizer.apply_chat_template(item.row["prompt"] + item.row[side])["input_ids"]])
                         ).logits.item() for side in ("chosen", "rejected")]  # fmt: skip
        assert [rows[item.sample_id][side] for side in ("chosen", "rejected")] == pytest.approx(own, abs=1e-4)
        right += own[0] > own[1]
    result = reports["rm"].results[-1]
    assert (result["score"], result["n"]) == (right / len(items), 40) and result["score"] > 0.9
    assert told(catalog, "rm")["benchmarks"][0]["accuracy"]["count"] == right


def test_an_adapter_with_a_head_is_scored_as_peft_loads_it(scored):
    import torch
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    catalog, _ = scored
    root = catalog.project.root
    model = AutoPeftModelForSequenceClassification.from_pretrained(root / "adapted", num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "model")
    rows = scores_of(catalog, "adapted@1")
    for item in load_pairs(catalog, "held").items[:3]:
        ids = tokenizer.apply_chat_template(item.row["prompt"] + item.row["chosen"])["input_ids"]
        with torch.no_grad():
            own = model(torch.tensor([ids])).logits.item()
        assert rows[item.sample_id]["chosen"] == pytest.approx(own, abs=1e-4)


def test_a_reward_model_that_learned_is_reported_without_a_collapse(scored):
    catalog, _ = scored
    value = told(catalog, "rm")
    (figures,) = value["benchmarks"]
    assert figures["shape"]["collapsed"] == "" and figures["accuracy"]["interval"][0] > 0.5
    assert set(figures["sources"]) == {"a", "b"} and figures["known_margin"] is not None
    assert [step for step, _ in figures["policy"]["steps"]] == [100, 200]
    page = (catalog.project.root / "told" / "rm" / "report.html").read_text()
    for text in ("Accuracy on held-out pairs", "Probes: what is preferred", "careful", "policy step", "<svg"):
        assert text in page


def test_a_constant_head_is_reported_as_collapsed(scored):
    catalog, _ = scored
    value = told(catalog, "constant@1")
    assert any("the scores have collapsed: 40 of 40 pairs tie" in flag for flag in value["flags"])
    assert [made["verdict"] for made in value["probes"]] == ["undecided"] * 3


def test_a_head_that_counts_tokens_trips_the_length_probe(scored):
    catalog, _ = scored
    value = told(catalog, "counting@1")
    (figures,) = value["benchmarks"]
    assert figures["length"]["correlation"]["value"] > 0.9
    verdicts = {made["name"]: made["verdict"] for made in value["probes"]}
    assert verdicts["length"] == "prefers"
    assert any(flag.startswith("probe length: the probed answer wins in 100.0 %") for flag in value["flags"])


def test_ensembles_are_made_of_the_members_stored_scores(scored):
    catalog, _ = scored
    members = {name: sides(scores_of(catalog, name)) for name in ("rm@20", "counting@1")}
    made = {item["name"]: item for item in told(catalog, "rm")["ensembles"]}
    for name, reward in (("calm", "mean"), ("careful", "min")):
        own = accuracy(*combine(list(members.values()), reward))
        assert made[name]["accuracy"]["share"] == own.share
        assert {key: item["share"] for key, item in made[name]["members"].items()} == {
            key: accuracy(*pair).share for key, pair in members.items()}  # fmt: skip
    assert told(catalog, "constant@1")["ensembles"] == []


def test_drift_compares_a_base_and_its_reward_model_by_pairs_and_not_by_margins(scored):
    catalog, _ = scored
    report = drift(catalog, "rm")
    (made,) = [item for item in report.of("rm@20") if item.against == "start"]
    assert not report.instrument and made.n == 40 and made.score_b > 0.9
    lines = margin_lines(report)
    assert lines[0].endswith("log-likelihood and reward have no common unit")
    assert lines[1].startswith("reward model report: lake/reward_models/rm@20/") and "report.html" in lines[1]


def test_a_suite_without_pairs_says_what_a_reward_model_needs(scored, kedge, monkeypatch):
    catalog, _ = scored
    root = catalog.project.root
    monkeypatch.chdir(root)
    write_lines(root / "sums.jsonl", [{"q": "1 + 1?", "a": "2"}])
    write_yaml(root / "catalogs" / "benchmarks" / "sums.yaml", {"data": "sums.jsonl", "question": "{{ q }}",
                                                                "answer": "a"})  # fmt: skip
    write_yaml(root / "catalogs" / "suites" / "sums.yaml", {"benchmarks": [{"name": "sums"}]})
    with pytest.raises(UserError, match="is a reward model, and the suite 'sums' has no benchmark of kind pairs"):
        evaluate(catalog, "rm@20", "sums")
    code, out, _ = kedge("eval", "rm@20", "--suite", "one", "--to", root / "page")
    assert code == 0 and "reward model rm@20: page/report.html" in out
    assert (root / "page" / "report.html").is_file()


def test_the_shipped_probes_differ_in_what_they_probe_alone(project):
    tasks = {task.name: task for task in load_probe_pairs(project)}
    assert set(tasks) == {"probe_formatting", "probe_length", "probe_sycophancy"}
    for task in tasks.values():
        assert 20 <= len(task.items) <= 40
        assert len({item.cluster for item in task.items}) == len(task.items)
    texts = {name: [tuple(item.row[side][0]["content"] for side in ("chosen", "rejected")) for item in task.items]
             for name, task in tasks.items()}  # fmt: skip
    assert all(len(padded) > 8 * len(short) and short.strip(".").lower() in padded.lower()
               for short, padded in texts["probe_length"])  # fmt: skip
    for plain, marked in texts["probe_formatting"]:
        assert any(mark in marked for mark in ("- ", "* ", "1. ")) and not any(mark in plain for mark in "*#\n")
        assert len(set(words(marked)) - set(words(plain))) <= 2
    corrects, agrees = (sum(map(len, side)) for side in zip(*texts["probe_sycophancy"], strict=True))
    assert 0.85 < agrees / corrects < 1.15  # so that a preference for length is not taken for one for agreement


def words(text: str) -> list[str]:
    return [word for word in "".join(sign if sign.isalnum() else " " for sign in text.lower()).split() if len(word) > 2]
