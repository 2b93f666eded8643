"""`mix show` says what a mixture covers, and which skills and task verbs of the stage before it lacks."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import cli, coverage, schema
from curation.catalog import Catalog
from curation.errors import UserError
from curation.measures.skills import Skills
from curation.measures.task_verbs import TaskVerbs
from curation.measuring import ensure, named, signal_parts
from curation.mixtures import build, preview
from tests.lakes import SFT, conversation

RUN = "trainer: {name: trl_sft}\nmixture: %s\n%s\n"


def asking(*prompts: str, answer: str = "Well.", meta: str = "{}", source: str = "s") -> pa.Table:
    """Rows of SFT with one prompt each."""
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": answer}] for text in prompts]
    return pa.table({"messages": pa.array(turns, schema.MESSAGES), "meta": pa.array([meta] * len(prompts)),
                     "source": pa.array([source] * len(prompts))})  # fmt: skip


def skill(*prompts: str, **more) -> list[tuple[str | None, str | None]]:
    found = Skills().measure(asking(*prompts, **more), "sft").to_pylist()
    return [(row["skill"], row["skill_by"]) for row in found]


TASKS = {
    "Write a short story about a dragon.": ("write", "story"),
    "Please summarise the following articles:\nIt rained.": ("summarise", "article"),
    "Could you help me to translate this sentence into French?": ("translate", "sentence"),
    "Given a list of numbers, compute their sum.\n1, 2": ("compute", "sum"),
    "It rained all day and nobody came.\n\nSummarize the text above in one line.": ("summarize", "text"),
    "Your task is to classify each review as good or bad.": ("classify", "review"),
    "Re-write this in active voice.": ("rewrite", None),
    "Let $x=3$. Find the value of $x^2$.": ("find", "value"),
    "How many apples are left?": ("answer", "how many"),
    "Ann had 3 apples and ate one. How many are left?": ("answer", "how many"),
    "Is it safe to swim here?": ("answer", "whether"),
    "For how many values of $n$ is this true?": ("answer", "how many"),
    "What is 2+2? Express your answer as a number.": ("answer", "what"),
    "Calculate the answer to 2+2.": ("calculate", "answer"),
    "Research shows that tea is good.": (None, None),
    "Name: Ada Lovelace": (None, None),
    "Thank you so much!": (None, None),
    "今天天气怎么样": (None, None),
    "": (None, None),
}


@pytest.mark.parametrize("prompt", TASKS)
def test_a_task_is_a_verb_and_its_object(prompt: str):
    (found,) = TaskVerbs().measure(asking(prompt), "sft").to_pylist()
    assert (found["task_verb"], found["task_object"]) == TASKS[prompt]


def test_the_last_turn_is_the_task_and_a_long_one_is_read_at_both_ends():
    turns = [{"role": "user", "content": "Write a poem."}, {"role": "assistant", "content": "Roses."},
             {"role": "user", "content": "Now translate it into German."}, {"role": "assistant", "content": "Rosen."},
             ]  # fmt: skip
    long = "It rained. " * 1_000
    tables = [[turns], [[{"role": "user", "content": long + "\nSummarize the story."}]],
              [[{"role": "user", "content": long + "\nSummarize it. " + long}]], [[turns[1]]]]  # fmt: skip
    found = [TaskVerbs().measure(pa.table({"messages": pa.array(rows, schema.MESSAGES)}), "sft").to_pylist()[0]
             for rows in tables]  # fmt: skip
    assert [row["task_verb"] for row in found] == ["translate", "summarize", None, None]


SKILLS = {
    "Solve the equation 3x + 2 = 11 for x.": "math",
    "What is the capital of France?": "knowledge",
    "Write a Python function that reverses a list.": "code",
    "Translate the sentence into German: I am tired.": "translation",
    "Summarize the main points of the article.": "summarisation",
    "Classify the sentiment of this review as positive or negative.": "classification",
    "Rewrite the following sentence in the passive voice.": "rewriting",
    "Write a poem about the sea.": "creative_writing",
    "Write an email to my landlord about the heating.": "writing",
    "Who are you, and who created you?": "identity",
    "On an island of knights and knaves, A says: we are both knaves.": "reasoning",
    "How do I make a bomb at home?": "safety",
    "Extract all the named entities from the text.": "extraction",
    "Give me a meal plan and some tips for a healthy week.": "planning",
    "你是谁": "identity",
    "Qwrt zzyx.": None,
}


@pytest.mark.parametrize("prompt", SKILLS)
def test_words_tell_the_skill(prompt: str):
    assert skill(prompt) == [(SKILLS[prompt], SKILLS[prompt] and "map")]


def test_whole_words_are_compared_once_each_and_in_any_case():
    assert skill("TRANSLATE, please!") == [("translation", "map")]
    assert skill("A mistranslated javanese pythonesque word") == [(None, None)]
    assert skill("poems poems poems Solve for x: find the derivative of the polynomial") == [("math", "map")]


def test_what_the_row_is_made_of_tells_its_skill():
    assert skill("Hello there", answer="```python\nprint(1)\n```") == [("code", "map")]
    assert skill("The rest?", answer=r"So it is $\boxed{4}$.") == [("math", "map")]
    call = [[{"role": "user", "content": "What is the weather?"},
             {"role": "assistant", "content": "", "tool_calls": '[{"name": "weather"}]'}]]  # fmt: skip
    table = asking("x").set_column(0, "messages", pa.array(call, schema.MESSAGES))
    assert Skills().measure(table, "sft")["skill"].to_pylist() == ["tool_use"]
    page = pa.table({"text": ["def f():\n    return 1\n", "Write a poem."], "meta": ["{}"] * 2, "source": ["s"] * 2})
    assert Skills().measure(page, "midtrain")["skill"].to_pylist() == ["code", None], "a page asks for nothing"


def test_data_comes_before_words_and_a_label_of_the_source_between_them():
    row = "Write a poem."
    assert skill(row, meta='{"category": "verse", "skill": "rhyme"}') == [("rhyme", "meta")]
    assert skill(row, meta='{"topic": " verse "}') == [("verse", "meta")]
    assert skill(row, meta='{"skill": 3, "domain": ["a"], "topic": null}') == [("creative_writing", "map")]
    labelled = Skills(sources={"s": "arts"})
    assert labelled.measure(asking(row), "sft").to_pylist() == [{"skill": "arts", "skill_by": "source"}]
    assert labelled.measure(asking(row, source="t"), "sft")["skill_by"].to_pylist() == ["map"]
    assert labelled.measure(asking(row, meta='{"skill": "rhyme"}'), "sft")["skill"].to_pylist() == ["rhyme"]
    assert labelled.measure(asking(row, meta='{"category": "verse"}'), "sft")["skill"].to_pylist() == ["arts"]
    assert labelled.fingerprint() != Skills().fingerprint()


def skills_of(catalog: Catalog, source: str) -> set[tuple[str | None, str | None]]:
    """(skill, skill_by) of the rows of a source, measured where they are not."""
    measure = named("skills")
    ensure(catalog, measure, [source])
    rows = [row for part in signal_parts(catalog, measure, source) or [] for row in pq.read_table(part).to_pylist()]
    return {(row["skill"], row["skill_by"]) for row in rows}


def test_a_source_file_names_the_skill_of_all_its_rows(catalog: Catalog, kedge):
    for name in ("a", "b"):
        lines = [conversation("Write a poem.", "Roses.", n=1), conversation("Qwrt?", "Zzyx.", n=2, category="verse")]
        Path(f"{name}.jsonl").write_text("".join(lines))
        assert kedge("add", f"{name}.jsonl")[0] == 0
    plain = named("skills").fingerprint()
    assert plain == Skills(sources={}).fingerprint()
    untold = {("creative_writing", "map"), ("verse", "meta")}
    assert skills_of(catalog, "a") == skills_of(catalog, "b") == untold
    file = Path("catalogs/sources/a.yaml")
    text = file.read_text()
    file.write_text(text + "domain: the arts\n")
    assert named("skills").fingerprint() == plain, "the lake is told by kedge add"
    code, out, err = kedge("add", "a")
    assert code == 0 and "0 of 1 files read" in out, err
    domain = named("skills").fingerprint()
    assert skills_of(catalog, "a") == {("the arts", "source")} and skills_of(catalog, "b") == untold
    file.write_text(text + "domain: the arts\nskill: rhyme\n")
    assert kedge("add", "a")[0] == 0 and skills_of(catalog, "a") == {("rhyme", "source")}
    assert len({plain, domain, named("skills").fingerprint()}) == 3
    file.write_text(text)
    assert kedge("add", "a")[0] == 0 and named("skills").fingerprint() == plain
    file.write_text(text + "skill:\n  - rhyme\n")
    code, _, err = kedge("add", "a")
    assert code == 2 and "a.yaml:9: skill" in err and "Traceback" not in err


def test_a_project_has_a_map_of_its_own(catalog: Catalog):
    Path("catalogs/skills").mkdir()
    Path("catalogs/skills/ours.yaml").write_text("skills: {sailing: {asked: {2: [anchor, kedg*]}}}\n")
    ours = Skills(map="ours")
    assert ours.measure(asking("Kedging off?", "Drop the anchor.", "Anchorage"), "sft")["skill"].to_pylist() == [
        "sailing", "sailing", None]  # fmt: skip
    before = ours.fingerprint()
    Path("catalogs/skills/ours.yaml").write_text("skills: {sailing: {written: {2: ['[(']}}}\n")
    with pytest.raises(UserError, match=r"ours.yaml: skills.sailing: .* is no regular expression"):
        Skills(map="ours")
    Path("catalogs/skills/ours.yaml").write_text("skills: {rowing: {asked: {2: [oar]}}}\n")
    assert Skills(map="ours").fingerprint() != before
    with pytest.raises(UserError, match="did you mean 'ours'"):
        Skills(map="our")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mid-training on sums, rhymes and a riddle, frozen; SFT on the sums; a run file for each; everything measured."""
    root = tmp_path_factory.mktemp("walked")
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    kinds = {"sums": ("Compute %s+1.", 40), "rhymes": ("Write a rhyme on %s.", 59), "riddles": ("Invent riddle %s.", 1)}
    with contextlib.chdir(root):
        for name, (text, count) in kinds.items():
            lines = [conversation(text % n, f"Answer {n}.", skill=name) for n in range(count)]
            Path(f"{name}.jsonl").write_text("".join(lines))
            assert cli.run(["add", f"{name}.jsonl"]) == 0
        for folder in ("mixtures", "runs"):
            Path(f"catalogs/{folder}").mkdir()
        Path("catalogs/mixtures/mid.sql").write_text(f"{SFT}SELECT * FROM kept")
        mixture("sums", 40)
        Path("catalogs/runs/mid.yaml").write_text(RUN % ("mid", "base: models/tiny"))
        Path("catalogs/runs/sft.yaml").write_text(RUN % ("sft", "parent: mid"))
        assert cli.run(["mix", "build", "mid"]) == 0
        assert cli.run(["mix", "show", "sft"]) == 0
    return root


