"""`kedge audit` of preference and rlvr data, bare, as a mixture and as a run, and of launch files of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from curation.catalog import Catalog
from curation.config import find_project

pytest.importorskip("trl")


def write(path: str, rows: list[dict[str, Any]]) -> Path:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(path)


def pairs(count: int = 40) -> list[dict[str, Any]]:
    """Every fourth pair has a chosen answer of some 120 words, every eighth a prompt as long."""
    return [{"prompt": [{"role": "user", "content": "why " * (120 if n % 8 == 1 else 2) + str(n)}],
             "chosen": [{"role": "assistant", "content": "12 plus " * (60 if n % 4 == 0 else 2) + str(n)}],
             "rejected": [{"role": "assistant", "content": f"no {n}"}]} for n in range(count)]  # fmt: skip


def prompts(count: int = 20) -> list[dict[str, Any]]:
    return [{"prompt": [{"role": "user", "content": f"What is {n} plus 3? " * (30 if n < 2 else 1)}],
             "ground_truth": str(n + 3), "verifier": "numeric", "reference_solution": f"{n} plus 3 is {n + 3}. " * n,
             "pass_rates": [0.03]} for n in range(count)]  # fmt: skip


def checks(out: str) -> dict[str, dict[str, Any]]:
    return {check["id"]: check for check in json.loads(out)["checks"]}


def test_a_file_of_pairs_is_audited_as_dpo_would_train_it(catalog, tiny_model, kedge):
    write("pairs.jsonl", pairs())
    code, out, err = kedge(
        "audit", "pairs.jsonl", "--tokenizer", tiny_model, "--max-length", "64", "--json", "--to", "x"
    )
    assert code == 1, err
    found, audit = checks(out), json.loads(out)
    assert audit["mirror"] == "trl_dpo" and audit["num_rows"] == 40
    everything = audit["sources"][-1]
    assert everything["rows"] == 80 and everything["rows_dropped"] == 10, "both sides of five pairs"
    assert found["D2"]["level"] == "error" and "on one side alone" in found["D2"]["message"]
    assert found["D4"]["level"] == "warn" and found["D1"]["level"] == "ok"
    fates = pq.read_table("x/fates.parquet").to_pylist()
    assert [(row["position"], row["side"]) for row in fates[38:42]] == [(38, 0), (39, 0), (0, 1), (1, 1)]
    page = Path("x/report.html").read_text()
    assert "every pair is two sequences" in page and "Instead of cutting" in page and " chosen: cut" in page


def test_rows_with_one_side_are_audited_as_kto(catalog, tiny_model, kedge):
    rows = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": n % 2 == 0} for n, row in enumerate(pairs())
    ]
    write("unpaired.jsonl", rows)
    code, out, err = kedge("audit", "unpaired.jsonl", "--tokenizer", tiny_model, "--json")
    assert code == 0, err
    swept = json.loads(out)
    assert swept["mirror"] == "trl_kto" and swept["lengths"][-1]["rows"] == 40
    assert [item["mirror"] for item in swept["trainers"]] == ["trl_kto"]


def test_a_run_on_prompts_is_audited_with_its_batch_and_its_signal(catalog, tiny_model, kedge):
    write("sums.jsonl", prompts())
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    for folder in ("mixtures", "runs"):
        Path("catalogs", folder).mkdir()
    Path("catalogs/mixtures/m.sql").write_text(
        "/* ---\nstage: rlvr\ntokenizer: tiny\ntemplate: chatml\n--- */\nFROM kept"
    )
    trainer = {"name": "trl_grpo", "num_generations": 2, "per_device_train_batch_size": 3, "max_completion_length": 64}
    run = {"trainer": trainer, "mixture": "m", "base": str(tiny_model), "template": "chatml"}
    Path("catalogs/runs/rl.yaml").write_text(yaml.safe_dump(run))
    code, out, err = kedge("add", "sums.jsonl", "--stage", "rlvr")
    assert code == 0, err
    assert kedge("mix", "build", "m")[0] == 0
    code, out, err = kedge("audit", "rl", "--json")
    assert code == 1, err
    found = checks(out)
    assert "5.8%" in found["R5"]["message"] and found["R5"]["level"] == "warn"
    assert found["R6"]["level"] == "error" and "whole groups" in found["R6"]["message"]
    assert found["R2"]["level"] == "error" and found["R4"]["level"] == "ok" and found["R1"]["level"] == "ok"
    run["trainer"] |= {"per_device_train_batch_size": 4, "max_completion_length": 400}
    Path("catalogs/runs/rl.yaml").write_text(yaml.safe_dump(run))
    code, out, err = kedge("audit", "rl", "--json")
    found = checks(out)
    assert code == 0, [check for check in found.values() if check["level"] == "error"]
    assert "2 prompts per generation" in found["R6"]["message"]


def test_a_mixture_of_pairs_is_frozen_swept_and_audited(catalog, tiny_model, kedge):
    write("pairs.jsonl", pairs())
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    Path("catalogs/mixtures").mkdir()
    text = "/* ---\nstage: preference\ntokenizer: tiny\ntemplate: chatml\n--- */\nFROM take_tokens('pairs', 5_000)"
    Path("catalogs/mixtures/m.sql").write_text(text)
    assert kedge("add", "pairs.jsonl")[0] == 0
    code, out, err = kedge("mix", "build", "m")
    assert code == 0, err + out
    code, out, err = kedge("audit", "m", "--json")
    assert code == 0, err
    swept = json.loads(out)
    assert 0 < swept["num_rows"] < 40 and swept["lengths"][-1]["tokens"] <= 5_000
    assert kedge("audit", "m", "--max-length", "1000")[0] == 0
    assert len(Catalog(find_project()).manifests("audits")) == 1


LLAMA_FACTORY = "model_name_or_path: {model}\nstage: sft\ndataset: mine\ndataset_dir: .\ntemplate: {template}\n" \
                "cutoff_len: 48\noutput_dir: out\n"  # fmt: skip


def test_a_launch_file_is_audited_as_its_framework_would_train(catalog, tiny_model, kedge):
    rows = [
        {"instruction": f"What is {n}?", "input": "", "output": "12 plus " * (40 if n < 6 else 1)} for n in range(12)
    ]
    Path("mine.json").write_text(json.dumps(rows))
    Path("dataset_info.json").write_text(json.dumps({"mine": {"file_name": "mine.json"}}))
    levels = {}
    for template in ("gemma2", "qwen"):
        Path("launch.yaml").write_text(LLAMA_FACTORY.format(model=tiny_model, template=template))
        code, out, err = kedge("audit", "launch.yaml", "--json")
        assert code == 1, err
        levels[template] = checks(out)["A4"]["level"]
        assert checks(out)["V1"]["level"] == "warn" and json.loads(out)["details"]["framework"]
    assert levels == {"gemma2": "error", "qwen": "ok"}
    code, out, _ = kedge("audit", "launch.yaml", "mine.json", "--max-length", "400")
    assert "at 400" in out


def test_a_dead_option_of_a_launch_file_is_named_with_its_line(catalog, tiny_model, kedge):
    write("train.jsonl", pairs(6))
    Path("dpo.yaml").write_text(f"# trl dpo\nmodel_name_or_path: {tiny_model}\ndataset_name: train.jsonl\n"
                                "max_length: 900\npadding_free: true\n")  # fmt: skip
    code, out, err = kedge("audit", "dpo.yaml", "--json")
    assert code == 1, err
    assert checks(out)["V2"]["level"] == "error" and "dpo.yaml:5: padding_free" in checks(out)["V2"]["message"]


def test_a_dataset_beside_what_is_no_launch_file_is_an_error(catalog, tiny_model, kedge):
    write("pairs.jsonl", pairs(4))
    code, _, err = kedge("audit", "pairs.jsonl", "pairs.jsonl", "--tokenizer", tiny_model)
    assert code == 2 and "is no launch file" in err


def test_a_cut_that_takes_from_one_language_is_an_error(catalog, tiny_model, kedge):
    write("talks.jsonl", [{"messages": [{"role": "user", "content": f"{n}?"},
                                        {"role": "assistant", "content": "12 " * (90 if n % 2 else 5)}],
                           "language": "de" if n % 2 else "en"} for n in range(40)])  # fmt: skip
    code, out, err = kedge("audit", "talks.jsonl", "--tokenizer", tiny_model, "--max-length", "40", "--json")
    assert code == 1, err
    found = checks(out)["A10"]
    assert found["level"] == "error" and "by language" in found["message"] and "'de' loses" in found["message"]
