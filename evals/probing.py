"""Probe prompts: the same few prompts answered by every checkpoint, shown side by side and never gated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from curation.catalog import Catalog, write_parquet
from curation.checkpoints import Checkpoint
from curation.config import Strict, load_yaml
from curation.fingerprint import fingerprint, hash_bytes
from curation.outputs import Manifest
from evals import Request, RequestSet, Response
from evals.prompting import Prompting, judged_with, require_positions
from evals.scores import weights_identity

PART = "part-answers.parquet"
ANSWERS = pa.schema(
    [
        ("probes", pa.string()),
        ("name", pa.string()),
        ("position", pa.int32()),  # 0-based place in the probes' file
        ("prompt", pa.string()),
        ("prompt_hash", pa.string()),
        ("response", pa.string()),
        ("output_tokens", pa.int64()),
        ("finish_reason", pa.string()),  # stop | length | error
        ("loop_period", pa.int64()),  # tokens of the stretch that repeats up to the end; 0 where none does
        ("loop_repeats", pa.int64()),
    ]
)


class Probe(Strict):
    """One prompt: a `prompt` (the user's turn) or whole `messages`."""

    name: str
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Probe:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of 'prompt' and 'messages'; 'prompt' is a user's turn")
        return self

    def turns(self) -> list[dict[str, str]]:
        return self.messages or [{"role": "user", "content": self.prompt or ""}]


class ProbeSet(Strict):
    """`catalogs/probes/NAME.yaml`. `form: plain` puts the prompts without a chat template."""

    prompts: list[Probe] = Field(min_length=1)
    max_new_tokens: int = Field(default=256, ge=1)
    form: str = Field(default="chat", pattern="^(chat|plain)$")

    @model_validator(mode="after")
    def _no_twins(self) -> ProbeSet:
        names = [probe.name for probe in self.prompts]
        twins = sorted({name for name in names if names.count(name) > 1})
        if twins:
            raise ValueError(f"prompts holds the name {', '.join(twins)} twice; give each its own")
        return self


class Loop(NamedTuple):
    """`period` tokens stand `repeats` times in a row at the end of a text; both 0 where nothing loops."""

    period: int
    repeats: int


def find_loop(tokens: Sequence[int], *, min_repeats: int = 4, min_tokens: int = 12) -> Loop:
    """The shortest stretch that repeats exactly up to the end of `tokens` (shape T), at least `min_repeats` times and
    over at least `min_tokens` tokens."""
    length = len(tokens)
    for period in range(1, length // min_repeats + 1):
        place = length - 1
        while place >= period and tokens[place] == tokens[place - period]:
            place -= 1
        covered = length - 1 - place + period
        if covered >= max(min_repeats * period, min_tokens):
            return Loop(period, covered // period)
    return Loop(0, 0)


def load_probes(catalog: Catalog, name: str) -> ProbeSet:
    """A set of probes by name or path. Raises UserError with "did you mean", or with the lines that are wrong."""
    return load_yaml(catalog.project.path("probes", name, ".yaml"), ProbeSet)


def probe_requests(name: str, probes: ProbeSet, asked: Prompting) -> RequestSet:
    """The probes as requests, named so that no benchmark has the same name."""
    requests = []
    for probe in probes.prompts:
        text = asked.text(probe.turns(), probes.form)
        requests.append(Request(probe.name, 0, text, asked.ids(text)))
    needed = max(len(request.prompt_ids) for request in requests) + probes.max_new_tokens
    require_positions(asked, f"probes {name}", needed)
    return RequestSet(f"probes/{name}", tuple(requests), probes.max_new_tokens, {"temperature": 0.0})


def answers_fingerprint(name: str, probes: ProbeSet, checkpoint: Checkpoint, conditions: dict[str, Any]) -> str:
    """The identity of a checkpoint's answers to a set of probes."""
    return fingerprint({"probes": name, "set": probes, "conditions": conditions} | weights_identity(checkpoint))


def answers_folder(catalog: Catalog, identity: str) -> Path:
    """Where answers with an identity lie, whether they exist or not."""
    return catalog.folder("evidence", "probes", identity[:16])


def write_answers(catalog: Catalog, checkpoint: Checkpoint, name: str, probes: ProbeSet, asked: RequestSet,
                  responses: list[Response], conditions: dict[str, Any]) -> Path:  # fmt: skip
    """Publish a checkpoint's answers to a set of probes and return their folder."""
    by_name = {response.sample_id: response for response in responses}
    rows = []
    for position, request in enumerate(asked.requests):
        response = by_name.get(request.sample_id, Response(request.sample_id, 0, problem="no response"))
        loop = find_loop(response.token_ids)
        rows.append({
            "probes": name, "name": request.sample_id, "position": position, "prompt": request.prompt,
            "prompt_hash": hash_bytes(request.prompt.encode("utf-8", "surrogatepass")), "response": response.text,
            "output_tokens": len(response.token_ids),
            "finish_reason": "error" if response.problem else "stop" if response.finished else "length",
            "loop_period": loop.period, "loop_repeats": loop.repeats,
        })  # fmt: skip
    identity = answers_fingerprint(name, probes, checkpoint, conditions)
    target = answers_folder(catalog, identity)
    with catalog.publishing(target) as draft:
        part = write_parquet(draft.folder / PART, pa.Table.from_pylist(rows, schema=ANSWERS))
        draft.manifest = Manifest(kind="evidence", name=f"probes/{name}", fingerprint=identity, parts=[part],
                                  inputs=weights_identity(checkpoint), parameters=conditions)  # fmt: skip
    return target


def probe_answers(catalog: Catalog, reference: str) -> list[dict[str, Any]]:
    """The answers of every checkpoint of a run (its start first): the columns of `ANSWERS` with `checkpoint` (its id)
    and `step`, ordered by probes, position and checkpoint; of several answers of the same weights, the latest."""
    _, _, judged = judged_with(catalog, reference)
    published = catalog.manifests("evidence")
    published.sort(key=lambda item: (catalog.provenance(item[0]).get("created_at", ""), item[1].fingerprint))
    rows = []
    for order, checkpoint in enumerate(judged):
        mine = weights_identity(checkpoint)
        latest = {manifest.name: folder for folder, manifest in published
                  if manifest.name.startswith("probes/") and manifest.inputs == mine}  # fmt: skip
        for folder in latest.values():
            for row in pq.read_table(folder / PART).to_pylist():
                rows.append((row["probes"], row["position"], order,
                             row | {"checkpoint": checkpoint.id, "step": checkpoint.step}))  # fmt: skip
    return [row for *_, row in sorted(rows, key=lambda entry: entry[:3])]
