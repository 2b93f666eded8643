"""The whole way on the real server: answers of two checkpoints, three people, one of them at the page in a browser,
a restart in between, votes, agreement, pairs, and a mixture that passes its audit."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from curation.annotation.rendering import as_written
from tests import REPOSITORY
from tests.argilla_server import Server, served

pytest_plugins = ["tests.argilla_fixtures"]
pytestmark = pytest.mark.argilla

PROMPTS, ITEMS = 140, 60
AT_THE_PAGE = 6  # answered in the browser by annotator3, the last one discarded
NOISE = {"annotator1": 0.05, "annotator2": 0.15, "annotator3": 0.1}


def is_right(question: str, text: str) -> bool:
    return text.rpartition("</think>")[2] == str(sum(map(int, question.removeprefix("add ").split("+"))))


def opinion(record: dict[str, Any], rng: random.Random, noise: float) -> str:
    """What somebody says who reads what is shown: the slot of the right answer, now and then another."""
    if rng.random() < noise:
        return rng.choice(["A", "B", "tie", "both_bad"])
    fields = record["fields"]
    question = fields["prompt"][-1]["content"]
    texts = [as_written(fields[name]) for name in sorted(fields) if name != "prompt"]
    right = [is_right(question, text) for text in texts]
    return {(True, False): "A", (False, True): "B", (True, True): "tie", (False, False): "both_bad"}[tuple(right)]


class Journey:
    """The project and what its commands printed."""

    def __init__(self, folder: Path, server: Server, kedge: Callable[..., Any]):
        self.folder, self.server, self.kedge = folder, server, kedge
        self.told: dict[str, Any] = {}
        self.ran: set[str] = set()

    def run(self, *arguments: str, expected: int = 0) -> Any:
        done = self.kedge(*arguments, cwd=self.folder, env=self.server.environment)
        assert done.returncode == expected, f"{arguments}: {done.returncode} {done.stdout} {done.stderr}"
        self.ran.add(" ".join(word for word in ("kedge", *arguments) if word != "--json"))
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def records(self) -> list[dict[str, Any]]:
        return self.server.records(self.server.dataset_id("sums.main-1"))


@pytest.fixture(scope="module")
def project(walked: Path, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's project, copied: it has checkpoints before and after SFT."""
    from filelock import FileLock

    folder = tmp_path_factory.mktemp("annotated") / "project"
    with FileLock(shared_folder / "quickstart.lock"):
        shutil.copytree(walked, folder)
    return folder


