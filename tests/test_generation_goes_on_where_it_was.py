"""What `kedge generate` has already is not asked again, however it was stopped or asked for more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from curation.generation import _sampling, _work
from curation.quickstart.journey import inside
from tests.generating import answers, local, make_project, run, texts, write_job
from tests.lakes import lake_bytes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def test_asking_for_more_generates_what_is_missing_and_gives_the_bytes_of_asking_at_once(
    project, tiny_model, tmp_path, monkeypatch, kedge
):  # fmt: skip
    write_job(project, generator=local(tiny_model), n=1, temperatures=[0.8], limit=2)
    first = run(kedge)
    assert (first["prompts"], first["generated"]) == (2, 2)
    before = texts(project)
    write_job(project, generator=local(tiny_model), n=3, temperatures=[0.8], limit=2)
    assert {key: run(kedge)[key] for key in ("already_there", "samples")} == {"already_there": 2, "samples": 6}
    write_job(project, generator=local(tiny_model), n=6, temperatures=[1.0, 0.8])
    last = run(kedge)
    assert (last["already_there"], last["generated"], last["samples"]) == (6, 30, 36)
    assert before.items() <= texts(project).items()
    other = make_project(tmp_path / "other")
    monkeypatch.chdir(other)
    write_job(other, generator=local(tiny_model), n=6, temperatures=[1.0, 0.8])
    assert run(kedge)["generated"] == 36
    assert lake_bytes(project, "evidence") == lake_bytes(other, "evidence") != {}


def test_running_again_changes_nothing_and_loads_no_model(project, tiny_model, kedge, monkeypatch):
    write_job(project, generator=local(tiny_model))
    told, before = run(kedge), lake_bytes(project, "evidence")
    monkeypatch.setattr("curation.generation.transformers_local.TransformersLocal._load", lambda *_: 1 / 0)
    again = run(kedge)
    assert (again["already_there"], again["generated"], again["tokens_per_second"]) == (told["samples"], 0, None)
    assert lake_bytes(project, "evidence") == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"top_p": 0.5}, {"max_tokens": 5}, {"generator": {"batch_size": 2}},
                                    {"generator": {"template_kwargs": {"a": 1}}}])  # fmt: skip
def test_what_decides_an_answer_is_part_of_its_identity(project, tiny_model, kedge, change):
    write_job(project, generator=local(tiny_model))
    run(kedge)
    before = {row["generation_id"] for row in answers(project)}
    write_job(project, **change | {"generator": local(tiny_model, **change.get("generator", {}))})
    assert run(kedge)["already_there"] == 0
    assert not before & {row["generation_id"] for row in answers(project)}, "and what it replaces is gone"


def test_other_weights_under_the_same_name_are_asked_anew(project, tiny_model, tmp_path, kedge):
    from curation.quickstart.tiny_model import make_model

    model = tmp_path / "here" / "model"
    shutil.copytree(tiny_model, model)
    write_job(project, generator=local(model))
    first = run(kedge)
    make_model(model, hidden=64, layers=2, positions=1024, seed=9)
    second = run(kedge)
    assert (second["model"], second["already_there"]) == (first["model"], 0) and second["weights"] != first["weights"]


def test_kill_9_loses_at_most_a_batch_and_nothing_is_generated_twice(project, tiny_model, tmp_path, kedge):
    values: dict[str, Any] = {"generator": local(tiny_model), "n": 16, "max_tokens": 40, "temperatures": [0.9]}
    write_job(project, **values)
    process = subprocess.Popen([sys.executable, "-m", "curation.cli", "generate", "answers"], cwd=project,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    kept = project / "lake" / ".cache" / "generation"
    deadline = time.monotonic() + 200
    while process.poll() is None and len(list(kept.rglob("*.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the kill came too late to prove anything"
    assert not list((project / "lake").glob("evidence/generation/*"))
    there = sum(len(path.read_text().splitlines()) for path in kept.rglob("*.jsonl"))
    assert there % 4 == 0 and 8 <= there < 48
    told = run(kedge)
    assert (told["already_there"], told["generated"], told["samples"]) == (there, 48 - there, 48)
    other = make_project(tmp_path / "other")
    write_job(other, **values)
    with inside(other):
        assert run(kedge)["generated"] == 48
    assert lake_bytes(project, "evidence") == lake_bytes(other, "evidence")


def test_an_interrupt_ends_with_130_and_keeps_what_was_finished(project, tiny_model, kedge, monkeypatch):
    write_job(project, generator=local(tiny_model), n=4)
    kept = _work._kept.keep
    calls: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kept(*arguments)

    monkeypatch.setattr(_work._kept, "keep", interrupted)
    assert kedge("generate", "answers")[0] == 130
    monkeypatch.setattr(_work._kept, "keep", kept)
    assert {key: run(kedge)[key] for key in ("already_there", "samples")} == {"already_there": 8, "samples": 12}


def test_what_is_kept_survives_a_torn_line_and_many_shards_become_one(tmp_path):
    from curation.generation import Answer, _kept

    for number in range(_kept.MANY):
        _kept.keep(tmp_path, [Answer(f"{number:032x}", {"role": "assistant"}, "x", "stop")], "s")
    assert _kept.keep(tmp_path, [Answer("f" * 32, None, "", "error", detail="away")], "s") == {}
    (tmp_path / "zz.jsonl").write_text('{"id": "torn\n[]\n{"id": "1"}\n')
    assert len(_kept.read(tmp_path)) == _kept.MANY
    assert len(list(tmp_path.glob("*.jsonl"))) == 1 and len(_kept.read(tmp_path)) == _kept.MANY


def test_two_jobs_with_one_question_share_the_answer(project, tiny_model, kedge):
    write_job(project, generator=local(tiny_model))
    write_job(project, "twin", generator=local(tiny_model))
    run(kedge)
    assert run(kedge, "twin")["generated"] == 0
    assert texts(project) == texts(project, "twin") and len(list((project / "lake/evidence/generation").iterdir())) == 2


def test_a_block_is_as_wide_as_the_batch_size_and_a_sample_always_has_its_place(
    project, tiny_model, kedge, monkeypatch
):
    write, seen = _sampling.write, []

    def spied(model: Any, prompt: Any, seeds: list[int | None], temperature: float, *more: Any) -> Any:
        seen.append((temperature, [seed is not None for seed in seeds]))
        return write(model, prompt, seeds, temperature, *more)

    monkeypatch.setattr(_sampling, "write", spied)
    for n in (1, 3, 6):
        write_job(project, generator=local(tiny_model), n=n, temperatures=[0, 0.5], limit=1, max_tokens=3)
        run(kedge)
    first, more, rest = [True, False, False, False], [False, True, True, False], [False, False, False, True]
    assert seen == [(0, [True]), (0.5, first), (0.5, more), (0.5, rest), (0.5, [True, True, False, False])]
