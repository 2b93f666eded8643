"""`kedge eval` with the real LightEval on a tiny model: a base, a full checkpoint and an adapter, scored once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation import checkpoints, schema
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint, weights_of
from curation.config import find_project
from curation.errors import InstrumentError, UserError
from evals import Job, Request, RequestSet
from evals.evaluating import EvalReport, evaluate, require_weights
from evals.lighteval_harness import LightEvalHarness
from evals.probing import probe_answers
from evals.scores import read_scores

SUITE = "benchmarks:\n  - name: sums\n  - name: drawn\n  - name: options\nprobes: [few]\n"
BENCHMARKS = {
    "sums": "data: sums.jsonl\nid: id\nquestion: '{{ q }}'\nanswer: a\nverifier: numeric\nmax_new_tokens: 12\n",
    "drawn": "data: sums.jsonl\nid: id\nquestion: '{{ q }}'\nanswer: a\nverifier: numeric\nmax_new_tokens: 6\n"
    "temperature: 1.0\nrepeats: 2\nlimit: 3\nprompt: plain\nstop: ['\\n']\n",
    "options": "data: sums.jsonl\nid: id\nquestion: '{{ q }}'\nanswer: a\nkind: choice\nchoices: options\n",
}


def write_project(folder: Path, special_thoughts_model: Path) -> Catalog:
    """A project whose foreign run `grown` holds a full checkpoint and a LoRA adapter, both from `base-model@0`."""
    catalogs = folder / "catalogs"
    for kind in ("benchmarks", "suites", "probes"):
        (catalogs / kind).mkdir(parents=True)
    (folder / "kedge.yaml").write_text("tokenizers: {}\n")
    (catalogs / "suites" / "small.yaml").write_text(SUITE)
    (catalogs / "probes" / "few.yaml").write_text("max_new_tokens: 16\nprompts:\n  - {name: hello, prompt: Hello}\n")
    for name, text in BENCHMARKS.items():
        (catalogs / "benchmarks" / f"{name}.yaml").write_text(text)
    items = [{"id": f"2024-01-{i:02d}", "q": f"What is {i} plus 2?", "a": i + 2, "options": [f"{i + 2}", f"{i + 3}"]}
             for i in range(1, 8)]  # fmt: skip
    (folder / "sums.jsonl").write_text("".join(json.dumps(item | {"a": str(item["a"])}) + "\n" for item in items))
    shutil.copytree(special_thoughts_model, folder / "model")
    write_checkpoints(folder)
    catalog = Catalog(find_project(folder))
    base = checkpoints.register_base(catalog, "model")
    for step, kind in ((10, "full"), (20, "adapter")):
        path = f"step-{step}"
        extra = {"base_path": "model", "base_hash": base.weights_hash} if kind == "adapter" else {}
        checkpoints.register(catalog, Checkpoint(run="grown", step=step, path=path, weights=kind, parent=base.id,
                                                 weights_hash=weights_of(folder / path)[1], **extra))  # fmt: skip
    return catalog


def write_checkpoints(folder: Path) -> None:
    """A full checkpoint with other weights, and an adapter that is not the identity."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with torch.no_grad():
        for name, weight in model.named_parameters():  # louder layers, or tied embeddings echo the last token
            weight.add_(0.5 * torch.randn_like(weight) if "_proj" in name else 0)
    model.save_pretrained(folder / "step-10")
    tokenizer.save_pretrained(folder / "step-10")
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    loud = LoraConfig(r=8, lora_alpha=512, target_modules=["o_proj", "down_proj"], init_lora_weights=False)
    adapter = get_peft_model(base, loud)
    adapter.save_pretrained(folder / "step-20")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, special_thoughts_model: Path) -> tuple[Catalog, EvalReport]:
    """The project after one whole `eval grown`."""
    catalog = write_project(tmp_path_factory.mktemp("scored"), special_thoughts_model)
    return catalog, evaluate(catalog, "grown")


def bytes_of_scores(catalog: Catalog) -> dict[str, bytes]:
    """Every file of scores and probe answers that holds no date, by its place in the lake."""
    files = [*catalog.folder("scores").rglob("*"), *catalog.folder("evidence").rglob("*")]
    kept = [path for path in files if path.is_file() and path.name != "provenance.json"]
    return {path.relative_to(catalog.lake).as_posix(): path.read_bytes() for path in sorted(kept)}


def test_every_sample_of_every_checkpoint_has_one_state(scored):
    catalog, report = scored
    assert report.evaluated == ["base-model@0", "grown@10", "grown@20"]
    assert [row["n"] for row in report.results] == [7, 6, 7] * 3
    for row in report.results:
        assert sum(row[state] for state in schema.STATES) == row["n"]
        assert row["error"] == 0
    sums = read_scores(catalog, checkpoints.find(catalog, "grown@10"), "sums")
    assert sums is not None
    table, conditions = sums
    assert table.schema == schema.SCORES
    assert table["sample_id"].to_pylist() == [f"2024-01-{i:02d}" for i in range(1, 8)]
    assert conditions["harness"] == "lighteval_harness" and conditions["sampling"]["dtype"] == "float32"
    for row in table.to_pylist():
        assert row["prompt"].startswith("<|im_start|>user") and row["prompt"].endswith("<|im_start|>assistant\n")
        assert (row["state"] == "truncated") == (row["finish_reason"] == "length") == (row["output_tokens"] == 12)


