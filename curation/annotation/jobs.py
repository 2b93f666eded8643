"""Annotation jobs: `catalogs/annotations/NAME.sql` says what people are asked, how often and within what budget; its
query says about which rows, generations or earlier items."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from curation.annotation.rendering import RENDERING
from curation.catalog import Catalog
from curation.config import Project, SqlFile, Strict, load_sql, read_text, shown
from curation.errors import Problem, UserError, did_you_mean
from curation.fingerprint import fingerprint
from curation.measuring import Needs

FOLDER, SUFFIX = "annotations", ".sql"
WRITTEN = ("write", "edit")
VERDICTS = ("preference", "ranking")
MAX_CANDIDATES = 26  # slots A to Z
JOB_NAME = re.compile(r"[a-z0-9_]+")
DEFAULT_OVERLAP = 3
OPTIONS = {"tie": "preference", "both_bad": "preference", "values": "rating", "of": "rating", "labels": "flags"}

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Share = Annotated[float, Field(ge=0, le=1)]


class Question(Strict):
    """One question of a job. `preference` asks which of two candidates is better (`tie` and `both_bad` may be answered
    where they are true), `ranking` the order of two or more, `rating` one of `values` for each candidate (or for the
    whole item: `of: item`), `flags` any of `labels`, `text` words, `write` an answer of one's own, `edit` a better
    version of the one answer that is shown."""

    name: Name
    kind: Literal["preference", "ranking", "rating", "text", "flags", "write", "edit"]
    title: str = ""
    description: str = ""
    required: bool = True
    tie: bool = True
    both_bad: bool = True
    values: list[int] = [1, 2, 3, 4, 5]
    of: Literal["candidate", "item"] = "candidate"
    labels: list[str] = []

    @model_validator(mode="after")
    def _options(self) -> Question:
        for option in sorted(OPTIONS):
            default = type(self).model_fields[option].default
            if OPTIONS[option] != self.kind and getattr(self, option) != default:
                raise ValueError(f"{option}: belongs to {OPTIONS[option]} questions, and this is a {self.kind} "
                                 "question; remove it")  # fmt: skip
        if self.kind == "flags" and (len(self.labels) < 1 or len(set(self.labels)) < len(self.labels)
                                     or not all(label.strip() for label in self.labels)):  # fmt: skip
            raise ValueError("labels: must be different, and at least one; write labels: [NAME, ...]")
        if self.kind == "rating" and (sorted(set(self.values)) != self.values or len(self.values) < 2
                                      or self.values[0] < 0 or self.values[-1] > 10):  # fmt: skip
            raise ValueError("values: must be two or more rising numbers of 0..10; write values: [1, 2, 3, 4, 5]")
        return self

    @property
    def shown_title(self) -> str:
        """What annotators read: the title, else the name in words."""
        return self.title or self.name.replace("_", " ").capitalize()


class Budget(Strict):
    """What a round may cost. `items` counts everything that is shown, gold and repeated items too; `votes` is that
    times the annotators of each. The smaller one binds; without either the round holds what the query returns. The
    price is for figures alone: to change it changes no item."""

    items: int | None = Field(default=None, ge=1)
    votes: int | None = Field(default=None, ge=1)
    price_per_vote: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    currency: str = "EUR"


class JobHeader(Strict):
    """Header of `catalogs/annotations/NAME.sql`.

    `guidelines` is Markdown, or the path of an .md file beside the job. `gold_share` of the items have a known verdict
    (the query's column `gold`), `retest_share` of them are shown a second time with the candidates in opposite order.
    A `calibration` round is answered by every annotator; an `adjudication` decides items of the job `of`.
    `annotators_per_item` is 3, in a calibration the number of those in `assign`, in an adjudication 1 or that number.
    `stage` is that of the rows that `kept`, `signals` and `row_id` mean, and `needs` names the measures whose columns
    they have. Items of more than `max_chars` characters (prompt and candidates together) are refused, never cut.
    """

    guidelines: str = Field(min_length=1)
    questions: list[Question] = Field(min_length=1)
    round: Literal["calibration", "main", "adjudication"] = "main"
    of: str | None = None
    annotators_per_item: int = Field(default=DEFAULT_OVERLAP, ge=1)
    gold_share: Share = 0.0
    retest_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    budget: Budget = Budget()
    seed: int = 0
    stage: Literal["preference", "sft", "rlvr"] = "preference"
    needs: Needs = []
    workspace: str = Field(default="kedge", min_length=1)
    assign: list[str] | None = Field(default=None, min_length=1)
    max_chars: int = Field(default=100_000, ge=1)
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def _overlap(cls, value: Any) -> Any:
        """annotators_per_item where the round's kind decides it."""
        if isinstance(value, dict) and "annotators_per_item" not in value and value.get("round") in (
                "calibration", "adjudication"):  # fmt: skip
            assign = value.get("assign")
            if isinstance(assign, list) and assign:
                return value | {"annotators_per_item": len(assign)}
            if value["round"] == "adjudication":
                return value | {"annotators_per_item": 1}
            raise ValueError("annotators_per_item: is needed in a calibration, which every annotator answers; write "
                             "how many they are, or name them under assign")  # fmt: skip
        return value

    @model_validator(mode="after")
    def _agree(self) -> JobHeader:
        names = [question.name for question in self.questions]
        kinds = [question.kind for question in self.questions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"questions: two are named '{twice[0]}'; rename one")
        if sum(kind in VERDICTS for kind in kinds) > 1:
            raise ValueError("questions: more than one asks for a verdict; keep one preference or ranking question")
        if sum(kind in WRITTEN for kind in kinds) > 1:
            raise ValueError("questions: more than one asks for an answer; keep one write or edit question")
        if "edit" in kinds and set(kinds) & set(VERDICTS):
            raise ValueError("questions: an edit needs one answer, a verdict needs two; put them into two jobs")
        if not any(question.required for question in self.questions):
            raise ValueError("questions: none is required; an annotator could submit nothing")
        if (self.round == "adjudication") != (self.of is not None):
            raise ValueError("of: names the job whose items an adjudication decides; write both, or neither")
        if self.gold_share + self.retest_share > 1:
            raise ValueError("gold_share: and retest_share pass 1 together; lower one")
        if (self.gold_share or self.retest_share) and not set(kinds) & {"preference", "ranking", "rating", "flags"}:
            raise ValueError("gold_share: and retest_share need a question with answers to compare; set both to 0")
        if self.gold_share and not set(kinds) & set(VERDICTS):
            raise ValueError("gold_share: needs a preference or ranking question; set it to 0")
        if self.round == "adjudication" and (self.gold_share or self.retest_share):
            raise ValueError("gold_share: and retest_share have no place in an adjudication; set both to 0")
        return self

    @property
    def verdict(self) -> Question | None:
        """The preference or ranking question, where there is one."""
        return next((item for item in self.questions if item.kind in VERDICTS), None)

    @property
    def written(self) -> Question | None:
        """The write or edit question, where there is one."""
        return next((item for item in self.questions if item.kind in WRITTEN), None)

    @property
    def max_items(self) -> int | None:
        """How many items the budget allows; None where it sets no limit."""
        limits = [self.budget.items] if self.budget.items is not None else []
        if self.budget.votes is not None:
            limits.append(self.budget.votes // self.annotators_per_item)
        return min(limits, default=None)


@dataclass(frozen=True)
class Job:
    """A job file as it is now: its header, and the guidelines as text."""

    name: str
    file: SqlFile
    header: JobHeader
    guidelines_text: str

    @property
    def where(self) -> str:
        """The file as errors name it."""
        return shown(self.file.path)

    @property
    def query(self) -> str:
        """The query without its header."""
        return re.sub(r"\A\s*/\*.*?\*/", "", self.file.text, count=1, flags=re.DOTALL).strip()

    @property
    def edition(self) -> str:
        """12 hex characters over what annotators read: guidelines, questions, and how texts are rendered."""
        return fingerprint([RENDERING, self.guidelines_text, list(self.header.questions)])[:12]

    @property
    def identity(self) -> str:
        """What decides a round's items and their order, budget apart: another identity is another round."""
        header = self.header
        return fingerprint([self.edition, self.query, header.round, header.of, header.annotators_per_item,
                            header.gold_share, header.retest_share, header.seed, header.stage, header.needs,
                            header.max_chars])  # fmt: skip


def load_job(project: Catalog | Project, name: str) -> Job:
    """The job of a name. Raises UserError: no such job, a wrong name, a wrong header (all problems with their lines),
    guidelines that are not there, a budget under one item."""
    project = project.project if isinstance(project, Catalog) else project
    known = project.paths(FOLDER, SUFFIX)
    if name not in known:
        step = f"write catalogs/{FOLDER}/{name}.sql" if JOB_NAME.fullmatch(name) else "a name has a-z, 0-9 and _"
        close = did_you_mean(name, known) if known else ""
        raise UserError(f"there is no annotation job '{name}'", close if "did you mean" in close else step)
    path = known[name]
    if not JOB_NAME.fullmatch(path.stem):
        raise UserError(f"'{path.stem}' is no name for a job", "rename the file: a-z, 0-9 and _", where=shown(path))
    file = load_sql(path, JobHeader)
    job = Job(name, file, file.header, _guidelines(file.header.guidelines, path))
    if problems := _problems(job, known):
        raise UserError(problems)
    return job


def _problems(job: Job, known: dict[str, Path]) -> list[Problem]:
    found = []
    if job.header.max_items == 0:
        what = f"{job.header.budget.votes:,} votes are less than the {job.header.annotators_per_item:,} of one item"
        found.append(Problem(what, "raise votes, or lower annotators_per_item", job.where, "budget"))
    if job.header.of is not None and not JOB_NAME.fullmatch(job.header.of):
        found.append(Problem(f"there is no job '{job.header.of}'", did_you_mean(job.header.of, known), job.where, "of"))
    return found


def _guidelines(text: str, path: Path) -> str:
    """Guidelines as text: those of the file that `text` names, else `text` itself."""
    if "\n" in text.strip() or not text.strip().endswith(".md"):
        return text.strip()
    beside = path.parent / text.strip()
    if beside.resolve().parent != path.parent.resolve():
        raise UserError(f"'{text.strip()}' does not lie beside the job", "put the guidelines into the same folder",
                        where=shown(path), key="guidelines")  # fmt: skip
    found = read_text(beside).strip()
    if not found:
        raise UserError(f"'{text.strip()}' is empty", "write the guidelines", where=shown(path), key="guidelines")
    return found


def candidates_problem(questions: Sequence[Question], num_candidates: int) -> str | None:
    """Why items of so many candidates (0: an answer is to be written) do not fit the questions; None where they do."""
    for question in questions:
        shown_as = f"the {question.kind} question '{question.name}'"
        if question.kind == "preference" and num_candidates != 2:
            return f"{shown_as} needs 2 candidates, and the query gives {num_candidates}"
        if question.kind == "ranking" and num_candidates < 2:
            return f"{shown_as} needs 2 or more candidates, and the query gives {num_candidates}"
        if question.kind == "edit" and num_candidates != 1:
            return f"{shown_as} needs 1 candidate, and the query gives {num_candidates}"
        if question.kind == "rating" and question.of == "candidate" and num_candidates < 1:
            return f"{shown_as} needs a candidate, and the query gives none"
    if num_candidates > MAX_CANDIDATES:
        return f"an item shows at most {MAX_CANDIDATES} candidates, and the query gives {num_candidates}"
    return None
