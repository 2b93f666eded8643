"""Rows, options and limits on which the mirrors of verl and verl itself are asked the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema
from curation.auditing.mirrors.verl_rl import VerlRL
from curation.auditing.mirrors.verl_sft import VerlSFT
from curation.measures.anatomy import anatomy_for
from curation.rendering import template_messages
from curation.rendering.per_message import parquet_row, render_prompts

WORDS = ("plus", "naïve", "東京", "🙂🙂", "  ", "\n\n", "The answer is", "<think>a</think>", "é", "12", "half <think>",
         "<tool_response>", "<|im_end|>", "<image>")  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "add", "description": "ädds", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}}}}]  # fmt: skip
NUM_CONVERSATIONS = 130
LONG = 100_000


def say(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def called(arguments: Any = "{\"a\": 1}") -> str:  # fmt: skip
    return json.dumps([{"type": "function", "function": {"name": "add", "arguments": arguments}}])


ODD: list[dict[str, Any]] = [
    {"messages": [say("system", "only a system turn")]},
    {"messages": [say("user", "only a question")]},
    {"messages": [say("assistant", "speaks first"), say("user", "q")]},
    {"messages": [say("user", ""), say("assistant", "")]},
    {"messages": [say("user", "q"), say("assistant", "a"), say("assistant", "and again")]},
    {"messages": [say("user", "q"), say("system", "in the middle"), say("assistant", "a")]},
    {"messages": [say("user", "q"), say("assistant", "a", reasoning="r"), say("user", "q"), say("assistant", "b")]},
    {"messages": [say("user", "q"), say("assistant", "b", reasoning="kept apart")]},
    {"messages": [say("user", "q"), say("assistant", "<think>\nin the text\n</think>\n\nb")]},
    {"messages": [say("user", "x " * 400), say("assistant", "12")]},
    {"messages": [say("user", "q"), say("assistant", "x " * 400)]},
    {"messages": [say("user", "add"), say("assistant", None, tool_calls=called()), say("tool", "2", tool_call_id="1"),
                  say("assistant", "2")], "tools": json.dumps(TOOLS)},
    {"messages": [say("system", "s"), say("user", "q"), say("assistant", "a")], "tools": json.dumps(TOOLS)},
]  # fmt: skip
# Rows that cannot share a file without changing each other: each gets a file of its own.
ALONE: list[dict[str, Any]] = [
    *ODD[:3], *ODD[6:8], *ODD[11:],
    {"messages": [say("user", "two calls"), say("assistant", None, tool_calls=json.dumps([
        {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}},
        {"type": "function", "function": {"name": "sub", "arguments": {"b": [1, 2.5]}}}]))]},
    {"messages": [say("user", "q"), say("assistant", "a")], "tools": json.dumps(
        [*TOOLS, {"type": "function", "function": {"name": "sub", "strict": True, "parameters": {
            "required": ["b"], "properties": {"b": {"default": 3, "enum": [3, 4]}, "a": {"enum": [1, 2]}}}}}])},
    {"messages": [say("user", "q", name="ann"), say("assistant", "a")]},
]  # fmt: skip


def conversation(draw: random.Random) -> dict[str, Any]:
    """One to three exchanges with odd texts, thoughts apart or in the text, tool calls, empty and repeated turns."""

    def text(longest: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randrange(longest)))

    turns = [say("system", text(6))] if draw.random() < 0.4 else []
    tools = draw.random() < 0.25
    for _ in range(draw.randrange(1, 4)):
        turns.append(say("user", text(90 if draw.random() < 0.2 else 12)))
        if tools and draw.random() < 0.5:
            turns += [
                say("assistant", draw.choice((None, text(4))), tool_calls=called()),
                say("tool", text(5), name="add"),
            ]
        thought = {"reasoning": text(8)} if draw.random() < 0.3 else {}
        turns.append(say("assistant", "" if draw.random() < 0.1 else text(30), **thought))
    return {"messages": turns, "tools": json.dumps(TOOLS)} if tools else {"messages": turns}


def rows() -> list[dict[str, Any]]:
    draw = random.Random(5)
    return ODD + [conversation(draw) for _ in range(NUM_CONVERSATIONS)]


@dataclass(frozen=True)
class Case:
    """What verl and the mirror are asked: rows, a template, verl's options, the run's template kwargs, and by how many
    tokens the limit lies below the length of a row in the middle (None: no row is too long)."""

    template: str = "chatml"
    options: dict[str, Any] = field(default_factory=dict)
    kwargs: dict[str, Any] = field(default_factory=dict)
    below: int | None = None
    alone: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        return ALONE if self.alone else rows()


IGNORE = {"ignore_input_ids_mismatch": True}
OFF = {"enable_thinking": False}
SFT = {
    **{f"{mode} {pad} {below}": Case(options={"truncation": mode, "pad_mode": pad}, below=below)
       for mode in ("error", "left", "right") for pad in ("no_padding", "right") for below in (0, 1)},
    **{f"narrow {pad}": Case(options={"truncation": "right", "pad_mode": pad, "max_token_len_per_gpu": 200}, below=0)
       for pad in ("no_padding", "right")},
    "qwen3": Case("qwen3"), "qwen3 ignoring": Case("qwen3", IGNORE), "qwen3_training": Case("qwen3_training"),
    "default system": Case("qwen2_5"), "default system ignoring": Case("qwen2_5", IGNORE),
    "needs a user turn": Case("qwen3_5_think"), "needs a user turn ignoring": Case("qwen3_5_think", IGNORE),
    "roles must alternate": Case("gemma3", IGNORE),
    "thinking on by default": Case("gemma4_v5", IGNORE),
    "thinking not said": Case("gemma4_v5", {**IGNORE, "enable_thinking_default": None}),
    "thinking off in the data": Case("glm4moe", {**IGNORE, "enable_thinking_default": False}),
    "thinking off in the run": Case("glm4moe", {**IGNORE, "enable_thinking_default": False}, OFF),
    "thinking off in the run alone": Case("qwen3", {**IGNORE, "enable_thinking_default": None}, OFF),
    **{f"alone {name}": Case(name, IGNORE, alone=True)
       for name in ("chatml", "qwen3", "gptoss", "llama3_1", "lfm2_2_5")},
}  # fmt: skip
RL = {
    f"{'filter' if on else 'no filter'} {below}{' ' + template if template != 'chatml' else ''}": Case(
        template, {"filter_overlong_prompts": on}, kwargs, below)
    for on in (True, False) for below, template, kwargs in
    ((0, "chatml", {}), (1, "chatml", {}), (0, "qwen3", OFF), (1, "qwen3_5_think", {}), (0, "gemma3", {}),
     (1, "qwen2_5", {}))
}  # fmt: skip
# truncation is dead: whatever it says, the beginning goes
RL |= {f"truncation {side}": Case(options={"truncation": side}, below=1) for side in ("right", "left", "middle")}


@dataclass(frozen=True)
class Mirrored:
    """What kedge says of a case's rows."""

    mirror: VerlSFT | VerlRL
    rendered: list[Any]
    anatomy: pa.Table
    fates: Any

    def kept(self, number: int) -> list[tuple[int, int]]:
        """(start, length) of the pieces of a row."""
        of = np.flatnonzero(self.fates.row == number)
        return [(int(self.fates.start[index]), int(self.fates.length[index])) for index in of]

    def ids(self, number: int) -> list[int]:
        return [token for start, length in self.kept(number)
                for token in self.rendered[number].ids[start : start + length].tolist()]  # fmt: skip

    def mask(self, number: int) -> list[int]:
        return [int(one) for start, length in self.kept(number)
                for one in self.rendered[number].mask[start : start + length]]  # fmt: skip


