"""Cases that cost others their runs, rebuilt from generated rows: what an audit says of each before it starts."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.audited import Row, assistant, pair, talk, template_says, trl_template, user, with_bos, with_template

WORD = " #"  # two tokens of the tiny tokenizer, so that lengths can be counted
ANSWER = "</think>The answer is 15."


def thought(tokens: int) -> str:
    """An answer behind a thought of about so many tokens."""
    return "<think>" + WORD * (tokens // 2) + ANSWER


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def launch(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text).lstrip())
    return path


@pytest.fixture
def audit(kedge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Audit on the command line outside of any project: exit code, report, and its checks by id (T1 and T3 are said of
    rows and of templates: both)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, dict[str, Any], dict[str, list[dict[str, Any]]]]:
        code, out, err = kedge("audit", *arguments, "--json")
        assert out, err
        report = json.loads(out)
        found: dict[str, list[dict[str, Any]]] = {}
        for check in report["checks"]:
            found.setdefault(check["id"], []).append(check)
        return code, report, found

    return call


def test_most_traces_of_a_reasoning_set_never_see_the_end_of_their_thought(kedge, tiny_model, tmp_path, monkeypatch):
    """ "Teaching a 3B Base Model to Emit Reasoning Traces": 78.8 % of the rows are longer than 2,048 tokens."""
    monkeypatch.chdir(tmp_path)
    lengths = [2_100 + 40 * (number % 20) for number in range(788)] + [100 + 9 * number for number in range(212)]
    write(Path("traces.jsonl"), [talk(thought(length)) for length in lengths])
    code, out, _ = kedge("audit", "traces.jsonl", "--tokenizer", tiny_model, "--max-length", 2048)
    assert code == 1
    assert "A1 error: 78.8% of the rows of 'traces' are longer than 2048" in out
    assert "A5 error: 78.8% of the reasoning rows of 'traces' never see the end of their reasoning" in out
    assert "A2 error: 78.8%" in out
    _, out, _ = kedge("audit", "traces.jsonl", "--tokenizer", tiny_model, "--max-length", 3072)
    failed = [line.split()[0] for line in out.splitlines() if " error: " in line]
    assert failed == ["R3"], "nothing is cut, but the tiny model has fewer positions"


def test_a_shorter_context_that_drops_long_pairs_takes_the_thinking_out_of_the_mixture(audit, tiny_model, tmp_path):
    """ "From Base to Reasoning Model": a preference run cut from 24,576 to 8,192 by removing the long rows. Half of the
    pairs think before, 11 of 60 after."""
    long, short = "<think>" + WORD * 4_500 + ANSWER, "<think>12+4</think>It is 16."
    rows = [pair(long, short)] * 38 + [pair("<think>12+3</think>15", short)] * 11 + [pair("15", "It is 16.")] * 49
    write(tmp_path / "pairs.jsonl", rows)
    run = launch(tmp_path / "dpo.yaml", f"""
        base_model: {tiny_model}
        rl: dpo
        datasets:
          - path: pairs.jsonl
            ds_type: json
            type: chat_template.default
        sequence_len: 24576
    """)  # fmt: skip
    _, _, before = audit(run)
    assert [check["level"] for name in ("A1", "A10", "A11", "D6") for check in before[name]] == ["ok"] * 4
    code, report, after = audit(run, "--max-length", 8192)
    assert code == 1
    (shift,) = [item for item in report["details"]["strata"] if (item["kind"], item["unit"]) == ("mode", "rows")]
    assert shift["strata"][1]["name"] == "thought"
    assert (shift["strata"][1]["before"], shift["strata"][1]["after"]) == pytest.approx((0.5, 11 / 60))
    assert shift["total_variation"] == pytest.approx(0.317, abs=5e-4)
    assert shift["kl"] == pytest.approx(0.217, abs=5e-4)
    assert shift["js_bits"] == pytest.approx(0.083, abs=5e-4)
    assert shift["psi"] == pytest.approx(0.47, abs=5e-3)
    (moved,) = after["A10"]
    assert moved["level"] == "error" and "'thought' loses" in moved["message"]
    assert after["A11"][0]["level"] == "warn" and "22.4% of the rows with a thought" in after["A11"][0]["message"]


def test_the_same_pairs_under_a_trainer_that_cuts_keep_their_shares_and_lose_their_stops(audit, tiny_model, tmp_path):
    long, short = "<think>" + WORD * 4_500 + ANSWER, "<think>12+4</think>It is 16."
    write(tmp_path / "pairs.jsonl", [pair(long, short)] * 5 + [pair("15", "It is 16.")] * 5)
    _, report, found = audit("pairs.jsonl", "--tokenizer", tiny_model, "--max-length", 8192)
    rows = [item for item in report["details"]["strata"] if (item["kind"], item["unit"]) == ("mode", "rows")]
    assert rows[0]["total_variation"] == 0
    assert found["D2"][0]["level"] == "error" and "in 5 the rejected answer stops" in found["D2"][0]["message"]


@pytest.mark.parametrize(("name", "level"), [("qwen3", "error"), ("qwen3_training", "ok")])
def test_qwen3_takes_thoughts_out_of_the_history_and_its_training_variant_does_not(audit, tiny_model, tmp_path, name,
                                                                                   level):  # fmt: skip
    model = with_template(tiny_model, tmp_path / "model", trl_template(name))
    turns = [user("12 plus 3?"), assistant("<think>\nTwelve and three.\n</think>\n\n15"),
             user("And 4 more?"), assistant("<think>\nFifteen and four.\n</think>\n\n19")]  # fmt: skip
    write(tmp_path / "talks.jsonl", [{"messages": turns}, {"messages": turns[:2]}])
    code, _, found = audit("talks.jsonl", "--tokenizer", model, "--max-length", 1024)
    rows, template = found["T3"]
    assert (rows["level"], template["level"]) == (level, level)
    assert rows["value"] == (0.5 if level == "error" else 0.0)
    assert (code, found["T1"][0]["level"]) == (1 if level == "error" else 0, "ok")


# Training and inference write the same history under one template (T2); what it lacks of the source is T3's to say.
@pytest.mark.parametrize(("name", "stays"), [("qwen3", False), ("qwen3_training", True)])
def test_the_history_that_a_template_of_qwen3_writes(tiny_model, name, stays):
    found = template_says(tiny_model, trl_template(name))
    assert ("gone" not in found["T3"].message) is stays
    assert found["T2"].level == "ok", found["T2"].message


def test_the_truncation_option_of_verl_is_dead_and_prompts_lose_their_beginning(audit, tiny_model, tmp_path):
    """verl#1015: `data.truncation` is read nowhere."""
    prompts = [[user("12 plus 3?")], [user("12 plus 3?")], [user("12 plus 3? " * 60)]]
    rows = [{"data_source": "sums", "prompt": turns, "reward_model": {"style": "rule", "ground_truth": "15"}}
            for turns in prompts]  # fmt: skip
    write(tmp_path / "prompts.jsonl", rows)
    text = """
        data:
          train_files: prompts.jsonl
          train_batch_size: 1
          max_prompt_length: 64
          max_response_length: 64
          {}
        actor_rollout_ref:
          model:
            path: {}
        algorithm:
          adv_estimator: grpo
    """
    dead = launch(tmp_path / "dead.yaml", text.format("truncation: right", tiny_model))
    code, _, found = audit(dead)
    assert code == 1
    (options,), (prompt,) = found["V2"], found["R1"]
    assert options["level"] == "error" and "truncation" in options["message"] and "dead" in options["message"]
    assert prompt["level"] == "error" and prompt["value"] == pytest.approx(1 / 3)
    assert "1 prompts lose their beginning: the trainer keeps the last 64 tokens" in prompt["message"]
    live = launch(tmp_path / "live.yaml", text.format("filter_overlong_prompts: true", tiny_model))
    _, _, found = audit(live)
    assert found["V2"][0]["level"] == "ok" and "dropped" in found["R1"][0]["message"]


