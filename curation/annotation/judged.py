"""`kedge annotate add JOB --judge`: a judge answers the items of a job, as one more annotator.

Every pair is asked in both slot orders, and only what both say is a vote; the rest is kept as discarded, with what was
said. A judge's vote is evidence beside those of people and is never shown to them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from curation.annotation import store
from curation.annotation.jobs import Question
from curation.annotation.records import BOTH_BAD, DISCARDED, JUDGE, SUBMITTED, TIE, VOTES, VOTES_KIND
from curation.annotation.rounds import Round, latest_round
from curation.annotation.vote_items import ranking
from curation.catalog import Catalog
from curation.config import SHIPPED, Project, load_yaml
from curation.console import out, print_json, progress, table
from curation.errors import InstrumentError, UserError
from curation.fingerprint import fingerprint
from curation.judge_files import JudgeFile, load_judge
from curation.judging import READ, UNPARSED, Judge, JudgeSettings, Verdict

COMPARE = "compare"
ITEMS_AT_ONCE = 64
CONSISTENT, INCONSISTENT = "consistent", "inconsistent"
Item = Mapping[str, Any]


@dataclass
class Judged:
    """What a judge answered. `inconsistent` items got another answer in the other slot order (`slots` counts how often
    the judge took the same slot twice), `unparsed` ones no answer that can be read; both are kept as discarded votes.
    `unanswered` items got no reply and are asked again by the same command."""

    job: str
    round: str
    annotator: str
    num_items: int
    already_there: int
    new_votes: int = 0
    consistent: int = 0
    inconsistent: int = 0
    unparsed: int = 0
    unanswered: int = 0
    requests: int = 0
    cached: int = 0
    slots: dict[str, int] = field(default_factory=dict)
    detail: str = ""


class Asked(NamedTuple):
    """What the questions of a round mean to a judge."""

    compare: JudgeFile | None
    ratings: dict[str, tuple[JudgeFile, list[int]]]


def add_judged(catalog: Catalog, job: str, settings: JudgeSettings | None = None) -> Judged:
    """Let the judge (see judging.py: KEDGE_JUDGE_URL, KEDGE_JUDGE_MODEL, KEDGE_JUDGE_KEY) answer the items of the job's
    latest round that it has not answered. Replies are kept under `lake/.cache/judge`, so that a killed command goes on
    where it was. Raises UserError where no question of the job can be put to a judge."""
    chosen = latest_round(catalog, job)
    asked = asked_of(catalog.project, chosen)
    settings = settings or JudgeSettings()
    settings = settings.model_copy(update={"cache": settings.cache or str(catalog.lake / ".cache" / "judge")})
    with catalog.writing(VOTES_KIND, job), Judge(settings) as judge:
        annotator = name_of(catalog.project, judge.model, asked)
        known = store.read_votes(catalog, job, chosen.name).to_pylist()
        there = {vote["item_id"] for vote in known if vote["annotator"] == annotator}
        items = [item for item in chosen.items.to_pylist() if _has_texts(item)]
        if not items:
            raise UserError(f"the items of {job}, {chosen.name} show no answers", "add votes with the texts of what "
                            "was compared: columns prompt, response_a and response_b")  # fmt: skip
        todo = [item for item in items if item["item_id"] not in there]
        found = Judged(job, chosen.name, annotator, len(items), len(items) - len(todo))
        votes = _votes(judge, asked, todo, annotator, found)
        found.new_votes = store.add_votes(catalog, job, chosen.name, pa.Table.from_pylist(votes, schema=VOTES))
        found.requests, found.cached = judge.requests, judge.cached
    return found


def asked_of(project: Project, chosen: Round) -> Asked:
    """The judge files that answer a round's questions: `compare` with the round's guidelines for its preference or
    ranking question, and for a rating question of answers the file of kind `score` that has its name and scale. Raises
    UserError where there is none."""
    told = f"\n\nThe guidelines that annotators follow:\n{chosen.guidelines}" if chosen.guidelines.strip() else ""
    compare, ratings = None, {}
    known = project.paths("judges", ".yaml")
    for question in chosen.questions:
        if question.kind in ("preference", "ranking"):
            file = load_judge(COMPARE, "compare", project)
            compare = file.model_copy(update={"rubric": file.rubric.strip() + told,
                                              "verdicts": tuple(_allowed(question, file))})  # fmt: skip
        elif question.kind == "rating" and question.of == "candidate" and question.name in known:
            score = load_judge(question.name, "score", project)
            if score.scale == (question.values[0], question.values[-1]):
                ratings[question.name] = (score.model_copy(update={"rubric": score.rubric.strip() + told}),
                                          question.values)  # fmt: skip
    if compare is None and not ratings:
        raise UserError(f"no question of '{chosen.job}' can be put to a judge", "ask for a preference, or write "
                        "catalogs/judges/QUESTION.yaml of kind score with the scale of a rating question")  # fmt: skip
    return Asked(compare, ratings)


def _allowed(question: Question, file: JudgeFile) -> list[str]:
    special = {TIE: question.kind == "ranking" or question.tie,
               BOTH_BAD: question.kind == "preference" and question.both_bad}  # fmt: skip
    return [verdict for verdict in file.verdicts if special.get(verdict, True)]


def name_of(project: Project, model: str, asked: Asked) -> str:
    """`judge-MODEL`; with six characters of what is asked where that is not the file that kedge ships, so that two ways
    of asking are two annotators."""
    shipped = load_yaml(SHIPPED / "judges" / f"{COMPARE}.yaml", JudgeFile)
    own = [load_judge(COMPARE, "compare", project)] if asked.compare is not None else []
    files = [*own, *(load_judge(name, "score", project) for name in sorted(asked.ratings))]
    return f"judge-{model}" if files == [shipped] else f"judge-{model}-{fingerprint(files)[:6]}"


def _votes(judge: Judge, asked: Asked, items: Sequence[Item], annotator: str, found: Judged) -> list[dict[str, Any]]:
    """Votes on all items that got a reply; counts go into `found`. Stops where a whole batch got none."""
    votes: list[dict[str, Any]] = []
    slots: Counter[str] = Counter()
    with progress(f"judging {found.job}", len(items)) as advance:
        for start in range(0, len(items), ITEMS_AT_ONCE):
            batch = items[start : start + ITEMS_AT_ONCE]
            answered = _batch(judge, asked, batch, annotator, found, slots)
            fresh = [vote for vote in answered if vote is not None]
            votes += fresh
            advance(len(batch))
            if not fresh:
                found.unanswered += len(items) - start - len(batch)
                break
    found.slots = dict(sorted(slots.items()))
    return votes


def _batch(judge: Judge, asked: Asked, items: Sequence[Item], annotator: str, found: Judged, slots: Counter[str]
           ) -> list[dict[str, Any] | None]:  # fmt: skip
    """A vote for each item, None where it got no reply."""
    pairs = [(place, one, other) for place, item in enumerate(items)
             for one, other in itertools.combinations(_texts(item), 2)]  # fmt: skip
    verdicts: list[list[Verdict]] = [[] for _ in items]
    if asked.compare is not None:
        said = judge.compare(asked.compare, [(_prompt(items[place]), one, other) for place, one, other in pairs])
        for (place, _, _), verdict in zip(pairs, said, strict=True):
            verdicts[place].append(verdict)
    ratings = _ratings(judge, asked, items)
    return [_vote(item, mine, rated, annotator, found, slots)
            for item, mine, rated in zip(items, verdicts, ratings, strict=True)]  # fmt: skip


def _ratings(judge: Judge, asked: Asked, items: Sequence[Item]) -> list[dict[str, Any]]:
    """For each item its `ratings`, and `outcomes` of those that were not read."""
    found: list[dict[str, Any]] = [{"ratings": [], "outcomes": []} for _ in items]
    for name, (file, values) in asked.ratings.items():
        sides = [(place, one["key"], text) for place, item in enumerate(items)
                 for one, text in zip(item["candidates"], _texts(item), strict=True)]  # fmt: skip
        answers = judge.score(file, [(_prompt(items[place]), text) for place, _, text in sides])
        for (place, key, _), answer in zip(sides, answers, strict=True):
            if answer.outcome == READ:
                value = min(values, key=lambda one: (abs(one - answer.value), one))
                found[place]["ratings"].append({"question": name, "key": key, "value": value})
            else:
                found[place]["outcomes"].append(answer.outcome)
    return found


def _vote(item: Item, verdicts: Sequence[Verdict], rated: Mapping[str, Any], annotator: str, found: Judged,
          slots: Counter[str]) -> dict[str, Any] | None:  # fmt: skip
    outcomes = [verdict.outcome for verdict in verdicts] + rated["outcomes"]
    if lost := [outcome for outcome in outcomes if outcome not in (CONSISTENT, INCONSISTENT, UNPARSED)]:
        found.unanswered += 1
        found.detail = lost[0]
        return None
    keys = [one["key"] for one in item["candidates"]]
    outcome = next((name for name in (UNPARSED, INCONSISTENT) if name in outcomes), CONSISTENT)
    setattr(found, outcome, getattr(found, outcome) + 1)
    slots.update(verdict.slot for verdict in verdicts if verdict.slot)
    ranks = _ranks(keys, verdicts) if outcome == CONSISTENT and verdicts else None
    verdict = None if ranks is None else _best(keys, verdicts, ranks)
    said = {"outcome": outcome, "said": [list(one.votes) for one in verdicts]}
    values: dict[str, Any] = {
        "item_id": item["item_id"], "job": item["job"], "round": item["round"], "edition": item["edition"],
        "row_id": item["row_id"], "annotator": annotator, "kind": JUDGE, "verdict": verdict,
        "status": SUBMITTED if outcome == CONSISTENT else DISCARDED, "ranking": ranks,
        "ratings": rated["ratings"] or None,
        "values": orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()}  # fmt: skip
    return {name: values.get(name) for name in VOTES.names}


def _ranks(keys: Sequence[str], verdicts: Sequence[Verdict]) -> list[dict[str, Any]] | None:
    """Ranks by the number of comparisons won, a tie being half of one; None where both of two are bad."""
    if len(keys) == 2:
        return ranking(_named(keys, verdicts[0]), keys)
    won = dict.fromkeys(keys, 0.0)
    for pair, verdict in zip(itertools.combinations(keys, 2), verdicts, strict=True):
        winner = _named(pair, verdict)
        for key in pair:
            won[key] += 1.0 if key == winner else 0.5 if winner not in pair else 0.0
    return [{"key": key, "rank": 1 + sum(other > won[key] for other in won.values())} for key in keys]


def _named(keys: Sequence[str], verdict: Verdict) -> str:
    return {"first": keys[0], "second": keys[1]}.get(str(verdict.value), str(verdict.value))


def _best(keys: Sequence[str], verdicts: Sequence[Verdict], ranks: Sequence[Mapping[str, Any]]) -> str:
    if len(keys) == 2:
        return _named(keys, verdicts[0])
    first = [one["key"] for one in ranks if one["rank"] == 1]
    return str(first[0]) if len(first) == 1 else TIE


def _has_texts(item: Item) -> bool:
    return bool(item["candidates"]) and all(one["messages"] for one in item["candidates"])


def _prompt(item: Item) -> str:
    tools = f"The assistant may call these tools:\n{item['tools']}\n\n" if item["tools"] else ""
    return tools + spoken(item["prompt"] or [], alone="user")


def _texts(item: Item) -> list[str]:
    return [spoken(one["messages"] or [], alone="assistant") for one in item["candidates"]]


def spoken(messages: Sequence[Mapping[str, Any]], alone: str) -> str:
    """Messages as text: a single turn of role `alone` as it is, else every turn under its role."""
    turns = []
    for message in messages:
        thought, calls = message.get("reasoning"), message.get("tool_calls")
        parts = [f"<think>\n{thought}\n</think>" if thought else "", message.get("content") or "",
                 f"Calls: {calls}" if calls else ""]  # fmt: skip
        text = "\n".join(part for part in parts if part)
        turns.append(text if len(messages) == 1 and message["role"] == alone else f"{message['role']}: {text}")
    return "\n\n".join(turns)


def print_judged(found: Judged, json: bool) -> None:
    """Print what a judge answered. Raises InstrumentError where items got no reply."""
    if json:
        print_json(asdict(found))
    else:
        rows = [("items", found.num_items), ("answered before", found.already_there), ("votes", found.consistent),
                ("other answer in the other order", found.inconsistent), ("not readable", found.unparsed),
                ("no reply", found.unanswered), ("requests", found.requests),
                ("replies that were there", found.cached)]  # fmt: skip
        table(f"{found.job}, {found.round}: {found.annotator}", ("", "number"), rows)
        for slot, count in found.slots.items():
            out.print(f"took slot {slot} in both orders: {count:,} times, which is no preference", markup=False)
    if found.unanswered:
        raise InstrumentError(f"{found.unanswered:,} of {found.num_items:,} items got no reply ({found.detail})",
                              f"run again: kedge annotate add {found.job} --judge")  # fmt: skip
    if not json:
        out.print(f"next: kedge annotate report {found.job}", markup=False)