def test_sampled_answers_are_numbered_and_plain_prompts_are_plain(scored):
    catalog, _ = scored
    found = read_scores(catalog, checkpoints.find(catalog, "grown@10"), "drawn")
    assert found is not None
    rows = found[0].to_pylist()
    assert [(row["sample_id"], row["repeat"]) for row in rows] == [
        (f"2024-01-0{i}", r) for i in (1, 2, 3) for r in (0, 1)
    ]
    assert rows[0]["prompt"] == "What is 1 plus 2?"
    assert len({row["response"] for row in rows}) > 1


def test_weights_and_adapter_answer_differently_from_their_base(scored):
    catalog, _ = scored
    texts = []
    for reference in ("base-model@0", "grown@10", "grown@20"):
        found = read_scores(catalog, checkpoints.find(catalog, reference), "sums")
        assert found is not None
        texts.append(found[0]["response"].to_pylist())
    assert texts[0] != texts[1] and texts[0] != texts[2] and texts[1] != texts[2]


def test_a_greedy_answer_equals_generation_with_the_model_itself(scored):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    catalog, _ = scored
    checkpoint = checkpoints.find(catalog, "grown@10")
    found = read_scores(catalog, checkpoint, "sums")
    assert found is not None
    row = found[0].to_pylist()[0]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder(catalog))
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder(catalog))
    ids = torch.tensor([tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]])
    assert ids.shape[1] == row["prompt_tokens"]
    with torch.no_grad():
        output = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
    end = output.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in output else None
    assert tokenizer.decode(output[:end], skip_special_tokens=False) == row["response"]


def test_probes_are_answered_by_every_checkpoint_side_by_side(scored):
    catalog, _ = scored
    answers = probe_answers(catalog, "grown")
    assert [answer["checkpoint"] for answer in answers] == ["base-model@0", "grown@10", "grown@20"]
    assert {answer["name"] for answer in answers} == {"hello"}
    assert all(answer["output_tokens"] <= 16 for answer in answers)


def test_nothing_is_left_to_do_after_a_whole_evaluation(scored, kedge, monkeypatch):
    catalog, _ = scored
    before = bytes_of_scores(catalog)
    monkeypatch.chdir(catalog.project.root)
    code, _, err = kedge("eval", "grown")
    assert code == 0 and "nothing to do" in err
    code, out, _ = kedge("eval", "grown@20", "--json")
    assert code == 0 and json.loads(out)["evaluated"] == []
    assert bytes_of_scores(catalog) == before
    assert not list(catalog.lake.glob(".tmp-*eval*"))


def test_an_evaluation_killed_half_way_goes_on_to_the_same_bytes(scored, tmp_path, special_thoughts_model):
    catalog, _ = scored
    shutil.copytree(catalog.project.root, tmp_path / "p", ignore=shutil.ignore_patterns("scores", "evidence", ".tmp-*"))
    twin = Catalog(find_project(tmp_path / "p"))
    command = [sys.executable, "-m", "curation.cli", "eval", "grown"]
    process = subprocess.Popen(command, cwd=tmp_path / "p", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 240
    while len(twin.manifests("evidence")) < 1 and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    half = bytes_of_scores(twin)
    assert 0 < len(half) < len(bytes_of_scores(catalog))
    report = evaluate(twin, "grown")
    assert report.evaluated == ["grown@10", "grown@20"]
    assert bytes_of_scores(twin) == bytes_of_scores(catalog)


def test_a_wrong_base_and_changed_weights_are_refused(scored, tmp_path):
    catalog, _ = scored
    shutil.copytree(catalog.project.root, tmp_path / "p", ignore=shutil.ignore_patterns("lake"))
    shutil.copytree(catalog.folder("runs"), tmp_path / "p" / "lake" / "runs")
    twin = Catalog(find_project(tmp_path / "p"))
    shutil.copy(tmp_path / "p" / "step-10" / "model.safetensors", tmp_path / "p" / "model" / "model.safetensors")
    with pytest.raises(UserError, match="trained on another base"):
        require_weights(twin, checkpoints.find(twin, "grown@20"))
    with pytest.raises(UserError, match="changed since it was registered"):
        require_weights(twin, checkpoints.find(twin, "base-model@0"))


def test_a_budget_beyond_the_models_positions_is_refused_before_anything_runs(scored, tmp_path):
    catalog, _ = scored
    shutil.copytree(catalog.project.root, tmp_path / "p", ignore=shutil.ignore_patterns("lake"))
    shutil.copytree(catalog.folder("runs"), tmp_path / "p" / "lake" / "runs")
    path = tmp_path / "p" / "catalogs" / "benchmarks" / "sums.yaml"
    path.write_text(path.read_text().replace("12", "5000"))
    with pytest.raises(UserError, match="positions"):
        evaluate(Catalog(find_project(tmp_path / "p")), "grown")


def test_a_harness_that_dies_is_an_instrument_failure_with_its_last_words(
    tmp_path, special_thoughts_model, monkeypatch
):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho 'RuntimeError: no memory left'\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    asked = RequestSet("sums", (Request("a", 0, "x", (1,)),), 4, {"temperature": 0.0})
    job = Job(special_thoughts_model, None, special_thoughts_model, "a" * 32, (2,), (asked,))
    (tmp_path / "work").mkdir()
    with pytest.raises(InstrumentError, match="exit code 3: RuntimeError: no memory left"):
        LightEvalHarness().evaluate(job, tmp_path / "work", lambda count: None)


def test_an_unknown_checkpoint_is_answered_with_the_nearest(kedge, catalog):
    code, _, err = kedge("eval", "grwn")
    assert code == 2 and "there is no checkpoint 'grwn'" in err
