"""Kind `reward`: the rows that an rlvr mixture holds out are asked and judged by their own verifiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint, weights_of
from curation.config import find_project
from curation.errors import UserError
from curation.mixtures import find_frozen
from evals import Response
from evals.accounting import accuracy, score_table
from evals.benchmarks import Task, load_task
from evals.prompting import prompting, request_set
from tests.pair_runs import turn, write_lines, write_yaml

TESTS = json.dumps(["assert double(2) == 4", "assert double(0) == 1"])


def records() -> list[dict[str, Any]]:
    """Sums with a number, expressions with math, and a function whose second test no right program passes."""
    rows = [{"prompt": turn("user", f"{n} plus 3?"), "ground_truth": str(n + 3), "verifier": "gsm8k"} for n in range(8)]
    rows += [{"prompt": turn("user", f"What is {n} times x?"), "ground_truth": f"{n}x", "verifier": "math"}
             for n in range(2, 6)]  # fmt: skip
    return [*rows, {"prompt": turn("user", "Write double(n)."), "ground_truth": TESTS, "verifier": "code"}]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Catalog:
    """The mixture `prompts`, half of it held out, and the file `prompts.jsonl` that it was made of."""
    from curation import cli
    from curation.quickstart.journey import inside

    root = tmp_path_factory.mktemp("prompts") / "project"
    catalogs = root / "catalogs"
    (catalogs / "mixtures").mkdir(parents=True)
    write_yaml(root / "kedge.yaml", {"tokenizers": {}})
    write_lines(root / "prompts.jsonl", records())
    write_yaml(catalogs / "sources" / "prompts.yaml", {"reader": "jsonl", "path": "prompts.jsonl", "stage": "rlvr",
                                                       "shape": "verifiable", "held_out": 0.5})  # fmt: skip
    (catalogs / "mixtures" / "prompts.sql").write_text("/* ---\nstage: rlvr\n--- */\nSELECT row_id FROM kept")
    write_yaml(catalogs / "benchmarks" / "held.yaml", {"kind": "reward", "mixture": "prompts", "max_new_tokens": 32})
    write_yaml(catalogs / "benchmarks" / "whole.yaml", {"kind": "reward", "data": "prompts.jsonl"})
    with inside(root):
        assert cli.run(["add", "prompts"]) == cli.run(["mix", "build", "prompts"]) == 0
    catalog = Catalog(find_project(root))
    checkpoints.register(catalog, Checkpoint(run="m", step=0, path=str(tiny_model), weights="full",
                                             weights_hash=weights_of(tiny_model)[1]))  # fmt: skip
    return catalog


def scored(catalog: Catalog, task: Task, answers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Rows of scores by their gold answer; every item is answered as `answers` says of its gold, else with nothing."""
    asked = prompting(catalog, checkpoints.find(catalog, "m"), None, [])
    requests = request_set(task, asked).requests
    gold = {item.sample_id: item.gold for item in task.items}
    responses = [Response(request.sample_id, 0, answers.get(gold[request.sample_id], "I do not know."), (1,), True)
                 for request in requests]  # fmt: skip
    return {row["gold"]: row for row in score_table(task, requests, responses).to_pylist()}


def test_the_items_are_the_rows_that_the_mixture_holds_out(project):
    frozen = find_frozen(project, "prompts")
    from evals.records import read_records

    held = {row["row_id"]: row for _, row in read_records(frozen.held_out)}
    task = load_task(project, "held")
    assert {item.sample_id for item in task.items} == set(held) and 2 <= len(held) < len(records())
    for item in task.items:
        assert item.gold == held[item.sample_id]["ground_truth"]
        assert [turn["content"] for turn in item.messages] == [
            turn["content"] for turn in held[item.sample_id]["prompt"]
        ]


def test_prompts_are_rendered_with_the_chat_template_turn_by_turn(project):
    asked = prompting(project, checkpoints.find(project, "m"), None, [])
    requests = request_set(load_task(project, "held"), asked)
    assert requests.max_new_tokens == 32
    for request in requests.requests:
        assert request.prompt.startswith("<|im_start|>user\n") and request.prompt.endswith("<|im_start|>assistant\n")


def test_every_row_is_judged_by_its_own_verifier_and_a_share_counts(project):
    task = load_task(project, "whole")
    assert [item.verifier for item in task.items] == ["numeric"] * 8 + ["math"] * 4 + ["code"]
    rows = scored(project, task, {
        "3": "The answer is 3.", "4": "The answer is 5.", "2x": "It is $x \\cdot 2$.", "3x": "It is $4x$.",
        TESTS: "```python\ndef double(n):\n    return 2 * n\n```",
    })  # fmt: skip
    assert [(rows[gold]["state"], rows[gold]["score"]) for gold in ("3", "4", "2x", "3x", TESTS)] == [
        ("right", 1.0), ("wrong", 0.0), ("right", 1.0), ("wrong", 0.0), ("wrong", 0.5)]  # fmt: skip
    assert rows["5"]["score"] == 0.0


def test_the_mean_reward_rises_with_the_answers(project):
    import pyarrow as pa

    task = load_task(project, "whole")
    few = scored(project, task, {"3": "3"})
    more = scored(project, task, {str(n): f"The answer is {n}." for n in range(3, 11)})
    assert accuracy(pa.Table.from_pylist(list(few.values()))) == pytest.approx(1 / 13)
    assert accuracy(pa.Table.from_pylist(list(more.values()))) == pytest.approx(8 / 13)


def test_a_row_without_a_known_verifier_is_named(project):
    root = project.project.root
    write_lines(root / "odd.jsonl", [records()[0], {"prompt": "a?", "ground_truth": "b", "verifier": "oracle"}])
    write_yaml(root / "catalogs" / "benchmarks" / "odd.yaml", {"kind": "reward", "data": "odd.jsonl"})
    with pytest.raises(UserError, match=r"odd.jsonl:2: has no verifier that kedge knows \('oracle'\)"):
        load_task(project, "odd")