def limit_of(case: Case, lengths: list[int]) -> int:
    """A limit that a row has exactly (below: 0) or exceeds by one token (below: 1)."""
    lengths = sorted(length for length in lengths if length)
    return LONG if case.below is None else lengths[len(lengths) // 2] - case.below


def mirrored_sft(case: Case, folder: Path) -> Mirrored:
    table = pa.table({"messages": pa.array([row["messages"] for row in case.rows], schema.MESSAGES),
                      "tools": pa.array([row.get("tools") for row in case.rows], pa.string())})  # fmt: skip
    mirror = VerlSFT(**case.options)
    measure = anatomy_for(None, str(folder), "tokenizer", mirror.rendering_path("sft", ["messages"]),
                          mirror.rendering_kwargs(case.kwargs))  # fmt: skip
    anatomy = measure.measure(table, "sft")
    mirror = mirror.at(limit_of(case, anatomy["tokens"].to_pylist()))
    return Mirrored(mirror, measure.rendering.render_many(table.to_pylist(), "sft"), anatomy, mirror.fates(anatomy))


def prompts(case: Case) -> list[list[dict[str, Any]]]:
    """Everything before the last turn of each row; of a single turn that is nothing at all."""
    return [row["messages"][:-1] for row in case.rows]


def mirrored_rl(case: Case, folder: Path) -> Mirrored:
    mirror = VerlRL(**{name: value for name, value in case.options.items() if name != "truncation"})
    measure = anatomy_for(None, str(folder), "tokenizer", mirror.rendering_path("rlvr", []),
                          mirror.rendering_kwargs(case.kwargs), "rlvr")  # fmt: skip
    table = pa.table({"prompt": pa.array(prompts(case), schema.MESSAGES)})
    rendered = render_prompts(measure.rendering, table.to_pylist())
    anatomy = pa.table({"tokens": pa.array([len(item.ids) for item in rendered], pa.int32()),
                        "render_error": pa.array([item.error or None for item in rendered], pa.string())})  # fmt: skip
    mirror = mirror.at(limit_of(case, anatomy["tokens"].to_pylist()))
    return Mirrored(mirror, rendered, anatomy, mirror.fates(anatomy))


def write(path: Path, values: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(values), path)
    return str(path)


def sft_files(case: Case, folder: Path) -> list[str]:
    """verl's SFT rows. In a file of several rows those without tools hold an empty list: verl raises on null."""
    shaped = [parquet_row(row) for row in case.rows]
    if case.alone:
        return [write(folder / f"{number}.parquet", [row]) for number, row in enumerate(shaped)]
    return [write(folder / "all.parquet", [{"tools": [], **row} for row in shaped])]


def rl_files(case: Case, folder: Path) -> list[str]:
    """verl's RL rows: data_source, prompt, ability, reward_model and extra_info (verl's docs, "prepare data")."""
    return [write(folder / "all.parquet", [
        {"data_source": "kedge", "prompt": template_messages(turns), "ability": "math",
         "reward_model": {"style": "rule", "ground_truth": "1"}, "extra_info": {"split": "train", "index": number}}
        for number, turns in enumerate(prompts(case))])]  # fmt: skip


class Asked:
    """Both sides of every case: the mirrors', and verl's own from one process in its environment."""

    def __init__(self, python: Path, tokenizers: Any, folder: Path):
        self.python, self.folder = python, folder
        self.job: dict[str, Any] = {"options": {"kind": "options"}}
        self.mirrored: dict[str, Mirrored] = {}
        for kind, cases, mirror, files in (("sft", SFT, mirrored_sft, sft_files), ("rl", RL, mirrored_rl, rl_files)):
            for name, case in cases.items():
                at = folder / name.replace(" ", "_")
                at.mkdir()
                found = mirror(case, tokenizers(case.template))
                options = {**case.options, found.mirror.limits: found.mirror.context_length,
                           "train_batch_size": found.mirror.train_batch_size,
                           "apply_chat_template_kwargs": case.kwargs}  # fmt: skip
                self.mirrored[name] = found
                self.job[name] = {"kind": kind, "files": files(case, at), "tokenizer": str(tokenizers(case.template)),
                                  "options": options, "cache": str(folder / "cache")}  # fmt: skip
        nulls = [{**parquet_row(ODD[0]), "tools": None}, parquet_row(ODD[-1])]
        self.job["null tools"] = self.job["error no_padding 0"] | {"files": [write(folder / "nulls.parquet", nulls)]}
        self.verl = self._answers()

    def _answers(self) -> dict[str, Any]:
        job, out = self.folder / "job.json", self.folder / "out.json"
        job.write_text(json.dumps(self.job))
        environment = os.environ | {"HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "1"}
        probe = Path(__file__).with_name("verl_probe.py")
        done = subprocess.run([str(self.python), str(probe), str(job), str(out)], env=environment, text=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(out.read_text()))


def tokenizer_with(model: Path, folder: Path, template: str) -> Path:
    """A folder with the tiny tokenizer, given the special tokens of one of TRL's templates, and that template."""
    import trl
    from transformers import AutoTokenizer

    from curation.rendering.templates import SPECIAL

    at = folder / f"tokenizer_{template}"
    if not at.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(model)
        if template != "chatml":
            text = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text()
            tokenizer.add_special_tokens({"bos_token": "<|pad|>"})
            tokenizer.add_tokens(sorted(set(SPECIAL.findall(text))))
            tokenizer.chat_template = text
        tokenizer.save_pretrained(at)
        shutil.rmtree(at / "additional_chat_templates", ignore_errors=True)
    return at
