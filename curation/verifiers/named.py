"""Verifiers by name: the names that data use, and items of any verifier judged together.

A name stands for a verifier where both ask the same question of the same kind of gold answer; kedge's verifier may well
be stricter or more lenient than the scorer that a trainer has under that name. A name that is not in the table has no
verifier, which is no judgement on the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from curation.verifiers import Judgement, choice, code, exact, instructions, logic, math, numeric
from curation.verifiers.reading import after_thought, without_echo

if TYPE_CHECKING:
    from curation.verifiers.pool import Workers

JUDGES: dict[str, Callable[[str, str], Judgement]] = {
    "choice": choice.judge, "exact": exact.judge, "logic": logic.judge, "numeric": numeric.judge,
}  # fmt: skip
WHOLE = ("code", "instructions")  # judge the whole answer as it is written, and give a share for its parts
VERIFIERS = (*JUDGES, "math", *WHOLE)
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
    "humaneval": "code", "openai_humaneval": "code", "openai/openai_humaneval": "code", "mbpp": "code",
    "google-research-datasets/mbpp": "code", "ifeval": "instructions", "google/ifeval": "instructions",
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
    elif verifier == "code":
        code.read_tests(gold)
    elif verifier == "instructions":
        instructions.read_instructions(gold)
    else:
        JUDGES[verifier]("", gold)


class Graded(NamedTuple):
    """A judgement and the share (0..1) of an answer that is right: of tests passed (`code`) or instructions followed
    (`instructions`); for the others 1 where the answer is right, else 0. `detail` says what was not."""

    judgement: Judgement
    share: float
    detail: str | None = None


def judge_all(items: Sequence[Item], workers: Workers | None = None) -> list[Judgement]:
    """The judgements of N items in their order. A gold answer that the verifier cannot read is `error`. `workers` are
    asked where mathematics must be compared; without them, one process is started for this call, if any is needed.
    Code runs in processes of its own, as many at a time as there are workers. Raises WorkersFailed where mathematics
    cannot be compared."""
    return [item.judgement for item in grade_all(items, workers)]


def grade_all(items: Sequence[Item], workers: Workers | None = None) -> list[Graded]:
    """`judge_all` with the share of each answer that is right."""
    settled = [_settle(item) for item in items]
    open_items = [index for index, item in enumerate(settled) if isinstance(item, math.Comparison)]
    programs = [index for index, item in enumerate(settled) if isinstance(item, _Program)]
    found = {index: item for index, item in enumerate(settled) if isinstance(item, Graded)}
    questions: list[dict[str, Any]] = [question(settled[index]) for index in open_items]
    for index, state in zip(open_items, compare(questions, workers), strict=True):
        shown = settled[index].shown  # type: ignore[union-attr]
        found[index] = _plain(Judgement(state, None if state == "unparsed" else shown))
    texts = [(settled[index].text, items[index].gold) for index in programs]  # type: ignore[union-attr]
    for index, ran in zip(programs, code.run_all(texts, workers.number if workers else 1), strict=True):
        found[index] = _of_code(ran)
    return [found[index] for index in range(len(items))]


class _Program(NamedTuple):
    """Code that waits for its tests."""

    text: str


def _plain(judgement: Judgement) -> Graded:
    return Graded(judgement, float(judgement.state == "right"))


def _of_code(ran: code.Ran | None) -> Graded:
    if ran is None:
        return Graded(Judgement("error", None), 0.0, "the ground truth holds no test")
    shown = None if ran.code is None else ran.code[: code.SHOWN_CHARS]
    return Graded(Judgement(ran.state, shown), ran.share, ran.detail)


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


def _settle(item: Item) -> Graded | math.Comparison | _Program:
    text = after_thought(item.text)
    if item.verifier in WHOLE:
        return _settle_whole(item, text)
    if text is not None and item.prompt:
        text = without_echo(text, item.prompt)
    try:
        if item.verifier == "math":
            found = math.settle(text or "", item.gold)
        else:
            found = JUDGES[item.verifier](text or "", item.gold)
    except ValueError:
        return _plain(Judgement("error", None))
    if text is None:
        return _plain(Judgement("unparsed", None))
    return found if isinstance(found, math.Comparison) else _plain(found)


def _settle_whole(item: Item, text: str | None) -> Graded | _Program:
    """`code` and `instructions`, to which an echo of the prompt is a part of the answer."""
    try:
        check(item.verifier, item.gold)
    except ValueError as error:
        return Graded(Judgement("error", None), 0.0, str(error))
    if text is None:
        return _plain(Judgement("unparsed", None))
    if item.verifier == "code":
        return _Program(text)
    try:
        judgement, share = instructions.graded(text if text == item.text else text.strip(), item.gold)
    except ValueError as error:  # languages cannot be told here
        return Graded(Judgement("error", None), 0.0, str(error))
    return Graded(judgement, share, judgement.answer or None)
