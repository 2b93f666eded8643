"""The report of a training run: curves, findings at their steps, every rule with what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

from curation.run_files import MonitorUse
from tests.monitored import GSPO, changed, published_apo, published_rl
from trainers.monitor_report import CHARTS, page, write
from trainers.monitors.names import LOGGED, names_of
from trainers.monitors.readings import Readings
from trainers.monitors.rules import MONITORS, rules_for


def test_findings_are_numbered_in_the_table_and_on_their_chart():
    run = changed(published_rl(GSPO), "frac_reward_zero_std", lambda step, value: 0.95 if step > 300 else value)
    run = changed(run, "grad_norm", lambda step, value: math.nan if step >= 390 else value)
    html = page("rl", run, rules_for("rlvr"))
    assert '<div class="verdict fail">2 findings: non_finite at step 390 (stop)' in html
    assert html.count(">1</text>") == 1  # advantage_collapse, on the chart of shares
    assert html.count(">2</text>") == 3  # non_finite, on those of loss, gradient norm and reward
    for title in ("Loss", "Entropy", "KL divergence", "Length of completions", "Shares of a step", "Diversity"):
        assert f"<h3>{title}</h3>" in html
    assert "<h3>Margin</h3>" not in html


def test_a_quiet_run_says_so_and_tells_its_rules_with_their_values():
    html = page("apo", published_apo(), rules_for("preference", [MonitorUse(name="clip_share", limit=0.2)]))
    assert '<div class="verdict pass">no monitor tripped' in html
    assert "79.5 % [75.6, 82.7] of 500 held-out pairs are ranked right at step 2,000 (Wilson)" in html
    assert "held-out margin 1.07 [0.955, 1.18]" in html
    assert "Over the last 12 evaluations" not in html
    assert "surely rises over the last 12 evaluations" in html
    assert html.count("quiet") == 8
    assert html.count("not judged: not in the log") == 1  # clip_share: no such metric in DPO


def test_texts_are_escaped_and_the_page_fetches_and_runs_nothing():
    html = page("<script>alert(1)</script>", published_rl(GSPO), rules_for("rlvr"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "http-equiv" not in html
    assert 'src="' not in html


def test_a_run_without_a_line_has_a_report():
    html = page("rl", Readings(names_of("trl_grpo")), rules_for("rlvr"))
    assert "nothing was logged yet" in html
    assert "<svg" not in html


def test_equal_logs_give_equal_bytes(tmp_path: Path):
    lines = [{"step": step, "max_steps": 40, "loss": 2 - step / 40, "grad_norm": 0.5} for step in range(1, 41)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = {"trainer": "trl_sft", "stage": "sft", "progress": str(tmp_path / "log.jsonl"), "held_out": [],
           "evidence": str(tmp_path / "rollouts"), "record": {"run": "sft"}}  # fmt: skip
    first = write(job, rules_for("sft")).read_bytes()
    assert write(job, rules_for("sft")).read_bytes() == first
    assert b"40 steps of 40" in first


def test_every_monitor_and_quantity_of_a_chart_is_known():
    quantities = {quantity for trainer in LOGGED for quantity in names_of(trainer)}
    assert {name for chart in CHARTS for name in chart.monitors} == set(MONITORS) - {"length_bias"}
    assert {quantity for chart in CHARTS for quantity, _ in chart.quantities} <= quantities
