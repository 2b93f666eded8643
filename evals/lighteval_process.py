"""The process in which LightEval runs: `python -m evals.lighteval_process JOB.json`.

A process of its own because importing LightEval turns gradients off, its metrics use SIGALRM, and the weights leave
memory with it. Imports little of kedge beyond the custom tasks.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

from curation.launching import compute_deterministically, die_with_command
from evals import lighteval_tasks


def main(path: Path) -> None:
    """Answer everything in the job file; details land in `details/` below the working directory."""
    die_with_command()
    job = json.loads(path.read_text())
    # LightEval's registry imports every built-in task, and this one downloads a file at import.
    stub = types.ModuleType("lighteval.tasks.tasks.tiny_benchmarks")
    stub.TASKS_TABLE = []  # type: ignore[attr-defined]
    sys.modules[stub.__name__] = stub
    import nltk

    nltk.download = lambda *_, **__: False  # its ifeval task downloads at import, and waits where the network drops
    from lighteval.logging.evaluation_tracker import EvaluationTracker
    from lighteval.models.model_input import GenerationParameters
    from lighteval.models.transformers.transformers_model import TransformersModelConfig
    from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters

    compute_deterministically()
    # A relative name, because LightEval puts its cache inside the folder of an absolute one; made of the weights' hash,
    # because its cache is keyed by name.
    name = f"model-{job['weights_hash'][:16]}"
    prepare_model(job, Path(name))
    config = TransformersModelConfig(
        model_name=name,
        tokenizer=job["tokenizer"],
        dtype=job["dtype"],
        batch_size=job["batch_size"],
        add_special_tokens=False,
        skip_special_tokens=False,
        override_chat_template=False,
        cache_dir="cache",
        generation_parameters=GenerationParameters(temperature=0.0, seed=0),
    )
    pipeline = Pipeline(
        tasks=",".join(f"{lighteval_tasks.task_name(index)}|0" for index in range(len(job["sets"]))),
        evaluation_tracker=EvaluationTracker(output_dir=".", save_details=True),
        pipeline_parameters=PipelineParameters(
            launcher_type=ParallelismManager.NONE, custom_tasks_directory=lighteval_tasks.__file__
        ),
        model=exact_model(config, job),
    )
    pipeline.evaluate()
    pipeline.save_and_push_results()


def prepare_model(job: dict[str, Any], folder: Path) -> None:
    """Put the weights at `folder`: a link to full weights, or base and adapter merged in float32."""
    if job["adapter"] is None:
        folder.symlink_to(job["model"], target_is_directory=True)
        return
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    vocabulary = len(AutoTokenizer.from_pretrained(job["tokenizer"]))
    if vocabulary > base.get_input_embeddings().num_embeddings:  # tokens that were added for the adapter
        base.resize_token_embeddings(vocabulary)
    PeftModel.from_pretrained(base, job["adapter"]).merge_and_unload().save_pretrained(folder)


def exact_model(config: Any, job: dict[str, Any]) -> Any:
    """LightEval's transformers model, given exactly the token ids of the job, batched within one task (so that a task's
    answers do not depend on its neighbours), stopping at the job's stop ids, with special tokens kept in its text."""
    import torch
    from lighteval.models.model_output import ModelResponse
    from lighteval.models.transformers.transformers_model import TransformersModel
    from transformers import GenerationConfig

    class ExactModel(TransformersModel):
        def greedy_until(self, docs: list[Any]) -> list[Any]:
            return self._by_task(docs, self._write_batch)

        def loglikelihood(self, docs: list[Any]) -> list[Any]:
            return self._by_task(docs, self._score_batch)

        def _by_task(self, docs: list[Any], answer: Any) -> list[Any]:
            answers: dict[int, Any] = {}
            for index, item in enumerate(job["sets"]):
                name = f"{lighteval_tasks.task_name(index)}|0"
                mine = [number for number, doc in enumerate(docs) if doc.task_name == name]
                mine.sort(key=lambda n: (len(docs[n].specific["prompt_ids"]), docs[n].specific["sample_id"],
                                         docs[n].specific["repeat"]))  # fmt: skip
                torch.manual_seed(item["sampling"].get("seed", 0))
                for start in range(0, len(mine), config.batch_size):
                    numbers = mine[start : start + config.batch_size]
                    answers |= dict(zip(numbers, answer([docs[n] for n in numbers], item), strict=True))
                    with Path("progress").open("ab") as stream:
                        stream.write(b"." * len(numbers))
            return [answers[number] for number in range(len(docs))]

        def _write_batch(self, docs: list[Any], item: dict[str, Any]) -> list[Any]:
            prompts = [doc.specific["prompt_ids"] for doc in docs]
            width, pad = max(len(row) for row in prompts), job["stop_ids"][0]
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=self.device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=self.device)
            temperature = item["sampling"]["temperature"]
            drawn = {"temperature": temperature, "top_p": item["sampling"]["top_p"], "top_k": 0} if temperature else {}
            criteria = [stopper(self.tokenizer, item, width, job["stop_ids"], docs)] if item["stop"] else None
            network: Any = self.model
            output = network.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=item["max_new_tokens"], do_sample=temperature > 0,
                num_beams=1, repetition_penalty=1.0, eos_token_id=job["stop_ids"], pad_token_id=pad,
                stopping_criteria=criteria, **drawn,
            )  # fmt: skip
            return [
                self._response(row, prompt) for row, prompt in zip(output[:, width:].tolist(), prompts, strict=True)
            ]

        def _response(self, row: list[int], prompt: list[int]) -> Any:
            end = next((place for place, token in enumerate(row) if token in job["stop_ids"]), None)
            text = self.tokenizer.decode(row[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            kept = row if end is None else row[: end + 1]
            return ModelResponse(text=[text], output_tokens=[kept], input_tokens=prompt)

        def _score_batch(self, docs: list[Any], item: dict[str, Any]) -> list[Any]:
            return [self._score(doc) for doc in docs]

        def _score(self, doc: Any) -> Any:
            prompt, sums, likeliest = doc.specific["prompt_ids"], [], []
            encoded = [self.tokenizer(option, add_special_tokens=False)["input_ids"] for option in doc.choices]
            for option in encoded:
                ids = torch.tensor([prompt + option], device=self.device)
                network: Any = self.model
                logits = network(ids).logits[0, len(prompt) - 1 : -1].float()
                chosen = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])
                sums.append(chosen.sum().item())
                likeliest.append(logits.argmax(-1).tolist() == option)
            return ModelResponse(
                logprobs=sums, argmax_logits_eq_gold=likeliest, input_tokens=prompt, output_tokens=encoded
            )

    model = ExactModel(config)
    model.model.generation_config = GenerationConfig()  # a checkpoint's own sampling defaults decide nothing here
    return model


def stopper(tokenizer: Any, item: dict[str, Any], width: int, stop_ids: list[int], docs: list[Any]) -> Any:
    """Ends a row once it holds a stop text outside of a thought. What follows the stop text is cut off when the
    response is judged."""
    import torch
    from transformers import StoppingCriteria

    opened, closed = item["think"] or ("", "")
    in_thought = [bool(opened) and doc.query.rstrip().endswith(opened) for doc in docs]

    def done(row: list[int], begun: bool) -> bool:
        text = tokenizer.decode(row, skip_special_tokens=False)
        if opened:
            if (begun or opened in text) and closed not in text:
                return False
            text = text.rpartition(closed)[2]
        return any(stop in text for stop in item["stop"])

    class StopTexts(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
            rows = zip(ids[:, width:].tolist(), in_thought, strict=True)
            return torch.tensor([done(row, begun) for row, begun in rows], device=ids.device)

    return StopTexts()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