@pytest.fixture(scope="module")
def journey(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """Everything up to the pairs, done once."""
    import subprocess
    import sys

    def kedge(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "curation.cli", *map(str, arguments)]
        return subprocess.run(command, text=True, capture_output=True, check=False, **options)

    with served(project) as server:
        made = Journey(project, server, kedge)
        walk(made, tmp_path_factory.mktemp("shots"))
        yield made


def walk(journey: Journey, pictures: Path) -> None:
    told, server = journey.told, journey.server
    for job in ("answers_mid", "answers_sft"):
        told[job] = journey.run("generate", job, "--json")
    told["push"] = journey.run("annotate", "push", "sums", "--json")
    told["push again"] = journey.run("annotate", "push", "sums", "--json")
    shown = {str(record["id"]): record for record in journey.records()}
    vote(journey, "annotator1", list(shown.values()))
    told["page"] = answer_at_the_page(server, pictures)
    told["first pull"] = pull(journey)
    assert server.stop() == 0
    server.start()
    vote(journey, "annotator2", list(shown.values()))
    mine = {str(one["id"]) for one in server.queue("annotator3", server.dataset_id("sums.main-1"))}
    vote(journey, "annotator3", [shown[record] for record in mine])
    told["status"] = journey.run("annotate", "status", "sums", "--json")
    told["pull"], told["pull again"] = pull(journey), pull(journey)
    told["resolve"] = journey.run("annotate", "resolve", "sums", "--json")
    told["report"] = journey.run("annotate", "report", "sums", "--to", "report", "--json")


def pull(journey: Journey) -> dict[str, Any]:
    """The counts of the one round, pulled now."""
    (only,) = journey.run("annotate", "pull", "sums", "--json")["rounds"]
    return dict(only)


def vote(journey: Journey, login: str, records: list[dict[str, Any]]) -> None:
    rng = random.Random(login)
    ordered = sorted(records, key=lambda record: record["external_id"])
    journey.server.answer(login, {str(one["id"]): {"better": opinion(one, rng, NOISE[login])} for one in ordered})


def answer_at_the_page(server: Server, pictures: Path) -> dict[str, Any] | None:
    """annotator3 logs in, submits all but one of AT_THE_PAGE items and discards the last; None without a browser."""
    from tests import browser

    if browser.missing():
        return None
    account, dataset = server.account("annotator3"), server.dataset_id("sums.main-1")
    with browser.opened() as page:
        browser.login(page, server.url, account.login, account.password)
        browser.open_dataset(page, server.url, dataset)
        page.screenshot(path=pictures / "question.png")
        text = page.inner_text("body")
        for number in range(AT_THE_PAGE - 1):
            browser.choose(page, ("A is better", "B is better", "Tie")[number % 3])
            browser.submit(page)
        browser.discard(page)
        page.screenshot(path=pictures / "after.png")
    return {"text": text, "pictures": pictures}


def sql(journey: Journey, query: str) -> list[dict[str, Any]]:
    return journey.run("sql", query, "--json")


def test_two_checkpoints_answer_the_same_prompts(journey: Journey):
    rows = sql(journey, "SELECT model, count(DISTINCT prompt_hash) AS prompts, count(DISTINCT weights) AS weights "
                        "FROM generation GROUP BY model ORDER BY model")  # fmt: skip
    assert [(row["model"], row["prompts"], row["weights"]) for row in rows] == [
        ("mid@240", PROMPTS, 1),
        ("sft@150", PROMPTS, 1),
    ]
    shared = sql(journey, "SELECT count(*) AS n FROM (SELECT prompt_hash FROM generation GROUP BY prompt_hash HAVING "
                          "count(*) = 2)")  # fmt: skip
    assert shared == [{"n": PROMPTS}]


def test_sixty_pairs_go_out_once(journey: Journey):
    first, again = journey.told["push"], journey.told["push again"]
    assert (first["pushed"], first["already_there"], first["refused"]) == (ITEMS, 0, [])
    assert (again["pushed"], again["already_there"], again["refused"]) == (0, ITEMS, [])
    assert len({record["external_id"] for record in journey.records()}) == ITEMS


def test_nothing_shown_tells_which_checkpoint_wrote_what(journey: Journey):
    shown = json.dumps([[record["fields"], record["suggestions"]] for record in journey.records()])
    assert "mid@240" not in shown and "sft@150" not in shown
    slots = sql(journey, "SELECT candidates[1].model AS first, count(*) AS n FROM items GROUP BY ALL ORDER BY ALL")
    assert {row["first"] for row in slots} == {"mid@240", "sft@150"}  # neither stands in slot A always
    assert min(row["n"] for row in slots) >= ITEMS // 4


@pytest.mark.browser
def test_one_annotator_chooses_submits_and_discards_at_the_page(journey: Journey):
    from tests import browser

    if journey.told["page"] is None:
        pytest.skip(browser.missing())
    assert "Which answer is better?" in journey.told["page"]["text"]
    assert "<think>" in as_written(journey.told["page"]["text"])  # visible, not swallowed as a tag
    assert journey.told["first pull"]["discarded"] == 1
    votes = sql(journey, "SELECT status, count(*) AS n FROM votes GROUP BY ALL ORDER BY ALL")
    assert {row["status"]: row["n"] for row in votes} == {"discarded": 1, "submitted": 3 * ITEMS - 1}
    for name in ("question.png", "after.png"):
        assert (journey.told["page"]["pictures"] / name).stat().st_size > 20_000


def test_answers_before_and_after_a_restart_are_all_there_once(journey: Journey):
    pulled = journey.told["pull"]
    per_annotator = sql(journey, "SELECT annotator, count(DISTINCT item_id) AS n FROM votes GROUP BY ALL ORDER BY ALL")
    assert [row["n"] for row in per_annotator] == [ITEMS] * 3
    assert not {"annotator1", "annotator2", "annotator3"} & {row["annotator"] for row in per_annotator}
    assert pulled["new"] == 3 * ITEMS - journey.told["first pull"]["new"]
    assert journey.told["pull again"]["new"] == 0


def test_votes_name_the_answer_and_not_the_slot(journey: Journey):
    """Who reads as these people do prefers the checkpoint that learned the skill, wherever its answers stood."""
    rows = sql(journey, "SELECT c.model AS model, count(*) AS n FROM votes AS v JOIN items AS i USING (item_id), "
                        "unnest(i.candidates) AS u(c) WHERE v.verdict = c.key GROUP BY ALL")  # fmt: skip
    count = Counter({row["model"]: row["n"] for row in rows})
    assert count["sft@150"] > 2 * count["mid@240"]


def test_status_follows_every_answer(journey: Journey):
    (now,) = journey.told["status"]["rounds"]
    discarded = journey.told["first pull"]["discarded"]
    assert (now["items"], now["pushed"], now["submitted"]) == (ITEMS, ITEMS, 3 * ITEMS - discarded)
    assert now["cost"] == pytest.approx(0.1 * (3 * ITEMS - discarded))


def test_agreement_is_told_with_its_interval(journey: Journey):
    report = journey.told["report"]
    page = (journey.folder / "report" / "report.html").read_text()
    assert "alpha" in json.dumps(report)
    assert "<svg" in page and not re.search(r"(src|href)=.?https?:", page)


def test_pairs_carry_their_votes_and_the_checkpoints_that_wrote_them(journey: Journey):
    rows = sql(journey, "SELECT meta, margin FROM rows_preference WHERE source = 'sums_pairs'")
    assert len(rows) == journey.told["resolve"]["sources"]["sums_pairs"] >= 20
    text = json.dumps(rows)
    assert "mid@240" in text and "sft@150" in text
    confident = sql(journey, "SELECT count(*) AS n FROM resolved WHERE outcome = 'pair' AND confidence > .5")
    assert confident[0]["n"] == len(rows)


def test_why_tells_the_votes_and_the_generations_behind_a_pair(journey: Journey):
    (row,) = sql(journey, "SELECT row_id::VARCHAR AS id FROM rows_preference WHERE source = 'sums_pairs' "
                          "ORDER BY row_id LIMIT 1")  # fmt: skip
    told = journey.run("why", row["id"], "--json")["evidence"]
    assert len(told["votes"]) == 3 and {one["status"] for one in told["votes"]} <= {"submitted", "discarded"}
    assert {one["model"] for one in told["generation"]} == {"mid@240", "sft@150"}


def test_the_pairs_become_a_mixture_that_passes_its_audit(journey: Journey):
    built = journey.run("mix", "build", "sums", "--json")
    free = sql(journey, "SELECT count(*) AS n FROM rows_preference WHERE source = 'sums_pairs' AND row_id NOT IN "
                        "(SELECT row_id FROM verdicts)")  # fmt: skip
    assert built["num_rows"] == free[0]["n"] >= 20  # every other row is left out by a rule, with its reason
    journey.run("audit", "sums", "--max-length", "96")


def test_resolving_again_changes_no_byte(journey: Journey):
    pairs = journey.folder / "annotated" / "sums_pairs.jsonl"
    before = pairs.read_bytes()
    assert journey.run("annotate", "resolve", "sums", "--json") == journey.told["resolve"]
    assert pairs.read_bytes() == before


def test_every_command_of_the_readme_was_run(journey: Journey):
    block = re.search(r"<!-- annotation -->\n```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert block is not None and "kedge annotate pull" in block[1]
    journey.run("mix", "build", "sums")
    journey.run("audit", "sums", "--max-length", "96")
    assert set(block[1].splitlines()) <= journey.ran
