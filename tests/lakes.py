"""Small projects with generated sources, and the bytes of a lake, for tests that compare whole lakes."""

from __future__ import annotations

import json
from pathlib import Path

from curation.fingerprint import hash_file

SFT = "/* ---\nstage: sft\n--- */\n"
MIXTURE = SFT + "SELECT * FROM take_weighted(MAP {'one': 0.6, 'two': 0.4}, rows := 40, seed := 3)\n"
OUTSIDE = ("provenance.json", "catalog.duckdb")  # dates and hosts, and the index, are no part of a comparison


def conversation(text: str, answer: str, **more: object) -> str:
    """One line of a JSON Lines file in OpenAI's shape."""
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns} | more) + "\n"


def write_files(folder: Path, source: str, files: int, rows: int) -> list[Path]:
    """`files` files of `rows` conversations; every fifth is the same in all files but for its meta, one repeats inside
    its file, and one record of each file is broken."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(files):
        path = folder / f"{source}-{number}.jsonl"
        lines = [conversation(f"{source} {'same' if index % 5 == 0 else number} {index}?", f"<think>{index}</think>ok",
                              note=f"file {number}") for index in range(rows)]  # fmt: skip
        lines += [lines[1], '{"messages": "broken"}\n']
        path.write_text("".join(lines))
        paths.append(path)
    return paths


def make_project(root: Path, *, files: int = 3, rows: int = 30, mixture: str = MIXTURE) -> Path:
    """A project with the sources `one` and `two` on disk, a mixture `both`, and nothing ingested."""
    for name in ("sources", "mixtures"):
        (root / "catalogs" / name).mkdir(parents=True, exist_ok=True)
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    (root / "catalogs" / "mixtures" / "both.sql").write_text(mixture)
    for source in ("one", "two"):
        write_files(root / "data", source, files, rows)
        write_source(root, source, f"data/{source}-*.jsonl")
    return root


def write_source(root: Path, source: str, path: str | list[str]) -> None:
    text = {"reader": "jsonl", "path": path, "stage": "sft", "shape": "messages", "held_out": 0.1, "reject_share": 0.2}
    (root / "catalogs" / "sources" / f"{source}.yaml").write_text(json.dumps(text))


def lake_bytes(root: Path, *kinds: str) -> dict[str, str]:
    """Path below the lake -> hash of the file, of everything published (of some kinds)."""
    lake = root / "lake"
    found = {}
    for path in sorted(lake.rglob("*")):
        parts = path.relative_to(lake).parts
        if (
            path.is_file()
            and path.name not in OUTSIDE
            and not parts[0].startswith(".")
            and parts[0] in (kinds or parts)
        ):
            found["/".join(parts)] = hash_file(path)
    return found
