"""The house's own rules, held by tests: layers, one writer, cold start, plug-in versions, catalogues without code."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from curation import registry
from tests import REPOSITORY

PACKAGES = ("curation", "trainers", "evals")
ALLOWED = {"curation": {"curation"}, "trainers": {"curation", "trainers"}, "evals": {"curation", "evals"}}
FILES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
VERSIONS = Path(__file__).parent / "plugin_versions.json"


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def called(tree: ast.AST) -> set[str]:
    return {node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(tree) if isinstance(node, ast.Call)}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_a_file_imports_only_its_own_layer_and_those_below(path: Path):
    package = path.relative_to(REPOSITORY).parts[0]
    layers = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))} & set(PACKAGES)
    assert layers <= ALLOWED[package]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_only_the_catalogue_writes_parquet_and_opens_duckdb(path: Path):
    tree = ast.parse(path.read_text())
    forbidden = {"sink_parquet", "write_table", "ParquetWriter", "to_parquet"}
    if path.name != "catalog.py":
        assert not called(tree) & forbidden
        opens = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
                 and isinstance(node.func, ast.Attribute) and node.func.attr == "connect"
                 and getattr(node.func.value, "id", "") == "duckdb"]  # fmt: skip
        assert not opens
    methods = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
               and isinstance(node.func, ast.Attribute) and node.func.attr == "write_parquet"
               and getattr(node.func.value, "id", "") != "catalog"]  # fmt: skip
    assert not methods, "DataFrame.write_parquet changes bytes with threads: use catalog.write_parquet"


def test_no_sampling_that_depends_on_row_order():
    for path in sorted((REPOSITORY / "catalogs").rglob("*.sql")):
        assert "USING SAMPLE" not in path.read_text().upper()


def test_the_catalogues_hold_no_python():
    assert not list((REPOSITORY / "catalogs").rglob("*.py"))


def test_the_package_root_imports_nothing_beyond_the_standard_library():
    names = imported(ast.parse((REPOSITORY / "curation" / "__init__.py").read_text()))
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_asking_for_help_imports_none_of_the_heavy_packages():
    code = (
        "import sys; from curation import cli; code = cli.run(['--help']);"
        "heavy = {'torch','transformers','duckdb','pyarrow','polars','datasets','trl','lighteval','numba','matplotlib',"
        "'scipy'} & set(sys.modules); print('HEAVY', sorted(heavy), file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_loading_every_measure_compiles_and_imports_none_of_the_heavy_packages():
    """A command for which nothing is missing loads all measures, for their fingerprints alone."""
    code = (
        "import sys; from curation import registry; [registry.load('measures', name) for name in "
        "registry.entries('measures')]; heavy = {'numba', 'torch', 'transformers', 'datatrove', 'scipy', 'sklearn', "
        "'math_verify', 'py3langid'} & set(sys.modules); print('HEAVY', sorted(heavy), file=sys.stderr); "
        "sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_top_level_holds_only_what_was_agreed():
    agreed = {"pyproject.toml", "README.md", "LICENSE", "curation", "trainers", "evals", "catalogs", "tests"}
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= agreed


def code_hash(path: Path) -> str:
    """A hash of a file's syntax tree without docstrings, so that comments and formatting do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def versioned_plugins() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for kind in ("sources", "measures", "mirrors", "generators"):
        for name in registry.entries(kind):
            cls = registry.load(kind, name)
            if cls.__module__.split(".")[0] in PACKAGES:
                files = [Path(sys.modules[cls.__module__].__file__ or "")]
                files += [REPOSITORY / extra for extra in getattr(cls, "depends_on", ())]
                found[f"{kind}/{name}"] = {"version": cls.version, "code": [code_hash(path) for path in files]}
    return found


def test_a_plug_in_whose_code_changed_has_a_new_version():
    """Run `python -m tests.test_architecture` to record the table after raising the version."""
    recorded = json.loads(VERSIONS.read_text())
    for name, now in versioned_plugins().items():
        assert name in recorded, f"{name} is new: record it"
        same_code = recorded[name]["code"] == now["code"]
        assert same_code or recorded[name]["version"] != now["version"], f"{name} changed: raise its version"
        assert same_code, f"{name} has a new version: record it"


if __name__ == "__main__":
    VERSIONS.write_text(json.dumps(versioned_plugins(), indent=1, sort_keys=True) + "\n")
