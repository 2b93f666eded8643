"""`kedge annotate push`: a round's items become records of Argilla, each once, however often it is run."""

from __future__ import annotations

from collections import Counter

from curation.annotation import argilla
from curation.annotation._argilla_records import Sent, send
from curation.annotation._argilla_rest import Argilla, connected
from curation.annotation.argilla import Plan
from curation.annotation.jobs import load_job
from curation.annotation.rounds import open_round
from curation.annotation.server_data import connection
from curation.catalog import Catalog
from curation.config import find_project
from curation.console import out, print_json, progress, table
from curation.errors import GateFailed, UserError

PUSH = "push"  # what `catalog.writing` calls it
NUM_SHOWN = 5


def print_push(job: str, as_json: bool) -> None:
    """Push the job's round: made and frozen where it is new. Raises UserError, LockHeld, and GateFailed where Argilla
    refused items, after all others were sent."""
    catalog = Catalog(find_project())
    known = load_job(catalog, job)
    with connected(*connection(catalog.project)) as server:
        plan = argilla.plan_of(open_round(catalog, known), known.header.assign)
        sent = push(catalog, server, plan)
        if as_json:
            refused = [{"item_id": item, "reason": reason} for item, reason in sorted(sent.refused.items())]
            print_json({"job": job, "round": plan.round, "url": server.url, "workspace": plan.place,
                        "dataset": plan.name, "items": len(plan.items), "pushed": len(sent.pushed),
                        "already_there": len(sent.there), "refused": refused, "foreign": sent.foreign})  # fmt: skip
        else:
            _print(server, plan, sent)
    if sent.refused:
        raise GateFailed(f"Argilla refused {len(sent.refused):,} of {len(plan.items):,} items; the others are there",
                         "leave those rows out in the job's query, or mend them, and push again")  # fmt: skip


def push(catalog: Catalog, server: Argilla, plan: Plan) -> Sent:
    """Send what is not there yet. Raises UserError (nothing to send, a server that is away or does not take the
    questions) and LockHeld."""
    if not plan.items:
        raise UserError(f"the round {plan.round} of '{plan.job}' has no items", "see what the job's query returns")
    with catalog.writing(PUSH, plan.job):
        dataset = argilla.open_dataset(server, plan)
        with progress(f"push {plan.name}", len(plan.items)) as advance:
            return send(server, dataset, plan.items, advance)


def _print(server: Argilla, plan: Plan, sent: Sent) -> None:
    columns = ("round", "items", "pushed", "already there", "refused")
    table(f"items of {plan.job}", columns,
          [(plan.round, len(plan.items), len(sent.pushed), len(sent.there), len(sent.refused))])  # fmt: skip
    reasons = Counter(sent.refused.values())
    first = {reason: item for item, reason in sorted(sent.refused.items(), reverse=True)}
    for reason, count in reasons.most_common(NUM_SHOWN):
        out.print(f"refused {count:,}: {reason} (item {first[reason]})", markup=False)
    if sent.foreign:
        out.print(f"the dataset holds {sent.foreign:,} records that are no items of this round", markup=False)
    out.print(f"annotators find it at {server.url}, workspace '{plan.place}', dataset '{plan.name}'", markup=False)
    out.print(f"next: kedge annotate status {plan.job}", markup=False)
