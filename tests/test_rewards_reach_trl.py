"""TRL trains on the rewards of the services, and every rollout is written down."""

from __future__ import annotations

import json
from pathlib import Path

from trainers.rewards.for_trl import trl_function


def test_grpo_of_trl_trains_on_the_rewards_of_the_services(tmp_path: Path, tiny_model: Path):
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    job = {"rewards": [{"name": "answer"}, {"name": "length", "max_tokens": 8, "buffer_tokens": 4}],
           "evidence": str(tmp_path / "rollouts"), "record": {"run": "grpo"}}  # fmt: skip
    function = trl_function(job)
    rows = [{"prompt": [{"role": "user", "content": f"What is {n} plus 1?"}], "row_id": f"{n:032x}",
             "ground_truth": str(n + 1), "verifier": "numeric"} for n in range(4)]  # fmt: skip
    config = GRPOConfig(output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, gradient_checkpointing=False,
                        max_steps=1, per_device_train_batch_size=4, num_generations=2, max_completion_length=8,
                        report_to=[], save_strategy="no", logging_steps=1)  # fmt: skip
    trainer = GRPOTrainer(str(tiny_model), reward_funcs=[function], args=config, train_dataset=Dataset.from_list(rows),
                          processing_class=AutoTokenizer.from_pretrained(tiny_model))  # fmt: skip
    trainer.train()
    function.close()
    logged = trainer.state.log_history[0]
    assert "rewards/kedge_reward/mean" in logged and "rewards/answer" in logged and "rewards/length" in logged
    (file,) = (tmp_path / "rollouts").glob("rollouts-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 4 and {line["step"] for line in lines} == {0}
    assert len({line["row_id"] for line in lines}) == 2 and all(1 <= line["num_tokens"] <= 8 for line in lines)


def test_a_reward_sees_where_a_thought_ends_though_its_marks_are_special_tokens(
    tmp_path: Path, special_thoughts_model: Path
):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(special_thoughts_model)
    ids = [*tokenizer.encode("<think>1+1</think>2"), tokenizer.eos_token_id, tokenizer.pad_token_id]
    told = [{"role": "assistant", "content": tokenizer.decode(ids, skip_special_tokens=True)}]
    assert told[0]["content"] == "1+12"
    job = {"rewards": [{"name": "answer"}], "evidence": str(tmp_path), "record": {"run": "grpo"}}
    for model, expected in ((tokenizer, [1.0]), (None, [0.0])):
        function = trl_function(job, model)
        asked = [[{"role": "user", "content": "1+1?"}]]
        assert function(asked, [told], [ids], ground_truth=["2"], verifier=["exact"], row_id=["0"]) == expected
        function.close()