@pytest.mark.parametrize("packing", [True, False])
def test_packed_sequences_of_trl_may_train_nothing(audit, tiny_model, tmp_path, packing):
    """TRL's best-fit packing filters nothing: a sequence may train 0 of 128 tokens."""
    long = talk("The answer is 15.", "12 plus 3? " * 120)
    write(tmp_path / "talks.jsonl", [talk("The answer is 15.")] * 4 + [long] * 2)
    run = launch(tmp_path / "sft.yaml", f"""
        # trl sft --config sft.yaml
        model_name_or_path: {tiny_model}
        dataset_name: talks.jsonl
        max_length: 128
        assistant_only_loss: true
        packing: {str(packing).lower()}
    """)  # fmt: skip
    code, report, found = audit(run, "talks.jsonl")
    assert code == 1
    (silent,) = found["A8"]
    (everything,) = [item for item in report["sources"] if item["source"] == "all"]
    assert silent["value"] == pytest.approx(1 / 3)
    if packing:
        assert silent["level"] == "error" and "2 rows stay with nothing to train, 0.0% are dropped" in silent["message"]
        assert everything["rows_dropped"] == 0 and report["num_bins"] >= 3
    else:
        assert "0 rows stay with nothing to train, 33.3% are dropped" in silent["message"]
        assert everything["rows_dropped"] == 2 and everything["kept_trained_tokens"] > 0


