"""Errors, fingerprints, files with line numbers, plug-ins."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from curation import registry
from curation.config import Strict, find_project, load_sql, load_yaml
from curation.errors import Problem, UserError, did_you_mean
from curation.fingerprint import canonical, fingerprint

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('abc\n"é'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


class Shape(Strict):
    stage: str
    seed: int = 0
    weights: dict[str, float] = Field(default={})


@given(VALUES)
def test_equal_values_have_equal_fingerprints_whatever_the_order_of_their_keys(value):
    turned = dict(reversed(list(value.items()))) if isinstance(value, dict) else value
    assert canonical(value) == canonical(turned)


@given(VALUES, VALUES)
def test_different_values_have_different_canonical_bytes(one, other):
    if repr(one) != repr(other) and one != other:
        assert canonical(one) != canonical(other)


def test_one_and_one_point_zero_and_true_and_text_are_told_apart():
    assert len({fingerprint(value) for value in (1, 1.0, True, "1", [1], {"1": 1})}) == 6


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, len, object(), Path("x"), {1: 2}],
                         ids=["nan", "inf", "set", "function", "object", "path", "number keys"])  # fmt: skip
def test_a_value_without_a_stable_form_is_refused(value):
    with pytest.raises(TypeError, match=r"value"):
        fingerprint({"inner": value})


def test_a_problem_prints_place_key_cause_and_next_step():
    text = str(Problem("unknown key", "did you mean 'seed'?", "a.yaml:3", "sead"))
    assert text == "a.yaml:3: sead: unknown key; did you mean 'seed'?"


def test_a_close_name_is_proposed_and_otherwise_the_known_ones():
    assert did_you_mean("alpca", ["alpaca", "gsm8k"]) == "did you mean 'alpaca'?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", []) == "there are none yet"


def test_every_problem_of_a_yaml_file_comes_at_once_with_its_line(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("sead: 1\nseed: many\nweights:\n  gsm8k: heavy\n")
    with pytest.raises(UserError) as caught:
        load_yaml(path, Shape)
    shown = sorted(str(problem).split("x.yaml:")[-1] for problem in caught.value.problems)
    assert [text.split(": ")[0] for text in shown if text[0].isdigit()] == ["1", "2", "4"]
    assert any("did you mean 'seed'" in text for text in shown)
    assert any("stage: is missing" in text for text in shown)


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("stage: sft\nstage: rlvr\n")
    with pytest.raises(UserError, match=r"x.yaml:2: stage: stands here twice"):
        load_yaml(path, Shape)


def test_broken_yaml_names_its_line(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("stage: sft\nweights: {a: 1\n")
    with pytest.raises(UserError, match=r"x.yaml:\d+: is no valid YAML"):
        load_yaml(path, Shape)


def test_a_date_that_no_calendar_has_is_a_clear_error(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("stage: 2026-13-45\n")
    with pytest.raises(UserError, match=r"x.yaml:1: is no valid YAML: month"):
        load_yaml(path, Shape)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"stage: \xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8"):
        load_yaml(path, Shape)


def test_a_sql_header_is_read_with_the_lines_of_the_file(tmp_path: Path):
    path = tmp_path / "x.sql"
    path.write_text("/* ---\nstage: sft\nsead: 3\n--- */\nSELECT 1\n")
    with pytest.raises(UserError, match=r"x.sql:3: sead: unknown key; did you mean 'seed'"):
        load_sql(path, Shape)
    path.write_text("/* ---\nstage: sft\nseed: 3\n--- */\nSELECT 1\n")
    assert load_sql(path, Shape).header == Shape(stage="sft", seed=3)
    assert load_sql(path, Shape).text.endswith("SELECT 1\n")


def test_a_sql_file_without_a_header_says_how_to_write_one(tmp_path: Path):
    path = tmp_path / "x.sql"
    path.write_text("SELECT 1\n")
    with pytest.raises(UserError, match=r"x.sql:1: has no header; begin the file with"):
        load_sql(path, Shape)


def test_the_project_is_found_from_a_folder_below_it(project_folder: Path):
    below = project_folder / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below).root == project_folder


def test_outside_of_a_project_the_error_names_init(tmp_path: Path):
    with pytest.raises(UserError, match="kedge init"):
        find_project(tmp_path)


def test_own_catalogue_files_hide_shipped_ones_and_names_are_proposed(catalog):
    shipped = catalog.project.path("templates", "chatml", ".jinja")
    own = catalog.project.catalogs / "templates" / "chatml.jinja"
    own.parent.mkdir()
    own.write_text("own")
    assert catalog.project.path("templates", "chatml", ".jinja") == own != shipped
    with pytest.raises(UserError, match="did you mean 'chatml'"):
        catalog.project.path("templates", "chatlm", ".jinja")


def test_an_unknown_plug_in_and_a_misspelt_option_are_told():
    with pytest.raises(UserError, match="did you mean 'jsonl'"):
        registry.load("sources", "jsonnl")
    with pytest.raises(UserError, match="unknown key"):
        registry.make("sources", "jsonl", {"colour": "red"})


def test_a_misspelt_key_inside_a_list_is_met_with_a_proposal(catalog):
    from evals.suites import load_suite

    folder = catalog.project.catalogs / "suites"
    folder.mkdir()
    (folder / "s.yaml").write_text("benchmarks:\n- name: a\n  marggin: 0.1\n")
    with pytest.raises(UserError, match=r"s.yaml:3: benchmarks.0.marggin: unknown key; did you mean 'margin'"):
        load_suite(catalog, "s")


def test_a_plug_in_that_lacks_a_method_is_an_error_that_names_it(monkeypatch):
    import types

    from curation.measures import PartMeasure

    class Half(PartMeasure):
        version = 1

    Half.__module__ = "half"
    module = types.ModuleType("half")
    module.Half = Half
    monkeypatch.setitem(sys.modules, "half", module)
    entry = registry.Entry("measures", "half", "somewhere", "half")
    monkeypatch.setattr(registry, "entries", lambda kind: {"half": entry})
    with pytest.raises(UserError, match="the measure 'half' of somewhere does not define measure; write it in half"):
        registry.load("measures", "half")
