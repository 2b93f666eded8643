"""Printing what a project holds: things, queries, stories, plug-ins, findings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation import registry
from curation.catalog import Catalog
from curation.config import PROJECT_FILE, SHIPPED, Project, find_project, shown
from curation.console import out, print_json, table
from curation.errors import EXIT_INSTRUMENT, EXIT_OK, UserError, did_you_mean
from curation.figures import figures, print_figures
from curation.queries import single_select, sql_error

if TYPE_CHECKING:
    from curation.checkpoints import Checkpoint
    from curation.doctoring import Finding

FOLDERS = ("sources", "rules", "mixtures", "benchmarks", "suites", "runs", "probes", "templates", "taxonomies",
           "skills", "judges", "annotations", "generations", "resolutions")  # fmt: skip
KINDS = (*FOLDERS, "phrases", "recipes")  # the last two are shipped: a project has none of its own
SINGULAR = {"taxonomies": "taxonomy"}
SUFFIXES = {"sources": ".yaml", "rules": ".sql", "mixtures": ".sql", "templates": ".jinja", "annotations": ".sql"}
LAKE_KIND = {"sources": "rows"}
EXAMINATIONS = ("reward_models", "report.html")  # kind and page of what evals writes of a reward model
EVIDENCE_SHOWN = 5
GITIGNORE = "lake/\n"


def make_project(folder: Path) -> list[Path]:
    """Make what a project needs and is not there yet; returns the paths made."""
    made = []
    for name in FOLDERS:
        path = folder / "catalogs" / name
        if not path.is_dir():
            path.mkdir(parents=True)
            made.append(path)
    texts = {PROJECT_FILE: "# Names for tokenizers: folders or hub ids with a revision.\ntokenizers: {}\n",
             ".gitignore": GITIGNORE}  # fmt: skip
    for file, text in texts.items():
        path = folder / file
        if not path.exists():
            path.write_text(text)
            made.append(path)
    return made


def print_findings(findings: list[Finding], as_json: bool) -> int:
    """Print what the doctor found; the exit code is 4 where something is broken."""
    if as_json:
        print_json([vars(item) for item in findings])
    else:
        for item in findings:
            mark = {"good": "ok    ", "note": "note  ", "broken": "BROKEN"}[item.level]
            out.print(f"{mark} {item.what}" + (f"; {item.next}" if item.next else ""), markup=False)
    return EXIT_INSTRUMENT if any(item.level == "broken" for item in findings) else EXIT_OK


def print_plugins(as_json: bool) -> None:
    """Every plug-in with origin, version and options; one that cannot be imported says why."""
    found = []
    for kind in registry.KINDS:
        for name, entry in sorted(registry.entries(kind).items()):
            try:
                cls = registry.load(kind, name)
                options = ", ".join(cls.model_fields)
                found.append(
                    {"kind": kind, "name": name, "origin": entry.origin, "version": cls.version, "options": options}
                )
            except UserError as error:
                found.append(
                    {"kind": kind, "name": name, "origin": entry.origin, "version": None, "options": str(error)}
                )
    if as_json:
        print_json(found)
    else:
        table("", ["kind", "name", "origin", "version", "options"], [list(item.values()) for item in found])


def print_query(query: str, as_json: bool) -> None:
    """Run one SELECT over the lake and print its rows (at most 1,000 as a table, all as JSON)."""
    import duckdb

    from curation.views import full_session

    connection = full_session(Catalog(find_project()))
    try:
        text = single_select(connection, query, "query")
        cursor = connection.execute(text)
        names = [item[0] for item in cursor.description or []]
        rows = cursor.fetchall() if as_json else cursor.fetchmany(1000)
    except duckdb.Error as error:
        raise sql_error(error, query, "query") from error
    finally:
        connection.close()
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        table("", names, rows)
        if len(rows) == 1000:
            out.print("... the first 1,000 rows; use --json for all")


def print_story(row_id: str, as_json: bool) -> None:
    """Print what `stories.story` tells of one row."""
    from curation.stories import story

    told = story(Catalog(find_project()), row_id)
    if as_json:
        print_json(told)
        return
    row = told["row"]
    out.print(
        f"row {row['row_id']}: {row['stage']} row of '{row['source']}', {row['file']}:{row['line']}", markup=False
    )
    for name, value in row["payload"].items():
        out.print(f"  {name}: {_short(value)}", markup=False)
    for measure, values in told["signals"].items():
        text = ", ".join(f"{name} {_short(value, 60)}" for name, value in (values or {}).items())
        out.print(f"measured by {measure}: {text}", markup=False)
    if row["held_out"]:
        out.print("held out: its prompt belongs to the evaluation split", markup=False)
    for item in told["verdicts"]:
        out.print(f"left out by {item['rule']}: {item['reason']}", markup=False)
    if not told["verdicts"] and not row["held_out"]:
        out.print("no adopted rule leaves it out")
    for kind, found in told["evidence"].items():
        for item in found[:EVIDENCE_SHOWN]:
            text = ", ".join(f"{name} {_short(value, 80)}" for name, value in item.items() if value is not None)
            out.print(f"{kind}: {text}", markup=False)
        if len(found) > EVIDENCE_SHOWN:
            out.print(f"{kind}: {len(found) - EVIDENCE_SHOWN:,} more (--json tells all)", markup=False)
    for item in told["mixtures"]:
        out.print(f"in mixture {item['mixture']}@{item['fingerprint'][:12]} ({item['split']}, epoch {item['epoch']})",
                  markup=False)  # fmt: skip
    if not told["mixtures"]:
        out.print("in no mixture")
    for run in sorted({item["run"] for item in told["runs"]}):
        steps = [str(item["step"]) for item in told["runs"] if item["run"] == run]
        out.print(f"trained on by run {run} (checkpoints at {', '.join(steps)})", markup=False)


def _short(value: Any, limit: int = 300) -> str:
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= limit else text[:limit] + f"... ({len(text)} chars)"


def show(name: str, as_json: bool) -> None:
    """List a kind, or describe the thing of that name in every kind that has it. Raises UserError for neither."""
    catalog = Catalog(find_project())
    if name in KINDS or name == "checkpoints":
        listed = _list(catalog, name)
        print_json(listed) if as_json else table(
            name, ["name", "file", "published"], [list(v.values()) for v in listed]
        )
        return
    described = _describe(catalog, name)
    if not described:
        known = {other for kind in KINDS for other in _paths(catalog, kind)}
        raise UserError(f"nothing is named '{name}'", did_you_mean(name, known | set(KINDS)))
    told = figures(catalog, name)
    if as_json:
        print_json(described + [section.values for section in told])
        return
    for item in described:
        out.print(f"{item['kind']} {item['name']}", style="bold", markup=False)
        for key, value in item.items():
            if key not in ("kind", "name", "text"):
                out.print(f"  {key}: {_short(value, 600)}", markup=False)
        if item.get("text"):
            out.print(item["text"], markup=False)
    print_figures(told)


def _list(catalog: Catalog, kind: str) -> list[dict[str, Any]]:
    if kind == "checkpoints":
        from curation import checkpoints

        return [{"name": item.id, "file": item.path, "published": item.weights_hash[:12]}
                for item in checkpoints.every(catalog)]  # fmt: skip
    published = {manifest.name: manifest for _, manifest in catalog.manifests(LAKE_KIND.get(kind, kind))}
    return [{"name": name, "file": shown(path), "published": _state(published.get(name))}
            for name, path in _paths(catalog, kind).items()]  # fmt: skip


def _paths(catalog: Catalog, kind: str) -> dict[str, Path]:
    """The files of a kind by name, as far as anything reads them."""
    project = catalog.project if kind in FOLDERS else Project(SHIPPED.parent)
    return project.paths(kind, SUFFIXES.get(kind, ".yaml"))


def _state(manifest: Any) -> str | None:
    return None if manifest is None else f"{manifest.fingerprint[:12]} ({manifest.num_rows:,} rows)"


def _describe(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    from curation import checkpoints

    found: list[dict[str, Any]] = []
    for kind in KINDS:
        path = _paths(catalog, kind).get(name)
        published = catalog.latest(LAKE_KIND.get(kind, kind), name)
        if path is None and published is None:
            continue
        item: dict[str, Any] = {"kind": SINGULAR.get(kind, kind.removesuffix("s")), "name": name}
        if path is not None:
            item["file"] = shown(path)
        if published is not None:
            folder, manifest = published
            item |= {"folder": shown(folder), "fingerprint": manifest.fingerprint, "num_rows": manifest.num_rows,
                     "counts": manifest.counts, "versions": manifest.versions}  # fmt: skip
        if path is not None:
            item["text"] = path.read_text()
        found.append(item)
    for checkpoint in checkpoints.every(catalog):
        if name in (checkpoint.id, checkpoint.run) or name in checkpoint.tags:
            found.append({"kind": "checkpoint", "name": checkpoint.id} | checkpoint.model_dump(exclude={"run", "step"})
                         | _examination(catalog, checkpoint))  # fmt: skip
    for kind in registry.KINDS:
        if name in registry.entries(kind):
            cls = registry.load(kind, name)
            found.append({"kind": kind.removesuffix("s"), "name": name, "version": cls.version,
                          "options": sorted(cls.model_fields), "text": (cls.__doc__ or "").strip()})  # fmt: skip
    return found


def _examination(catalog: Catalog, checkpoint: Checkpoint) -> dict[str, str]:
    """Where the newest page on a reward model is, if it is about these weights."""
    kind, page = EXAMINATIONS
    latest = catalog.latest(kind, checkpoint.id)
    if latest is None or latest[1].inputs.get("weights") != checkpoint.weights_hash:
        return {}
    flags = latest[1].counts.get("flags", 0)
    return {"examination": f"{shown(latest[0] / page)} ({flags} {'thing' if flags == 1 else 'things'} to look at)"}