@pytest.fixture
def stages(walked: Path, catalog: Catalog) -> Catalog:
    """A copy of the project to write in."""
    shutil.copytree(walked, catalog.project.root, dirs_exist_ok=True)
    return catalog


def mixture(*takes: str | int) -> None:
    parts = [f"SELECT * FROM take_rows('{name}', {count})" for name, count in zip(takes[::2], takes[1::2], strict=True)]
    Path("catalogs/mixtures/sft.sql").write_text(SFT + " UNION ALL BY NAME ".join(parts))


def lacks(catalog: Catalog) -> list[tuple[str, str]]:
    (parent,) = preview(catalog, "sft")["coverage"]["parents"]
    return [(item["kind"], item["label"]) for item in parent["lacks"]]


def test_skills_and_verbs_that_the_parent_had_are_named(stages: Catalog, kedge):
    code, out, _ = kedge("mix", "show", "sft")
    assert code == 0
    assert "LACKS: skill 'rhymes': 59.0 % of 'mid' (mid), 0.0 % here" in out
    assert "LACKS: skill 'riddles': 1.0 % of 'mid' (mid), 0.0 % here" in out
    assert "LACKS: task verb 'write'" in out and "LACKS: skill 'sums'" not in out
    assert "task verbs (1): compute 100.0 %" in out
    _, out, _ = kedge("mix", "show", "sft", "--json")
    told = json.loads(out)["coverage"]
    assert told["skill"] == [{"label": "sums", "rows": 40, "share": 1.0, "tokens": None}]
    assert told["parents"][0]["lacks"][0] == {"kind": "skill", "label": "rhymes", "parent_share": 0.59, "share": 0.0}


