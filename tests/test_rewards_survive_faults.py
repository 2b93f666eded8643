"""Rewards are computed in processes that may hang, die or answer nonsense; training gets an outcome all the same."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trainers.rewards import client as client_module
from trainers.rewards import verl_shim
from trainers.rewards.client import Client, Failures, RewardsFailed
from trainers.rewards.for_trl import trl_function

GOOD = "<think>a</think><answer>4</answer>"
MINE = """
import os, sys, time

def score(samples):
    print("noise on standard output")
    for item in samples:
        if "hang" in item.completion:
            time.sleep(600)
        if "die" in item.completion:
            os._exit(9)
        if "raise" in item.completion:
            raise RuntimeError("no reward for this")
        if "short" in item.completion:
            return []
    return [Score(float("nan") if "nan" in item.completion else len(item.completion)) for item in samples]

def Score(value):
    return value
"""


def settings(folder: Path, **more) -> dict:
    (folder / "mine.py").write_text(MINE)
    rewards = [{"name": "function", "path": "mine.py:score"}, {"name": "format", "weight": 0.1}]
    return {"rewards": rewards, "project": str(folder), "max_failure_share": 1.0} | more


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Ten rollouts, half of them faulty, asked of two processes at once."""
    folder = tmp_path_factory.mktemp("faults")
    texts = ["good", "hang", "nan", "good!", "raise", "die", GOOD, "short", "good!!", "hang too"]
    with Client(settings(folder, processes=2, wall_seconds=1.5, failed_value=-1)) as client:
        results = client.score([{"completion": text} for text in texts])
        started = client.started
        again = client.score([{"completion": "good"}] * 3)
    return dict(zip(texts, results, strict=True)), started, again


def test_every_fault_of_a_reward_is_an_outcome_and_its_neighbours_keep_their_scores(asked):
    results, _, _ = asked
    said = {text: result["outcomes"]["function"] for text, result in results.items()}
    assert said == {"good": "scored", "hang": "timeout", "nan": "nan", "good!": "scored", "raise": "exception",
                    "die": "died", GOOD: "scored", "short": "wrong_length", "good!!": "scored",
                    "hang too": "timeout"}  # fmt: skip
    assert results["good"]["reward"] == 4 and results[GOOD]["reward"] == pytest.approx(len(GOOD) + 0.1)
    assert "no reward for this" in results["raise"]["detail"]


def test_a_component_that_hangs_or_kills_its_process_takes_no_other_component_with_it(asked):
    results, _, _ = asked
    for text in ("hang", "die"):
        assert results[text]["outcomes"]["format"] == "thought" and results[text]["components"]["format"] == 0
        assert results[text]["components"]["function"] is None and results[text]["reward"] == -1


def test_killed_processes_are_replaced_and_the_others_are_used_again(asked):
    _, started, again = asked
    assert [result["reward"] for result in again] == [4, 4, 4] and started > 2


def test_a_closed_client_leaves_no_process_behind(tmp_path: Path):
    client = Client(settings(tmp_path))
    client.score([{"completion": "good"}])
    service = client._idle.get()
    process = psutil.Process(service.process.pid)
    client._idle.put(service)
    client.close()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_service_leaves_with_the_process_that_asks_even_where_a_reward_hangs(tmp_path: Path):
    program = ("import sys, json\nfrom trainers.rewards.client import Client\n"
               "client = Client(json.loads(sys.argv[1]))\nservice = client._idle.get()\n"
               "client._idle.put(service)\nimport threading\n"
               "threading.Thread(target=client.score, args=([{'completion': 'hang'}],), daemon=True).start()\n"
               "import time\nwhile not client.started: time.sleep(0.05)\n"
               "import psutil, os\ntime.sleep(1)\n"
               "print(psutil.Process().children()[0].pid, flush=True)\nos.kill(os.getpid(), 9)\n")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program, json.dumps(settings(tmp_path))], text=True,
                          capture_output=True, check=False)  # fmt: skip
    pid = int(done.stdout)
    until = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "the service outlived who asked"
        time.sleep(0.2)


def test_rewards_that_cannot_be_made_are_one_clear_error(tmp_path: Path):
    for wrong, told in (([{"name": "anwser"}], "did you mean 'answer'"), ([], "there is no reward"),
                        ([{"name": "function", "path": "nowhere.py:f"}], "there is no file nowhere.py")):  # fmt: skip
        with Client(settings(tmp_path, rewards=wrong)) as client, pytest.raises(RewardsFailed, match=told):
            client.score([{"completion": "x"}])
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'No module named trainers' >&2\nexit 1\n")
    fake.chmod(0o755)
    with Client(settings(tmp_path, python=str(fake))) as client, pytest.raises(RewardsFailed, match="No module named"):
        client.score([{"completion": "x"}])


