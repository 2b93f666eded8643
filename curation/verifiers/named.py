"""Verifiers by name: the names that data use, and items of any verifier judged together.

A name stands for a verifier where both ask the same question of the same kind of gold answer; kedge's verifier may well
be stricter or more lenient than the scorer that a trainer has under that name. A name that is not in the table has no
verifier, which is no judgement on the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from curation.verifiers import Judgement, choice, exact, logic, math, numeric
from curation.verifiers.reading import after_thought, without_echo

if TYPE_CHECKING:
    from curation.verifiers.pool import Workers

JUDGES: dict[str, Callable[[str, str], Judgement]] = {
    "choice": choice.judge, "exact": exact.judge, "logic": logic.judge, "numeric": numeric.judge,
}  # fmt: skip
VERIFIERS = (*JUDGES, "math")
# `data_source` of verl's own table (its scorers for code, tools and search are none of these) and of data sets in its
# schema. Lower case.
ALIASES = {
    "openai/gsm8k": "numeric", "gsm8k": "numeric", "svamp": "numeric", "asdiv": "numeric", "multiarith": "numeric",
    "lighteval/math": "math", "digitallearninggmbh/math-lighteval": "math", "huggingfaceh4/math-500": "math",
    "math500": "math", "math-500": "math", "math_500": "math", "math_dapo": "math", "math_dapo_reasoning": "math",
    "numina_aops_forum": "math", "numina_synthetic_math": "math", "numina_amc_aime": "math",
    "numina_synthetic_amc": "math", "numina_cn_k12": "math", "numina_olympiads": "math", "deepscaler": "math",
    "minerva_math": "math", "olympiadbench": "math", "olympiad_bench": "math", "amc": "math", "amc23": "math",
    "hendrycks_math": "math", "math_verify": "math", "hiyouga/geometry3k": "math",
    "kk_logic": "logic", "multiple_choice": "choice", "mmlu": "choice", "gpqa": "choice", "gpqa_diamond": "choice",
    "exact_match": "exact",
}  # fmt: skip
PREFIXES = {"aime": "math"}  # aime24, aime2025, ... as in verl's table


class Item(NamedTuple):
    """One answer to judge. `verifier` is one of VERIFIERS; `text` is taken after the thought; what it repeats of
    `prompt` is no answer."""

    verifier: str
    text: str
    gold: str
    prompt: str = ""


def canonical(name: str | None) -> str | None:
    """The verifier that a name of data stands for; None where there is none."""
    folded = (name or "").strip().lower()
    if folded in VERIFIERS:
        return folded
    found = ALIASES.get(folded)
    return found or next((verifier for prefix, verifier in PREFIXES.items() if folded.startswith(prefix)), None)


def check(verifier: str, gold: str) -> None:
    """Raises ValueError where text alone tells that a gold answer is none of this verifier's."""
    if verifier == "math":
        math.clean(gold)
    else:
        JUDGES[verifier]("", gold)


def judge_all(items: Sequence[Item], workers: Workers | None = None) -> list[Judgement]:
    """The judgements of N items in their order. A gold answer that the verifier cannot read is `error`. `workers` are
    asked where mathematics must be compared; without them, one process is started for this call, if any is needed.
    Raises WorkersFailed where it cannot run."""
    judged: list[Judgement | math.Comparison] = [_settle(item) for item in items]
    open_items = [index for index, item in enumerate(judged) if isinstance(item, math.Comparison)]
    questions: list[dict[str, Any]] = [question(judged[index]) for index in open_items]
    for index, state in zip(open_items, compare(questions, workers), strict=True):
        found = judged[index]
        assert isinstance(found, math.Comparison)
        judged[index] = Judgement(state, None if state == "unparsed" else found.shown)
    return [item for item in judged if isinstance(item, Judgement)]


def question(comparison: Any) -> dict[str, Any]:
    """A comparison as worker.py reads it."""
    return {"gold": comparison.gold, "answers": list(comparison.answers), "together": comparison.together}


def compare(questions: list[dict[str, Any]], workers: Workers | None = None) -> list[Any]:
    """The states of questions to math-verify; equal ones are asked once."""
    if not questions:
        return []
    import json

    keys = [json.dumps(item, sort_keys=True) for item in questions]
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    distinct = sorted(first.values())
    states = dict(zip((keys[index] for index in distinct), _ask([questions[index] for index in distinct], workers),
                      strict=True))  # fmt: skip
    return [states[key] for key in keys]


def _ask(questions: list[dict[str, Any]], workers: Workers | None) -> list[Any]:
    from curation.verifiers.pool import Workers as Pool

    if workers is not None:
        return list(workers.ask(questions))
    with Pool() as started:
        return list(started.ask(questions))


def _settle(item: Item) -> Judgement | math.Comparison:
    text = after_thought(item.text)
    if text is not None and item.prompt:
        text = without_echo(text, item.prompt)
    try:
        if item.verifier == "math":
            found = math.settle(text or "", item.gold)
        else:
            found = JUDGES[item.verifier](text or "", item.gold)
    except ValueError:
        return Judgement("error", None)
    return Judgement("unparsed", None) if text is None else found
