"""Harness `lighteval_harness`: LightEval's pipeline in a process of its own, offline, on exact token ids."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from curation.catalog import write_parquet
from curation.errors import InstrumentError, UserError
from curation.launching import model_environment, run_followed
from evals import Harness, Job, Request, RequestSet, Response
from evals.lighteval_tasks import JOB_VARIABLE, task_name


class LightEvalHarness(Harness):
    """LightEval on local weights. `device` cuda needs one; `dtype` is that of the loaded weights. Both, and the batch
    size, may move greedy answers and are part of a score's conditions."""

    version: ClassVar[int] = 1
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(default=32, ge=1)

    def conditions(self) -> dict[str, Any]:
        return {"device": self.device, "dtype": self.dtype, "batch_size": self.batch_size}

    def software(self) -> str:
        require_lighteval()
        return ", ".join(f"{name} {installed(name)}" for name in ("lighteval", "transformers"))

    def evaluate(self, job: Job, work: Path, advance: Callable[[int], None]) -> dict[str, list[Response]]:
        require_lighteval()
        path = self._write_job(job, work)
        log = work / "log.txt"
        progress = work / "progress"  # a byte for each sample
        run_followed([sys.executable, "-m", "evals.lighteval_process", str(path)], log, self._environment(path, work),
                     "LightEval", lambda: progress.stat().st_size if progress.exists() else 0, advance,
                     cwd=work)  # fmt: skip
        return {item.name: list(_responses(work, index, item, job.stop_ids)) for index, item in enumerate(job.sets)}

    def _environment(self, path: Path, work: Path) -> dict[str, str]:
        settings = {
            JOB_VARIABLE: str(path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
            "HF_HOME": str(work / "hf"), "HF_DATASETS_CACHE": str(work / "hf" / "datasets"),
            "TOKENIZERS_PARALLELISM": "false", "GIT_PYTHON_REFRESH": "quiet", "PYTHONHASHSEED": "0",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        }  # fmt: skip
        if self.device == "cpu":
            settings["CUDA_VISIBLE_DEVICES"] = ""
        return model_environment(settings)

    def _write_job(self, job: Job, work: Path) -> Path:
        sets = []
        for index, item in enumerate(job.sets):
            folder = work / f"requests-{index:03d}"
            folder.mkdir()
            lines = [_line(request) for request in item.requests]
            write_parquet(folder / "test.parquet", pa.Table.from_pylist(lines, schema=REQUESTS))
            sets.append({
                "max_new_tokens": item.max_new_tokens, "sampling": item.sampling, "stop": item.stop,
                "think": item.think, "options": any(request.options for request in item.requests),
            })  # fmt: skip
        value = {
            "model": str(job.model.resolve()),
            "adapter": None if job.adapter is None else str(job.adapter.resolve()),
            "tokenizer": str(job.tokenizer.resolve()),
            "weights_hash": job.weights_hash,
            "stop_ids": job.stop_ids,
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "sets": sets,
        }
        path = work / "job.json"
        path.write_text(json.dumps(value))
        return path


# Typed, because a reader that guesses types would turn an id such as 2024-01-01 into a date.
REQUESTS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("repeat", pa.int64()),
        ("prompt", pa.string()),
        ("prompt_ids", pa.list_(pa.int64())),
        ("options", pa.list_(pa.string())),
        ("gold", pa.string()),
        ("gold_index", pa.int64()),
    ]
)


def _line(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in REQUESTS.names}


def _responses(work: Path, index: int, item: RequestSet, stop_ids: tuple[int, ...]) -> Iterator[Response]:
    """The responses of one set, read from LightEval's own details. Each file is read by itself: fields without values
    have other types from task to task."""
    files = sorted(work.glob(f"details/**/details_{task_name(index)}|0_*.parquet"))
    if len(files) != 1:
        raise InstrumentError(f"{item.name}: LightEval wrote {len(files)} files of details", "run kedge eval again")
    requests = {(request.sample_id, request.repeat): request for request in item.requests}
    for row in pq.read_table(files[0], columns=["doc", "model_response"]).to_pylist():
        carried, answer = row["doc"]["specific"], row["model_response"]
        key = (str(carried["sample_id"]), int(carried["repeat"]))
        yield _response(key, requests.get(key), answer, stop_ids)


def _response(
    key: tuple[str, int], request: Request | None, answer: dict[str, Any], stop_ids: tuple[int, ...]
) -> Response:
    if request is None:
        return Response(*key, problem="the harness answered a sample that it was not asked")
    if list(answer["input_tokens"]) != list(request.prompt_ids):
        return Response(*key, problem="the harness gave the model another prompt than the one rendered")
    if request.options:
        return Response(*key, finished=True, logprobs=tuple(answer["logprobs"]))
    ids = tuple(answer["output_tokens"][0])
    finished = bool(ids) and ids[-1] in stop_ids
    return Response(*key, text=answer["text"][0], token_ids=ids[:-1] if finished else ids, finished=finished)


def require_lighteval() -> None:
    """Raises UserError where LightEval is not installed."""
    from importlib.util import find_spec

    if find_spec("lighteval") is None:
        raise UserError("LightEval is not installed", 'install it: pip install "kedge[eval]"')
