"""Near duplicates after growth: the same bytes, from new pairs alone; and the kernels that find them."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import cli
from curation.catalog import Catalog
from curation.config import find_project
from curation.duplicates import verification
from curation.kernels.jaccard import group_pairs, single_linkage
from curation.kernels.minhash import BANDS, ROWS, minima_of, permutations
from curation.measures import PartMeasure
from curation.measuring import ensure, named
from tests.benchmarks.near_duplicate_rows import Writer
from tests.duplicated import add, edited, near_values, page, texts
from tests.lakes import lake_bytes


@pytest.fixture
def words() -> Writer:
    return Writer(4)


def grown(root: Path, files: list[list[str]], steps: list[int], workers: int) -> dict[str, str]:
    """The bytes after the files of two sources came in `steps`, each measured."""
    (root / "catalogs" / "sources").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    for name in ("one", "two"):
        text = {"reader": "jsonl", "path": f"data/{name}-*.jsonl", "stage": "midtrain", "shape": "text"}
        (root / "catalogs" / "sources" / f"{name}.yaml").write_text(json.dumps(text))
    catalog = Catalog(find_project(root))
    for step in sorted(set(steps)):
        for index, lines in enumerate(files):
            if steps[index] == step:
                path = root / "data" / f"{('one', 'two')[index % 2]}-{index}.jsonl"
                path.write_text("".join(json.dumps(row) + "\n" for row in texts(*lines)))
        with contextlib.chdir(root):
            for name in ("one", "two"):
                if list(Path("data").glob(f"{name}-*")):
                    assert cli.run(["add", name]) == 0
        for name in ("shingles", "text_statistics", "copies"):
            ensure(catalog, named(name), workers=1)
        ensure(catalog, named("near_duplicates"), workers=workers if step == max(steps) else 1)
    return lake_bytes(root, "signals", "evidence")


def test_sources_that_grow_in_any_order_end_with_the_bytes_of_one_build(tmp_path: Path, words: Writer):
    pages = [page(words) for _ in range(30)]
    files = [[*pages[5 * index : 5 * index + 10], edited(pages[index], 50), pages[0]] for index in range(4)]
    once = grown(tmp_path / "once", files, [0, 0, 0, 0], workers=1)
    grew = grown(tmp_path / "grew", files, [2, 0, 1, 2], workers=2)
    assert once == grew and any("evidence/near_duplicate_pairs" in path for path in once)


def test_a_grown_source_verifies_its_new_pairs_alone(catalog: Catalog, words: Writer, monkeypatch):
    pages = [page(words) for _ in range(5)]
    add("a", texts(*pages, *(edited(page, 60) for page in pages[:4])))
    first = near_values(catalog, "a")
    sizes: list[int] = []
    count = verification.intersections
    monkeypatch.setattr(verification, "intersections", lambda *given: (sizes.append(len(given[3])), count(*given)))
    add("b", texts(edited(pages[0], 70)))
    near_values(catalog, "b")
    found = catalog.latest("evidence", "near_duplicate_pairs")
    assert found is not None and found[1].counts["candidate_pairs"] == 6 and sizes == [2]
    shutil.rmtree(catalog.project.root / "lake" / ".cache")
    shutil.rmtree(catalog.lake / "signals" / "near_duplicates")
    shutil.rmtree(catalog.lake / "evidence")
    assert near_values(catalog, "a")[1:4] == first[1:4] and sizes == [2, 6], "what is kept is only what was counted"


def test_shingles_are_the_same_whatever_the_order_of_the_rows(words: Writer):
    measure = named("shingles")
    assert isinstance(measure, PartMeasure)
    text = page(words)
    table = pa.table({"text": [text, None, "", "four words are few", edited(text, 9)]})
    found = measure.measure(table, "midtrain")
    assert found["shingle_count"].to_pylist()[1:4] == [0, 0, 0] and found["shingle_keys"].to_pylist()[1] == []
    back = measure.measure(table.take([4, 3, 2, 1, 0]), "midtrain").take([4, 3, 2, 1, 0])
    assert back.equals(found)
    assert [len(keys) for keys in found["shingle_keys"].to_pylist()] == [14, 0, 0, 0, 14]


def test_minima_agree_as_often_as_the_sets_are_similar():
    draw = np.random.default_rng(0)
    factors, addends = permutations()
    agreed, similarity = [], 0.6
    minima = np.zeros((2, BANDS * ROWS), np.uint32)
    for _ in range(400):
        both, apart = draw.integers(1, 2**63, 60, np.uint64), draw.integers(1, 2**63, 40, np.uint64)
        for side, own in enumerate((apart[:20], apart[20:])):
            minima_of(np.concatenate([own, both]), 80, factors, addends, minima[side])
        agreed.append((minima[0] == minima[1]).mean())
    error = np.std(agreed) / np.sqrt(len(agreed))
    assert abs(np.mean(agreed) - similarity) < 4 * error
    assert np.std(agreed) < 1.15 * np.sqrt(similarity * (1 - similarity) / (BANDS * ROWS)), (
        "permutations are independent"
    )


def test_a_band_offers_every_pair_of_a_group_and_of_a_large_one_the_first_and_the_neighbours():
    keys = np.array([7, 5, 7, 9, 5, 7, 7], np.int64)
    sizes = np.array([10, 10, 10, 10, 5, 10, 10], np.int64)
    order = np.argsort(keys, kind="stable")

    def pairs(cap: int, near: int) -> tuple[list[tuple[int, int]], int]:
        out = np.zeros(group_pairs(keys, order, sizes, 0.7, cap, near, np.zeros(0, np.uint64))[0], np.uint64)
        count, large = group_pairs(keys, order, sizes, 0.7, cap, near, out)
        assert count == len(out)
        return [(int(pair) >> 32, int(pair) & 0xFFFFFFFF) for pair in out], large

    assert pairs(4, 1) == ([(0, 2), (0, 5), (2, 5), (0, 6), (2, 6), (5, 6)], 0), "1 and 4 differ too much in size"
    assert pairs(3, 1) == ([(0, 2), (0, 5), (2, 5), (0, 6), (5, 6)], 1)


def test_links_are_the_similarities_at_which_clusters_lose_their_first_members():
    a, b = np.array([0, 2, 1, 0]), np.array([1, 3, 2, 3])
    jaccard = np.array([0.95, 0.9, 0.8, 0.75])
    root, link = single_linkage(5, a, b, jaccard)
    assert root.tolist() == [0, 0, 0, 0, 4]
    assert link.tolist() == [0, 0.95, 0.8, 0.9, 0]
