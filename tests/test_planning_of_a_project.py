"""`kedge plan` on real frozen mixtures and a tiny model: runs, chains, audits, a project's own figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from curation import cli

CHAT = (
    "/* ---\nstage: sft\ntokenizer: tiny\ntemplate: chatml\nrendering: trl_assistant\n--- */\nSELECT row_id FROM kept"
)
PROMPTS = "/* ---\nstage: rlvr\ntokenizer: tiny\ntemplate: chatml\n--- */\nSELECT row_id FROM kept"
PAIRS = "/* ---\nstage: preference\ntokenizer: tiny\ntemplate: chatml\n--- */\nSELECT row_id FROM kept"


def write_run(root: Path, name: str, mixture: str, trainer: str, parent: str = "", **options) -> None:
    origin = {"parent": parent} if parent else {"base": yaml.safe_load((root / "kedge.yaml").read_text())[
        "tokenizers"]["tiny"]}  # fmt: skip
    rewards = {"rewards": [{"name": "answer"}]} if mixture == "prompts" else {}
    value = {"trainer": {"name": trainer} | options, "mixture": mixture, "template": "chatml", "num_processes": 2}
    (root / "catalogs" / "runs" / f"{name}.yaml").write_text(yaml.safe_dump(value | origin | rewards))


@pytest.fixture(scope="module")
def planned(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 conversations (12 of them long), 24 pairs, 20 prompts, frozen; an SFT run, a DPO run on it, a GRPO run."""
    from curation.quickstart.journey import inside

    root = tmp_path_factory.mktemp("planned")
    for name in ("mixtures", "runs", "sources"):
        (root / "catalogs" / name).mkdir(parents=True)
    (root / "kedge.yaml").write_text(yaml.safe_dump({"tokenizers": {"tiny": str(tiny_model)}}))
    talks, pairs, prompts = [], [], []
    for number in range(48):
        asked = {"role": "user", "content": f"What is {number} plus 3?"}
        right = {"role": "assistant", "content": f"The answer is {number + 3}." + " yes" * (60 * (number % 4 == 0))}
        talks.append({"messages": [asked, right]})
        wrong = [{"role": "assistant", "content": f"It is {number}."}]
        pairs.append({"prompt": [asked], "chosen": [right], "rejected": wrong})
        prompts.append({"prompt": [asked], "ground_truth": str(number + 3), "verifier": "math"})
    for name, rows in (("talks", talks), ("pairs", pairs[:24]), ("prompts", prompts[:20])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text, stage in (("talks", CHAT, "sft"), ("pairs", PAIRS, "preference"), ("prompts", PROMPTS, "rlvr")):
        (root / "catalogs" / "mixtures" / f"{name}.sql").write_text(text)
        with inside(root):
            assert cli.run(["add", f"{name}.jsonl", "--stage", stage]) == 0
    for name in ("talks", "pairs", "prompts"):
        with inside(root):
            assert cli.run(["mix", "build", name]) == 0
    write_run(root, "sft", "talks", "trl_sft", assistant_only_loss=True, num_train_epochs=2, max_length=64,
              per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=2e-5)  # fmt: skip
    write_run(root, "dpo", "pairs", "trl_dpo", "sft", per_device_train_batch_size=4, num_train_epochs=3)
    write_run(root, "rl", "prompts", "trl_grpo", "dpo", per_device_train_batch_size=8, num_generations=4,
              max_completion_length=100, max_steps=10)  # fmt: skip
    return root


@pytest.fixture
def inside_it(planned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(planned)
    return planned


def result(kedge, *arguments: str) -> dict:
    code, out, err = kedge("plan", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_run_has_steps_tokens_memory_hours_and_cost_on_every_device(inside_it: Path, kedge):
    [plan] = result(kedge, "sft")["plans"]
    assert (plan["steps"], plan["passes"], plan["examples"]) == (6, 2.0, 48)  # 48 rows x 2 / (4 x 2 x 2)
    assert 48 * 2 * 10 < plan["tokens"] <= 48 * 2 * 64  # rows are cut at 64
    assert [place["device"] for place in plan["places"]] == ["A100-40GB", "A100-80GB", "H100-80GB", "H200-141GB"]
    a100, h100 = plan["places"][1], plan["places"][2]
    assert a100["device_hours"] == pytest.approx(2 * a100["hours"])
    assert a100["device_hours"] == pytest.approx(h100["device_hours"] * 989 / 312)
    assert h100["dollars"] == pytest.approx(4 * h100["device_hours"])
    assert h100["fits"]
    assert plan["warnings"] == []


def test_a_chain_is_planned_before_any_of_it_is_trained_and_summed(inside_it: Path, kedge):
    found = result(kedge, "rl", "--chain", "--iterations", "3")
    assert [plan["run"] for plan in found["plans"]] == ["sft", "dpo", "rl"]
    _, dpo, rl = found["plans"]
    assert (dpo["steps"], dpo["examples"]) == (9, 24)  # 24 pairs x 3 / (4 x 2)
    assert rl["generated_tokens"] == 10 * 16 * 50  # 10 steps of 16 completions, half of their limit each
    for place, summed in enumerate(found["sums"]):
        assert summed["hours"] == pytest.approx(3 * sum(plan["places"][place]["hours"] for plan in found["plans"]))
        assert summed["memory_bytes"] == max(plan["places"][place]["memory_bytes"] for plan in found["plans"])


def test_unusual_settings_and_assumptions_are_told(inside_it: Path, kedge):
    code, out, _ = kedge("plan", "dpo")
    assert code == 0
    assert "unusual: the number of epochs 3 lies outside of what is published, 1" in out
    assert "not audited yet (kedge audit dpo)" in out
    code, out, _ = kedge("plan", "rl")
    assert "unusual: the group size 4 lies outside of what is published, 8 to 16" in out
    assert "completions of 50 tokens in the mean (50% of the limit, assumed)" in out


def test_an_audit_says_the_same_as_the_plan_without_it(inside_it: Path, kedge):
    [before] = result(kedge, "sft")["plans"]
    assert kedge("audit", "sft")[0] in (0, 1)
    [after] = result(kedge, "sft")["plans"]
    assert after["notes"][0] == "rows as the audit keeps them"
    assert {key: before[key] for key in ("steps", "tokens", "examples", "places")} == {
        key: after[key] for key in ("steps", "tokens", "examples", "places")}  # fmt: skip


def test_epochs_that_steps_begin_are_judged_in_place_of_those_that_are_not_made(inside_it: Path, kedge):
    write_run(inside_it, "stepped", "pairs", "trl_dpo", per_device_train_batch_size=4, max_steps=5)
    [plan] = result(kedge, "stepped")["plans"]
    assert plan["passes"] == pytest.approx(5 * 8 / 24)
    assert [text.partition(" lies")[0] for text in plan["warnings"]] == ["the number of epochs 2"]


def test_packed_rows_count_by_bins(inside_it: Path, kedge):
    write_run(inside_it, "packed", "talks", "trl_sft", assistant_only_loss=True, max_length=512, packing=True,
              per_device_train_batch_size=2)  # fmt: skip
    [plan] = result(kedge, "packed")["plans"]
    assert -(-plan["tokens"] // 512) <= plan["examples"] < 48
    assert plan["steps"] == -(-plan["examples"] // 4)


def test_a_projects_own_figures_take_the_place_of_the_shipped_ones(inside_it: Path, kedge):
    own = inside_it / "catalogs" / "hardware.yaml"
    own.write_text(yaml.safe_dump({
        "devices": {"H100-80GB": {"dollars_per_hour": 2.0}},
        "measured": {"sft": {"device": "H100-80GB", "seconds_per_step": 2.79, "num_devices": 2, "source": "its log"}},
    }))  # fmt: skip
    try:
        [plan] = result(kedge, "sft")["plans"]
        here = plan["places"][2]
        assert (here["measured"], here["hours"]) == (True, pytest.approx(6 * 2.79 / 3600))
        assert here["dollars"] == pytest.approx(2 * 2 * here["hours"])
        assert not plan["places"][1]["measured"]
        own.write_text("devices: {H100: {dollars_per_hour: cheap}}\nmeasured: {sft: {device: H100, minutes: 3}}\n")
        code, _, err = kedge("plan", "sft")
        assert code == 2
        assert "devices.H100.dollars_per_hour" in err
        assert "measured.sft.minutes: unknown key" in err
        assert "measured.sft.seconds_per_step: is missing" in err
    finally:
        own.unlink()


def test_what_cannot_be_planned_is_a_users_error(inside_it: Path, kedge):
    write_run(inside_it, "nothing", "absent", "trl_sft")
    write_run(inside_it, "uneven", "prompts", "trl_grpo", per_device_train_batch_size=3, num_generations=4)
    assert kedge("plan", "nothing")[0] == 2
    code, _, err = kedge("plan", "uneven")
    assert code == 2
    assert "no whole groups" in err
    assert kedge("plan", "sftt")[0] == 2
