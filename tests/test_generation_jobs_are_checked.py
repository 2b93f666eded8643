"""Generation jobs: whose prompts they name, and what is told where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.generating import QUESTIONS, answers, local, make_project, pair, run, write_job


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def test_prompts_come_from_a_query_a_mixture_or_a_conversation(project, tiny_model, kedge):
    said = (("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2"))
    turns = [{"role": role, "content": text} for role, text in said]
    (project / "talks.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    source = {"reader": "jsonl", "path": "talks.jsonl", "stage": "sft", "shape": "messages"}
    (project / "catalogs" / "sources" / "talks.yaml").write_text(json.dumps(source))
    mixture = "/* ---\nstage: preference\n--- */\nSELECT * FROM kept WHERE prompt[1].content LIKE '%plus 7%'\n"
    (project / "catalogs" / "mixtures" / "m.sql").write_text(mixture)
    assert kedge("add", "talks")[0] == 0
    write_job(project, "talks", prompts={"source": "talks"}, generator=local(tiny_model), n=1)
    run(kedge, "talks")
    (row,) = answers(project, "talks")
    assert [turn["content"] for turn in row["prompt"]] == ["Be brief.", "One?", "1", "Two?"]
    write_job(project, "mixed", prompts={"mixture": "m"}, generator=local(tiny_model), n=1)
    run(kedge, "mixed")
    assert [row["prompt"][0]["content"] for row in answers(project, "mixed")] == [QUESTIONS[1]]
    sql = "SELECT row_id FROM signals WHERE chosen_chars < 6 AND row_id IN (SELECT row_id FROM kept)"
    write_job(project, "queried", prompts={"sql": sql, "stage": "preference", "needs": ["pair_quality"]},
              generator=local(tiny_model), n=1)  # fmt: skip
    told = run(kedge, "queried")
    assert told["rows"] == 1 and [row["prompt"][0]["content"] for row in answers(project, "queried")] == [QUESTIONS[0]]
    listed = json.loads(
        kedge("sql", "SELECT job, count(*) AS n FROM generation GROUP BY ALL ORDER BY ALL", "--json")[1]
    )
    assert {"job": "mixed", "n": 1} in listed and {"job": "talks", "n": 1} in listed


@pytest.mark.parametrize(("values", "told"), [
    ({"n": 0, "top_p": 2, "temperature": 1, "max_tokens": "many"},
     ["answers.yaml:", "n: input should be", "top_p: ", "temperature: unknown key; did you mean 'temperatures'?",
      "max_tokens: "]),
    ({"temperatures": [1, 1.0]}, ["temperatures: holds a temperature twice; raise n for more answers"]),
    ({"temperatures": [-1]}, ["holds what is no temperature"]),
    ({"prompts": {}}, ["names none of sql, mixture and source; write one of them"]),
    ({"prompts": {"sql": "SELECT 1", "source": "asked"}}, ["sql and source are several"]),
    ({"prompts": {"sql": "SELECT 1"}}, ["sql needs to know the stage of its rows"]),
    ({"prompts": {"source": "asked", "split": "train"}}, ["split belongs to a mixture"]),
    ({"prompts": {"source": "asket"}}, ["there is no ingested source 'asket'; did you mean 'asked'?"]),
    ({"prompts": {"mixture": "none"}}, ["there is no 'none' in catalogs/mixtures/"]),
    ({"prompts": {"sql": "SELECT row_id FROM kept WHERE wrong = 1", "stage": "preference"}},
     ["wrong", "answers.yaml:3"]),
    ({"prompts": {"sql": "SELECT source FROM kept", "stage": "preference"}}, ["returns no column row_id"]),
    ({"prompts": {"sql": "SELECT content_hash AS row_id FROM kept", "stage": "preference"}},
     ["values are ids of no preference row"]),
    ({"prompts": {"sql": "SELECT 'x' AS row_id", "stage": "preference"}}, ["answers.yaml"]),
    ({"prompts": {"sql": "SELECT row_id FROM kept WHERE random() < 2", "stage": "preference"}},
     ["random() gives other"]),
    ({"prompts": {"sql": "SELECT * FROM take_rows('asked', 2)", "stage": "preference"}}, ["takes belong to mixtures"]),
    ({"prompts": {"sql": "SELECT row_id FROM kept WHERE false", "stage": "preference"}}, ["the job has no prompts"]),
    ({"prompts": {"sql": "SELECT row_id FROM kept", "stage": "rlvr"}}, ["no source of stage rlvr is ingested"]),
    ({"prompts": {"sql": "SELECT * FROM read_text('/etc/passwd')", "stage": "preference"}}, ["answers.yaml"]),
    ({"generator": {"model": "x"}}, ["generator: has no 'name'"]),
    ({"generator": {"name": "transformer_local"}}, ["did you mean 'transformers_local'?"]),
    ({"generator": {"name": "transformers_local"}}, ["needs either 'checkpoint' or 'model'"]),
    ({"generator": local("m", dtyp="x", batch_size=0)}, ["dtyp: unknown key; did you mean 'dtype'?", "batch_size"]),
    ({"generator": {"name": "transformers_local", "checkpoint": "r@1"}}, ["there is no checkpoint 'r@1'"]),
    ({"generator": local("nowhere/to/be/found")}, ["is neither a folder nor a model that could be fetched"]),
    ({"generator": {"name": "openai_endpoint", "url": "http://key@h/v1", "model": ""}},
     ["url: holds a name", "model: "]),
    ({"generator": {"name": "openai_endpoint", "url": "http://h/v1", "model": "m", "key_variable": "NO_SUCH_KEY"}},
     ["the environment variable NO_SUCH_KEY is not set"]),
])  # fmt: skip
def test_what_is_wrong_with_a_job_is_told_at_once(project, kedge, values, told):
    write_job(project, **{"generator": local("m")} | values)
    code, _, err = kedge("generate", "answers")
    assert code == 2 and "Traceback" not in err
    for text in told:
        assert text in err, err


def test_a_job_that_is_not_there_and_a_wrong_line_of_a_query_in_a_block_are_named(project, tiny_model, kedge):
    write_job(project, generator=local(tiny_model))
    assert "did you mean 'answers'?" in kedge("generate", "answer")[2]
    path = project / "catalogs" / "generations" / "block.yaml"
    path.write_text("generator: {name: transformers_local, model: m}\nprompts:\n  stage: preference\n  sql: |\n"
                    "    SELECT row_id\n    FROM kept\n    WHERE wrong = 1\n")  # fmt: skip
    code, _, err = kedge("generate", "block")
    assert code == 2 and "block.yaml:7: " in err
    path.rename(path.with_name("A-b.yaml"))
    assert "'A-b' is no name for a job; use small letters" in kedge("generate", "A-b")[2]


def test_rows_that_a_rule_refuses_and_conversations_in_which_nobody_asks_are_not_asked(
    tmp_path, monkeypatch, tiny_model, kedge
):  # fmt: skip
    from curation.generation._prompts import prompt_messages

    said: list[dict[str, Any]] = [{"role": "assistant", "content": "hello", "name": None}]
    assert prompt_messages({"prompt": said}, "preference") == prompt_messages({"messages": said}, "sft") == []
    asked = {"role": "user", "content": "Hello?"}
    assert prompt_messages({"messages": [asked | {"name": None}]}, "sft") == [asked], "whole where nobody answers"
    root = make_project(tmp_path / "project", [pair("Who?"), pair("Where?")])
    monkeypatch.chdir(root)
    (root / "catalogs" / "rules").mkdir()
    rule = (
        "/* ---\nstage: preference\n--- */\nSELECT row_id, 'no' AS reason FROM signals WHERE prompt[1].content = 'Who?'"
    )
    (root / "catalogs" / "rules" / "no_who.sql").write_text(rule)
    write_job(root, generator=local(tiny_model))
    told = run(kedge)
    assert {row["prompt"][0]["content"] for row in answers(root)} == {"Where?"} and told["prompts"] == 1