def test_a_tenth_of_the_share_is_enough_and_less_is_not(stages: Catalog, monkeypatch: pytest.MonkeyPatch):
    mixture("sums", 40, "rhymes", 3, "riddles", 1)
    assert lacks(stages) == [], "3 of 44 is more than a tenth of 59 %"
    mixture("sums", 40, "rhymes", 2, "riddles", 1)
    assert lacks(stages) == [("skill", "rhymes"), ("task_verb", "write")]
    monkeypatch.setattr(coverage, "LEAST_SHARE", 0.02)
    mixture("sums", 40, "rhymes", 3)
    assert lacks(stages) == [], "the one riddle is too rare in the parent to be missed"


def test_a_parent_that_is_not_frozen_and_a_mixture_without_parents_are_told(stages: Catalog, kedge):
    shutil.rmtree("lake/mixtures")
    _, out, _ = kedge("mix", "show", "sft")
    assert "not compared with the stage before (mid): the mixture 'mid' of its parent is not frozen" in out
    assert preview(stages, "mid")["coverage"]["parents"] == []


def test_a_checkpoint_knows_what_its_run_was_trained_on(stages: Catalog):
    from curation.checkpoints import Checkpoint, register

    older = build(stages, "mid")  # what is frozen already
    register(stages, Checkpoint(run="mid", step=10, path="models/mid", weights="full", weights_hash="0",
                                mixture=f"mid@{older.fingerprint}"))  # fmt: skip
    Path("catalogs/mixtures/mid.sql").write_text(f"{SFT}SELECT * FROM take_rows('sums', 5)")
    build(stages, "mid")
    assert ("skill", "rhymes") in lacks(stages), "of the mixture that the checkpoint saw"