@pytest.mark.parametrize(("template", "level"), [("gemma2", "error"), ("qwen", "ok")])
def test_llama_factory_ends_half_an_answer_with_a_stop(audit, tiny_model, tmp_path, template, level):
    """LLaMA-Factory appends the end of sequence of some templates after the cut, and trains it."""
    write(tmp_path / "talks.jsonl", [talk("The answer is 15.")] * 3 + [talk("The answer is 15. " * 60)])
    run = launch(tmp_path / "sft.yaml", f"""
        stage: sft
        model_name_or_path: {tiny_model}
        template: {template}
        dataset: talks
        cutoff_len: 64
    """)  # fmt: skip
    code, _, found = audit(run, "talks.jsonl")
    assert code == 1
    (stop,) = found["A4"]
    assert (stop["level"], stop["value"]) == (level, 0.25 if level == "error" else 0.0)
    assert found["A2"][0]["value"] == 0.25


SMOLLM3 = """
{%- set mode = 'think' if enable_thinking is not defined or enable_thinking else 'no_think' %}
{{- '<|im_start|>system\\n## Metadata\\n\\nReasoning Mode: /' + mode + '\\n\\n## Custom Instructions\\n\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}
{%- else %}{{ 'You are a helpful assistant.\\n\\n' }}{%- endif %}
{%- if tools or ALWAYS %}{{ '### Tools\\n\\n' + (tools or []) | tojson + '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages if m.role != 'system' %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}
"""


def test_the_system_block_of_smollm3_is_never_closed_without_tools(kedge, tiny_model, tmp_path, monkeypatch):
    """The released template writes the end of its system block only behind a list of tools; the one that the model was
    trained with always does."""
    monkeypatch.chdir(tmp_path)
    Path("released.jinja").write_text(SMOLLM3.replace("ALWAYS", "false"))
    Path("recipe.jinja").write_text(SMOLLM3.replace("ALWAYS", "true"))
    said = {}
    for name in ("released.jinja", "recipe.jinja", "chatml_think"):
        code, out, err = kedge("template", "check", name, "--tokenizer", tiny_model, "--json")
        assert out, err
        checks = {check["id"]: check for check in json.loads(out)["checks"]}
        said[name] = (code, checks["T10"]["level"], {id for id, check in checks.items() if check["level"] == "error"})
        if name == "released.jinja":
            message = checks["T10"]["message"]
    assert said == {"released.jinja": (1, "error", {"T10"}), "recipe.jinja": (0, "ok", set()),
                    "chatml_think": (0, "ok", set())}  # fmt: skip
    assert "with a system turn, the turn that '<|im_start|>system' opens is never closed" in message
    assert "with neither system turn nor tools" in message and "with tools" not in message


@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_beginning_of_a_sequence_is_told_where_it_would_be_written_twice(tiny_model, tmp_path, times):
    """Llama 3 and Gemma templates write it, and their tokenizers add it to plain text."""
    model = with_bos(tiny_model, tmp_path / "model", added=True)
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    check = template_says(model, "{{ bos_token }}" * times + turns)["T5"]
    assert check.level == ("error" if times == 2 else "ok")
    assert f"a rendered row begins with {times}" in check.message
    assert ("tokenising its text again as plain text would make it 2" in check.message) is (times == 1)
