"""`kedge train` with the real TRL trainer on a tiny model: parity before step 1, resumption, adapters, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from curation import checkpoints
from curation.catalog import Catalog, write_parquet
from curation.config import find_project

TEMPLATE = "{% if shout %}{{ '<|im_start|>system\\nSHOUT<|im_end|>\\n' }}{% endif %}"
MIXTURE = "/* ---\nstage: {stage}\ntokenizer: tiny\ntemplate: {template}\nrendering: {rendering}\n--- */\n{query}"


def make_project(root: Path, model: Path) -> Path:
    """Twenty conversations of which four are long, twelve plain texts, mixtures of both, the runs of these tests."""
    from curation import cli
    from curation.config import SHIPPED
    from curation.quickstart.journey import inside

    for name in ("mixtures", "runs", "templates", "sources"):
        (root / "catalogs" / name).mkdir(parents=True)
    (root / "kedge.yaml").write_text(f"tokenizers: {{tiny: {model}}}\n")
    with (root / "sums.jsonl").open("w") as stream:
        for number in range(20):
            thought = f"<think>{'12+3 ' * (60 if number < 4 else 1)}</think>"
            talk = [{"role": "user", "content": f"{number} plus 3?"},
                    {"role": "assistant", "content": f"{thought}The answer is {number + 3}."}]  # fmt: skip
            stream.write(json.dumps({"messages": talk}) + "\n")
    (root / "texts.jsonl").write_text("".join(json.dumps({"text": f"What is {n}? {n}."}) + "\n" for n in range(12)))
    chatml = (SHIPPED / "templates" / "chatml.jinja").read_text()
    (root / "catalogs" / "templates" / "loud.jinja").write_text(TEMPLATE + chatml)
    for name, stage, template, rendering in (("sums", "sft", "chatml", "trl_assistant"),
                                             ("texts", "midtrain", "chatml", "text")):  # fmt: skip
        text = MIXTURE.format(stage=stage, template=template, rendering=rendering, query="SELECT row_id FROM kept")
        (root / "catalogs" / "mixtures" / f"{name}.sql").write_text(text)
    write_run(root, "plain", model)
    with inside(root):
        for name, stage in (("sums", "sft"), ("texts", "midtrain")):
            assert cli.run(["add", f"{name}.jsonl", "--stage", stage]) == 0
        for name in ("sums", "texts"):
            assert cli.run(["mix", "build", name]) == 0
    return root


def write_run(root: Path, name: str, model: Path, *, run: dict | None = None, **options) -> None:
    trainer = {"name": "trl_sft", "assistant_only_loss": True, "max_length": 1024, "max_steps": 24, "save_steps": 4,
               "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 4}  # fmt: skip
    content = {"trainer": trainer | options, "mixture": "sums", "base": str(model), "template": "chatml"}
    (root / "catalogs" / "runs" / f"{name}.yaml").write_text(yaml.safe_dump(content | (run or {})))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project whose run `plain` was trained without any disturbance."""
    from curation import cli
    from curation.quickstart.journey import inside

    root = make_project(tmp_path_factory.mktemp("trained") / "project", tiny_model)
    with inside(root):
        assert cli.run(["audit", "plain"]) == 0
        assert cli.run(["train", "plain"]) == 0
    return root


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project in which nothing was trained yet."""
    root = tmp_path / "project"
    shutil.copytree(trained, root)
    shutil.rmtree(root / "lake" / "runs")
    monkeypatch.chdir(root)
    return root


def hashes(root: Path, run: str) -> dict[int, str]:
    return {item.step: item.weights_hash for item in checkpoints.every(Catalog(find_project(root)), run)}


def test_every_checkpoint_is_registered_with_its_origin(trained: Path, monkeypatch, kedge, tiny_model: Path):
    monkeypatch.chdir(trained)
    catalog = Catalog(find_project(trained))
    found = checkpoints.every(catalog, "plain")
    assert [item.step for item in found] == [4, 8, 12, 16, 20, 24]
    last = found[-1]
    assert last.parent == f"base-{tiny_model.name}@0"
    assert last.mixture is not None and last.mixture.startswith("sums@")
    assert last.audit and last.template and last.tokenizer and last.run_fingerprint
    assert len({item.weights_hash for item in found}) == 6
    row = pq.read_table(catalog.row_parts("sft")[0])["row_id"][0].as_py()
    code, out, _ = kedge("why", str(row))
    assert code == 0 and "trained on by run plain (checkpoints at 4, 8, 12, 16, 20, 24)" in out


def test_a_trained_run_is_not_trained_again(trained: Path, monkeypatch, kedge):
    monkeypatch.chdir(trained)
    before = hashes(trained, "plain")
    code, _, err = kedge("train", "plain")
    assert code == 0 and "nothing to do" in err
    assert hashes(trained, "plain") == before


def test_a_run_killed_and_started_again_ends_with_the_same_weights(project: Path, trained: Path, kedge):
    command = [sys.executable, "-m", "curation.cli", "train", "plain"]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while not hashes(project, "plain") and time.monotonic() < deadline:
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert gone and not alive, "the training process outlived its command"
    done = hashes(project, "plain")
    assert done and max(done) < 24, "the kill came too late to prove anything"
    weights = next((project / "lake" / "runs" / "plain").glob("*/weights"))
    half = weights / f"checkpoint-{max(done) + 4}"
    half.mkdir(exist_ok=True)
    (half / "model.safetensors").write_bytes(b"half of it")
    code, _, err = kedge("train", "plain")
    assert code == 0, err
    assert "going on from" in err
    assert hashes(project, "plain") == hashes(trained, "plain")


def test_rows_that_differ_from_the_audit_stop_the_run_before_step_1(project: Path, kedge):
    catalog = Catalog(find_project(project))
    folder = next(path.parent for path in catalog.folder("audits").rglob("fates.parquet"))
    fates = pq.read_table(folder / "fates.parquet")
    changed = pc.add(fates["kept_trained_tokens"], 1)
    fates = fates.set_column(fates.schema.get_field_index("kept_trained_tokens"), "kept_trained_tokens", changed)
    (folder / "fates.parquet").unlink()
    write_parquet(folder / "fates.parquet", fates)
    code, _, err = kedge("train", "plain")
    assert code == 4
    assert "the trainer's rows are not those of the audit: row " in err and "and 15 more" in err
    assert "Traceback" not in err
    assert hashes(project, "plain") == {}


def test_an_adapter_trained_on_cut_rows_keeps_the_hash_of_its_base(project: Path, kedge, tiny_model: Path):
    waivers = [{"check": check, "value": 1.0, "reason": "cut on purpose here"} for check in ("A1", "A2", "A5", "A7")]
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    write_run(project, "cut", tiny_model, run={"waivers": waivers}, max_length=60, max_steps=4, lora=lora)
    code, out, err = kedge("audit", "cut")
    assert code == 0 and "waived" in out, out + err
    code, _, err = kedge("train", "cut")
    assert code == 0, err
    catalog = Catalog(find_project(project))
    made = checkpoints.find(catalog, "cut")
    assert (made.weights, made.step) == ("adapter", 4)
    assert made.base_hash == checkpoints.find(catalog, f"base-{tiny_model.name}").weights_hash
    assert made.base_folder(catalog) == tiny_model


def test_packed_rows_and_template_arguments_reach_the_trainer_as_audited(project: Path, kedge, tiny_model: Path):
    more = {"template": "loud", "template_kwargs": {"shout": True}}
    write_run(project, "packed", tiny_model, run=more, packing=True, max_length=400, max_steps=2, save_steps=2)
    assert kedge("audit", "packed")[0] == 0
    code, _, err = kedge("train", "packed")
    assert code == 0, err
    assert list(hashes(project, "packed")) == [2]


WAYS = {"packing_strategy: bfd_split": {"packing": True, "packing_strategy": "bfd_split"},
        "packing_strategy: wrapped": {"packing": True, "packing_strategy": "wrapped"},
        "truncation_mode: keep_end": {"truncation_mode": "keep_end"},
        "completion_only_loss": {"completion_only_loss": True, "assistant_only_loss": False}}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_are_split_or_cut_another_way_are_compared_before_step_1_too(
    project: Path, tiny_model: Path, way: str
):
    """The process's own comparison over what the installed trainer prepares; training itself is tested above."""
    import datasets
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from curation.auditing.gate import audit_run, run_subject
    from curation.runs import Run
    from trainers.process import comparing, rows

    datasets.disable_progress_bars()
    write_run(project, "way", tiny_model, max_length=64, **WAYS[way])
    catalog = Catalog(find_project(project))
    run = Run(catalog, "way")
    subject = run_subject(catalog, run)
    folder = audit_run(catalog, run).folder
    job = {"parts": [str(part) for part in subject.mixture.train], "fates": str(folder / "fates.parquet"),
           "template": subject.anatomy.template_text, "tokenizer": subject.anatomy.tokenizer, "kwargs": {},
           "path": subject.anatomy.path, "stage": "sft", "config": {"max_length": 64, **WAYS[way]}}  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = job["template"]
    args = SFTConfig(str(project / "out"), use_cpu=True, bf16=False, report_to="none",
                     **{"assistant_only_loss": True, **job["config"]})  # fmt: skip
    trainer = SFTTrainer(str(tiny_model), args=args, train_dataset=rows.conversations(job, job["parts"]),
                         processing_class=tokenizer)  # fmt: skip
    assert comparing.documents(trainer.train_dataset, job) == []
    fates = pq.read_table(job["fates"])
    assert {"cut", "split"} & set(fates["fate"].to_pylist())