def results(*outcomes: str) -> list[dict]:
    return [{"outcomes": {"answer": outcome, "format": "kept"}, "detail": "because"} for outcome in outcomes]


def test_a_component_that_fails_for_too_much_of_a_batch_stops_the_run():
    failures = Failures(0.5)
    failures.add(results(*["right"] * 64))
    failures.add(results(*["exception"] * 4, *["right"] * 4))
    with pytest.raises(RewardsFailed, match=r"'answer' failed for 5 of 8 rollouts \(exception 4, nan 1\): because"):
        failures.add(results(*["exception"] * 4, "nan", *["right"] * 3))
    alone = Failures(0.5)
    for _ in range(7):
        alone.add(results("timeout"))
    with pytest.raises(RewardsFailed, match="8 of 8"):
        alone.add(results("timeout"))
    wrong = Failures(0.0)
    for outcome in ("wrong", "unparsed", "verifier_timeout", "no_verifier"):
        wrong.add(results(*[outcome] * 20))  # these are the answer's own


def test_the_shim_of_verl_and_the_client_need_the_standard_library_alone(tmp_path: Path):
    """As verl's environment runs it: by path, in an interpreter that holds no package."""
    config = tmp_path / "rewards.json"
    config.write_text(json.dumps({"rewards": [{"name": "answer"}, {"name": "format", "weight": 0.1}],
                                  "project": str(tmp_path), "python": sys.executable, "run": "r1"}))  # fmt: skip
    program = (
        "import importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('custom_module', {verl_shim.__file__!r})\n"
        "shim = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(shim)\n"
        "extra = {'row_id': '00' * 16, 'verifier': 'numeric', 'split': 'train', 'index': 3,\n"
        "         'prompt': [{'role': 'user', 'content': '2+2?'}]}\n"
        f"kwargs = dict(config={str(config)!r}, evidence={str(tmp_path / 'out')!r})\n"
        "given = dict(data_source='x', ground_truth='4', extra_info=extra, **kwargs)\n"
        "found = [shim.compute_score(solution_str=text, **given)\n"
        f"         for text in ({GOOD!r}, '5', '<think>')]\n"
        "assert not {'pydantic', 'curation', 'trainers', 'numpy'} & set(sys.modules)\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    right, wrong, none = json.loads(done.stdout)
    assert right == {"answer": 1, "format": 1, "score": pytest.approx(1.1), "acc": 1, "outcome": "right",
                     "row_id": "00" * 16}  # fmt: skip
    assert wrong["score"] == 0 and wrong["outcome"] == "wrong" and none["outcome"] == "unparsed"
    (file,) = (tmp_path / "out").glob("rollouts-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["right", "wrong", "unparsed"]
    assert lines[0]["run"] == "r1" and lines[0]["components"] == {"answer": 1, "format": 1}


def test_the_function_for_trl_logs_components_and_keeps_the_rollouts(tmp_path: Path):
    class State:
        global_step = 7

    job = settings(tmp_path) | {"rewards": [{"name": "answer"}, {"name": "format", "weight": 0.1}],
                                "evidence": str(tmp_path / "rollouts"), "record": {"run": "grpo"},
                                "config": {"max_completion_length": 5}}  # fmt: skip
    function, logged, extra = trl_function(job), {}, {}
    found = function(
        prompts=[[{"role": "user", "content": "2+2?"}]] * 3,
        completions=[[{"role": "assistant", "content": text}] for text in (GOOD, "5", GOOD)],
        completion_ids=[[1, 2, 3], [1, 2, 3, 4, 5], [1]], trainer_state=State(), log_metric=logged.__setitem__,
        log_extra=extra.__setitem__, row_id=["aa" * 16, "bb" * 16, "cc" * 16], ground_truth=["4", "4", None],
        verifier=["numeric", "numeric", None], source=["s"] * 3,
    )  # fmt: skip
    function.close()
    assert found == [pytest.approx(1.1), 0, pytest.approx(0.1)]
    assert logged["rewards/answer"] == 0.5 and logged["rewards/answer/none"] == pytest.approx(1 / 3)
    assert logged["rewards/format"] == pytest.approx(2 / 3) and logged["rewards/format/failed"] == 0
    assert extra == {"row_id": ["aa" * 16, "bb" * 16, "cc" * 16], "outcome": ["right", "wrong", "no_verifier"]}
    (file,) = (tmp_path / "rollouts").glob("rollouts-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], line["num_tokens"], line["finished"]) for line in lines] == [
        (7, 3, True), (7, 5, False), (7, 1, True)]  # fmt: skip


def test_the_client_has_the_same_failures_as_the_components_can_have():
    assert {"exception", "timeout", "died", "nan", "infinite", "wrong_length", "no_number"} <= set(
        client_module.FAILURES
    )