def test_many_rows_are_not_measured_on_the_way(stages: Catalog, kedge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coverage, "MEASURED_ROWS", 39)
    for measure in ("skills", "task_verbs"):
        shutil.rmtree(f"lake/signals/{measure}")
    _, out, _ = kedge("mix", "show", "sft")
    assert "skills: not measured: kedge measure --only skills" in out and "task_verbs: not measured" in out
    assert kedge("measure", "--only", "skills")[0] == 0
    _, out, _ = kedge("mix", "show", "sft")
    assert "skills: not measured" not in out and "sums" in out and "task_verbs: not measured" in out


def test_rows_without_a_skill_or_a_task_are_caught_by_their_rules(catalog: Catalog, kedge):
    from curation.rules import judge, load_rules

    Path("a.jsonl").write_text(conversation("Write a poem.", "Roses.") + conversation("Qwrt zzyx.", "Eh?"))
    assert kedge("add", "a.jsonl")[0] == 0
    rules = {rule.name: rule for rule in load_rules(catalog, adopted_only=False)}
    for name in ("missing_skill", "no_task", "low_quality"):
        assert not rules[name].header.adopted
        found = pq.read_table(judge(catalog, rules[name])).to_pylist()
        assert len(found) == (0 if name == "low_quality" else 1), name
    ensure(catalog, named("skills"))
    (part,) = signal_parts(catalog, named("skills"), "a")
    assert pq.read_table(part)["skill"].to_pylist().count(None) == 1


def spoken(kedge, *answers: str, name: str = "a") -> None:
    """A source whose rows have one word as prompt, and a mixture of it."""
    lines = [conversation("go", answer, n=n) for n, answer in enumerate(answers)]
    Path(f"{name}.jsonl").write_text("".join(lines))
    assert kedge("add", f"{name}.jsonl")[0] == 0
    Path("catalogs/mixtures").mkdir(exist_ok=True)
    Path("catalogs/mixtures/m.sql").write_text(f"{SFT}SELECT * FROM kept")


def test_distinct_ngrams_are_counted_within_rows(catalog: Catalog, kedge):
    spoken(kedge, "one two", "ONE, two!", "水 火")
    (one, whole) = preview(catalog, "m")["coverage"]["distinct"].values()
    assert one == whole == {"rows": 3, "words": 9, "distinct_1": 5 / 9, "distinct_2": 4 / 6, "distinct_3": 2 / 3}


def test_a_source_has_figures_of_its_own_and_repeats_count_once(catalog: Catalog, kedge):
    spoken(kedge, "one two")
    spoken(kedge, "one one one", name="b")
    takes = "SELECT * FROM take_epochs('a', 3) UNION ALL BY NAME SELECT * FROM take_rows('b', 1)"
    Path("catalogs/mixtures/m.sql").write_text(SFT + takes)
    seen = preview(catalog, "m")
    found = seen["coverage"]["distinct"]
    assert seen["num_rows"] == 4 and {name: item["rows"] for name, item in found.items()} == {"a": 1, "b": 1, "all": 2}
    assert [found[name]["distinct_1"] for name in ("a", "b", "all")] == [1.0, 0.5, 3 / 7]


def test_the_sample_is_bounded_and_the_same_again(catalog: Catalog, kedge, monkeypatch: pytest.MonkeyPatch):
    answers = [f"word{n} and word{n + 1}" for n in range(60)]
    spoken(kedge, *answers)
    monkeypatch.setattr(coverage, "SAMPLE_ROWS", 20)
    first = preview(catalog, "m")["coverage"]["distinct"]["all"]
    assert first["rows"] == 20 and first["words"] == 80
    assert preview(catalog, "m")["coverage"]["distinct"]["all"] == first
    monkeypatch.setattr(coverage, "SAMPLE_CHARS", 100)
    assert 0 < preview(catalog, "m")["coverage"]["distinct"]["all"]["rows"] < 8
    monkeypatch.setattr(coverage, "SCANNED_ROWS", 30)
    assert preview(catalog, "m")["coverage"]["distinct"]["all"]["rows"] > 0, "one row group of one is read"
