"""datatrove's own statistics stand as columns beside the rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import schema
from curation.errors import UserError
from curation.measures.datatrove_statistics import STATISTICS, DatatroveStatistics, blocks
from curation.measuring import named, signal_parts
from curation.texts import SIDES, joined
from tests.lakes import conversation

TEXTS = ("One line.\nTwo lines.\n\nA paragraph of its own! And so on…", "spam\nspam\nspam\nspam\nspam\nspam", "",
         "é 中文 42", "- bullet\n- bullet", "A" * 3_000, "SHOUTING IS not the Answer...")  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    turns = [[{"role": "user", "content": "Say it."}, {"role": "assistant", "content": text}] for text in TEXTS]
    return pa.table({"messages": pa.array(turns, schema.MESSAGES)})


def test_the_columns_are_what_datatrove_writes_in_its_own_pipeline(rows: pa.Table, tmp_path: Path):
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.stats import DocStats, LineStats, ParagraphStats, SentenceStats, WordStats

    found = DatatroveStatistics().measure(rows, "sft")
    words = blocks()[-1].language
    folder, seen = str(tmp_path / "stats"), []

    def keep(documents, rank=0, world_size=1):
        for document in documents:
            seen.append(document)
            yield document

    documents = [Document(text=text, id=str(n), metadata={"url": "https://example.org/page"})
                 for n, text in enumerate(joined(rows, SIDES["sft"]).to_pylist())]  # fmt: skip
    steps = [cls(folder, groups_to_compute=["summary"]) for cls in (DocStats, LineStats, ParagraphStats)]
    steps += [cls(folder, groups_to_compute=["summary"], language=words) for cls in (SentenceStats, WordStats)]
    LocalPipelineExecutor([documents, *steps, keep], tasks=1, logging_dir=str(tmp_path / "logs")).run()
    assert len(seen) == len(TEXTS)
    for name in STATISTICS:
        assert found[f"datatrove_{name}"].to_pylist() == [document.metadata[name] for document in seen], name
        summary = json.loads((tmp_path / "stats" / "summary" / name / "00000.json").read_text())["summary"]
        total = summary["total"] if isinstance(summary, dict) else summary
        assert total == pytest.approx(sum(found[f"datatrove_{name}"].to_pylist()))
    told = set(seen[0].metadata) - {"url"}
    assert told == set(STATISTICS), "every statistic of the blocks is a column"


def test_statistics_say_what_they_are_named_for(rows: pa.Table):
    table = DatatroveStatistics().measure(rows, "sft")
    found = {name.removeprefix("datatrove_"): table[name].to_pylist() for name in table.column_names}
    assert found["n_lines"][1] == 7 and found["line_duplicates"][1] == pytest.approx(5 / 7)
    assert found["n_lines"][0] == 5 and found["n_paragraphs"][0] == 2
    assert found["bullet_point_lines_ratio"][4] == pytest.approx(2 / 3)
    assert found["long_line_ratio_chars_2000"][5] == 0.5 and found["n_words"][3] == 6


def test_the_rule_finds_repeated_lines_and_leaves_others(catalog, kedge):
    lines = [conversation("Say spam.", "spam and eggs\n" * 9),
             conversation("Say more.", "one\ntwo\nthree\nfour\nfive\nsix")]  # fmt: skip
    Path("a.jsonl").write_text("".join(lines))
    assert kedge("add", "a.jsonl")[0] == 0
    code, _, err = kedge("measure", "--only", "datatrove_statistics")
    assert code == 0, err
    (part,) = signal_parts(catalog, named("datatrove_statistics"), "a")
    assert pq.read_table(part).num_columns == 1 + len(STATISTICS)
    from curation.rules import judge, load_rules

    (rule,) = [rule for rule in load_rules(catalog, adopted_only=False) if rule.name == "datatrove_duplicate_lines"]
    (verdict,) = pq.read_table(judge(catalog, rule)).to_pylist()
    assert verdict["reason"].endswith("% of the characters are in repeated lines")


def test_without_datatrove_the_next_step_is_named(rows: pa.Table):
    with pytest.raises(UserError, match=r'not installed; run: pip install "kedge\[scale\]"'):
        DatatroveStatistics(datatrove="").measure(rows, "sft")
