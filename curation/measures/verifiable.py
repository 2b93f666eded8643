"""Can this prompt be rewarded: its answer is known, readable, tellable from a wrong one, hidden, worth the sampling."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl
import pyarrow as pa

from curation.measures import PartMeasure
from curation.texts import joined
from curation.verifiers import attacks, kinds, math, named
from curation.verifiers.named import Item

MAX_PROMPT_CHARS = 20_000  # of a prompt that is searched for its answer: its end


class Verifiable(PartMeasure):
    r"""`answer_verifier` is the verifier that the row's `verifier` (verl's `data_source`) stands for, null where there
    is none; `verifiers/named.py` has the table. `truth_present`: the ground truth is more than white space.
    `truth_parsable`: the verifier reads it (`math`: math-verify makes an expression of it, or it is a word);
    `truth_state` is its verdict on the ground truth itself, written plainly, in `\boxed{}` and as "The answer is ...":
    right, or the first other state; `perturbed_state` its verdict on the ground truth with one digit, letter, option or
    role changed (`verifiers/attacks.py`), which should not be right. These four are null where the things before them
    are missing.

    `answer_kind`: number, expression, choice, boolean, text or structure. `answer_stated_in_prompt`: the prompt holds
    the answer after "answer is", in a box, after "####". `answer_in_prompt`: the whole answer stands somewhere in the
    prompt, null where that tells nothing (choices, yes or no, numbers of fewer than 4 digits, other answers of fewer
    than 8 characters). `guess_chance` (0..1) is the share of blind guesses that hit, null for an open answer.

    `pass_rate_mean`, `pass_rate_last` (0..1) and `pass_rate_count` are of the row's pass rates in their order (a
    training run's, for example); `never_solved` and `always_solved` say that every one is 0 or 1. Null without rates.
    """

    version: ClassVar[int] = 2
    stages: ClassVar[tuple[str, ...]] = ("rlvr",)
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/texts.py",
        *(f"curation/verifiers/{name}.py" for name in (
            "__init__", "attacks", "choice", "code", "code_link", "code_sandbox", "code_tests", "code_walls", "exact",
            "instructions", "kinds", "languages", "logic", "math", "named", "numeric", "reading", "worker")),
    )  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("answer_verifier", pa.string()),
            ("truth_present", pa.bool_()),
            ("truth_parsable", pa.bool_()),
            ("truth_state", pa.string()),
            ("perturbed_state", pa.string()),
            ("answer_kind", pa.string()),
            ("answer_stated_in_prompt", pa.bool_()),
            ("answer_in_prompt", pa.bool_()),
            ("guess_chance", pa.float64()),
            ("pass_rate_mean", pa.float64()),
            ("pass_rate_last", pa.float64()),
            ("pass_rate_count", pa.int32()),
            ("never_solved", pa.bool_()),
            ("always_solved", pa.bool_()),
        ]
    )

    def reads(self, stage: str) -> tuple[str, ...]:
        return ("prompt", "ground_truth", "verifier", "pass_rates")

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        golds = [gold or "" for gold in rows["ground_truth"].to_pylist()]
        names = [named.canonical(name) for name in rows["verifier"].to_pylist()]
        prompts = [text[-MAX_PROMPT_CHARS:] for text in joined(rows, ["prompt"], ("content",)).to_pylist()]
        found: list[dict[str, Any]] = [_of_prompt(*row) for row in zip(names, golds, prompts, strict=True)]
        for row, verdict in zip(found, _verdicts(names, golds), strict=True):
            row |= verdict
        table = pl.DataFrame(found, schema={name: _POLARS[name] for name in found[0]} if found else None)
        table = table.with_columns(_pass_rates(rows["pass_rates"])) if found else pl.DataFrame(schema=_POLARS)
        return table.select(self.columns.names).to_arrow().cast(self.columns)


_TYPES: dict[Any, Any] = {
    pa.string(): pl.String, pa.bool_(): pl.Boolean, pa.float64(): pl.Float64, pa.int32(): pl.Int32
}  # fmt: skip
_POLARS = {field.name: _TYPES[field.type] for field in Verifiable.columns}


def _of_prompt(verifier: str | None, gold: str, prompt: str) -> dict[str, Any]:
    row: dict[str, Any] = {"answer_verifier": verifier, "truth_present": bool(gold.strip()), "answer_kind": None,
                           "answer_stated_in_prompt": None, "answer_in_prompt": None, "guess_chance": None}  # fmt: skip
    if gold.strip():
        kind = kinds.kind_of(verifier, gold)
        row |= {"answer_kind": kind, "answer_stated_in_prompt": kinds.stated_in(gold, prompt),
                "answer_in_prompt": kinds.stands_in(kind, gold, prompt),
                "guess_chance": kinds.guess_chance(kind, gold, prompt)}  # fmt: skip
    return row


def _verdicts(names: list[str | None], golds: list[str]) -> list[dict[str, Any]]:
    """`truth_parsable`, `truth_state` and `perturbed_state` of N rows. Worker processes live as long as this call, and
    only where mathematics must be compared."""
    from curation.verifiers.pool import Workers

    rows: list[dict[str, Any]] = [dict.fromkeys(("truth_parsable", "truth_state", "perturbed_state")) for _ in names]
    items: list[tuple[int, str, Item]] = []
    parses: list[tuple[int, dict[str, Any]]] = []
    for index, (verifier, gold) in enumerate(zip(names, golds, strict=True)):
        if verifier is None or not gold.strip():
            continue
        try:
            named.check(verifier, gold)
        except ValueError:
            rows[index]["truth_parsable"] = False
            continue
        rows[index]["truth_parsable"] = True
        if verifier == "math" and not math.is_plain(gold):
            parses.append((index, {"gold": math.clean(gold)}))
        items += [(index, "truth_state", Item(verifier, text, gold)) for text in attacks.forms(verifier, gold).values()]
        other = attacks.perturbed(verifier, gold)
        wrong = next(iter(attacks.forms(verifier, other).values()))
        items.append((index, "perturbed_state", Item(verifier, wrong, gold)))
    with Workers() as workers:
        for (index, _), state in zip(parses, named.compare([asked for _, asked in parses], workers), strict=True):
            rows[index]["truth_parsable"] = state == "right"
        judged = named.judge_all([item for _, _, item in items], workers)
    for (index, column, _), judgement in zip(items, judged, strict=True):
        if rows[index][column] in (None, "right"):
            rows[index][column] = judgement.state
    return rows


def _pass_rates(rates: pa.ChunkedArray) -> list[pl.Series]:
    known = pl.Series("rates", pl.from_arrow(rates), dtype=pl.List(pl.Float64)).list.drop_nulls()
    frame = pl.DataFrame({"rates": known})
    column = pl.col("rates").list
    some = column.len() > 0
    measured = frame.select(
        pass_rate_mean=column.mean(), pass_rate_last=pl.when(some).then(column.last()),
        pass_rate_count=column.len().cast(pl.Int32), never_solved=pl.when(some).then(column.max() == 0),
        always_solved=pl.when(some).then(column.min() == 1),
    )  # fmt: skip
    return measured.with_columns(pl.when(pl.col("pass_rate_count") > 0).then(pl.col("pass_rate_count"))).get_columns()