def test_plain_text_is_trained_from_a_checkpoint_in_two_processes(project: Path, trained: Path, kedge):
    shutil.copytree(trained / "lake" / "runs", project / "lake" / "runs")
    record = next((project / "lake/runs/plain/checkpoints").glob("*24.json"))
    assert str(project) not in record.read_text()
    more = {"mixture": "texts", "base": None, "parent": "plain@24", "num_processes": 2}
    write_run(project, "second", Path(), run=more, assistant_only_loss=False, max_steps=2, save_steps=2)
    code, out, err = kedge("audit", "second")
    assert code == 0, out + err
    code, _, err = kedge("train", "second")
    assert code == 0, err
    catalog = Catalog(find_project(project))
    assert [item.id for item in checkpoints.lineage(catalog, checkpoints.find(catalog, "second"))][1:] == [
        "plain@24", "second@2"]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [
    ("mixtur: sums\n", "did you mean 'mixture'"),
    ("trainer: {name: trl_stf}\nmixture: sums\nbase: x\n", "did you mean 'trl_sft'"),
    ("trainer: {name: trl_sft, learning_rat: 1}\nmixture: sums\nbase: x\n", "did you mean 'learning_rate'"),
    ("trainer: {name: trl_sft}\nmixture: sums\nbase: x\nparent: y\n", "exactly one of 'base', 'parent' and 'extends'"),
    ("trainer: {name: trl_sft, output_dir: x}\nmixture: sums\nbase: x\n", "is set by kedge"),
])  # fmt: skip
def test_a_run_file_with_a_mistake_is_one_clear_error(project: Path, kedge, text: str, expected: str):
    (project / "catalogs" / "runs" / "bad.yaml").write_text(text)
    code, _, err = kedge("train", "bad")
    assert code == 2
    assert "bad.yaml" in err and expected in err and "Traceback" not in err


def test_training_without_a_passing_audit_is_refused(project: Path, kedge, tiny_model: Path):
    write_run(project, "unseen", tiny_model, max_length=999)
    code, _, err = kedge("train", "unseen")
    assert code == 1 and "run: kedge audit unseen" in err
    write_run(project, "short", tiny_model, max_length=40)
    assert kedge("audit", "short")[0] == 1
    code, _, err = kedge("train", "short")
    assert code == 1 and "A5" in err


def test_a_training_process_that_fails_says_where_its_log_lies(project: Path, kedge, tiny_model: Path):
    write_run(project, "broken", tiny_model, max_steps=2, optim="no_such_optimizer")
    assert kedge("audit", "broken")[0] == 0
    code, _, err = kedge("train", "broken")
    assert code == 4
    assert "process.log" in err and "no_such_optimizer" in err and "Traceback (most" not in err


def test_a_second_writer_of_a_run_is_told_who_writes(project: Path, kedge):
    with Catalog(find_project(project)).writing("runs", "plain"):
        code, _, err = kedge("train", "plain")
    assert code == 75 and "is being written by" in err
