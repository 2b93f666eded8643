"""Probe prompts: files, and the marks of a response that goes round in circles."""

from __future__ import annotations

import pytest

from curation.errors import UserError
from evals.probing import Loop, find_loop, load_probes


def test_a_stretch_that_repeats_to_the_end_is_a_loop_with_its_shortest_period():
    assert find_loop([9, 9, 1, *[4, 5, 6] * 5]) == Loop(3, 5)
    assert find_loop([7] * 40) == Loop(1, 40)
    assert find_loop([8, *[1, 2] * 10, 1]) == Loop(2, 10)


def test_text_that_only_repeated_earlier_or_briefly_is_no_loop():
    assert find_loop([*[1, 2] * 10, 3, 4, 5]) == Loop(0, 0)
    assert find_loop([1, 2, 3, 3, 3, 3]) == Loop(0, 0)
    assert find_loop([]) == Loop(0, 0)
    assert find_loop(list(range(100))) == Loop(0, 0)


def test_a_probe_without_or_with_two_prompts_is_refused_with_its_line(catalog):
    folder = catalog.project.catalogs / "probes"
    folder.mkdir()
    (folder / "p.yaml").write_text("prompts:\n  - name: a\n    prompt: x\n  - name: b\n")
    with pytest.raises(UserError, match=r"p\.yaml:4.*exactly one of"):
        load_probes(catalog, "p")
    (folder / "p.yaml").write_text("prompts:\n  - {name: a, prompt: x}\n  - {name: a, prompt: y}\n")
    with pytest.raises(UserError, match="twice"):
        load_probes(catalog, "p")
