"""Pairs are examined: similar sides, prompts, format, margins, verifiers; and what a source teaches beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import schema
from curation.catalog import Catalog
from curation.measures.pair_quality import PairQuality
from curation.pair_bias import bias
from curation.references import reference_of
from curation.statistics import exact_interval, paired_logit, share_interval, wilson_interval
from tests import REAL_DATA
from tests.verdicts_of import rule_of, verdicts_of

NULLS = dict.fromkeys(("margin", "chosen_score", "rejected_score", "meta"))


def turns(*texts: str, first: str = "assistant") -> list[dict]:
    """Turns of alternating roles."""
    roles = ["assistant", "user"] if first == "assistant" else ["user", "assistant"]
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def measured(chosen: str | list | None, rejected: str | list | None, *, prompt: str = "Why is the sky blue at noon?",
             measure: PairQuality | None = None, **more: object) -> dict:  # fmt: skip
    """The values of one pair."""
    sides = {name: [{"role": "assistant", "content": side}] if isinstance(side, str) else side
             for name, side in (("chosen", chosen), ("rejected", rejected))}  # fmt: skip
    row = {"prompt": [{"role": "user", "content": prompt}], "tools": None} | sides | NULLS | more
    of = schema.rows("preference")
    reads = (measure or PairQuality()).reads("preference")
    table = pa.Table.from_pylist([row], pa.schema([of.field(name) for name in reads]))
    return (measure or PairQuality()).measure(table, "preference").to_pylist()[0]


def test_sides_that_are_the_same_text_are_identical_and_those_of_the_same_words_are_similar():
    same = measured("It scatters.", "It scatters.")
    assert same["sides_identical"] and same["side_similarity"] == 1.0 and same["shared_prefix_chars_share"] == 1.0
    alike = measured("It scatters.", "it scatters!")
    assert not alike["sides_identical"] and alike["side_similarity"] == 1.0
    other = measured("Light scatters.", "Nobody knows why.")
    assert other["side_similarity"] == 0.0 and other["shared_prefix_words_share"] == 0.0


def test_a_difference_in_thought_or_tool_call_is_a_difference():
    def side(**more: str) -> list[dict]:
        return [{"role": "assistant", "content": "Four."} | more]

    for more in ({"reasoning": "two and two"}, {"tool_calls": '[{"name": "add"}]'}):
        found = measured(side(), side(**more))
        assert not found["sides_identical"] and found["side_similarity"] < 1
    assert measured(side(reasoning="2+2"), side())["chosen_thinks"]
    assert not measured(side(), side(reasoning="2+2"))["chosen_thinks"]
    assert measured("Four.", "<think>2+2</think>Four.")["rejected_thinks"]


def test_the_shared_prefix_is_a_share_of_the_shorter_side_in_whole_characters():
    found = measured("one two three", "one two four five six")
    assert found["shared_prefix_words_share"] == pytest.approx(2 / 3)
    assert found["shared_prefix_chars_share"] == pytest.approx(len("one two ") / len("one two three"))
    assert measured("é", "è")["shared_prefix_chars_share"] == 0.0, "they share a byte and no character"
    assert measured("", "one")["shared_prefix_words_share"] is None
    assert (found["chosen_words"], found["words_difference"], found["chars_difference"]) == (3, -2, 13 - 21)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd", "ee"]), max_size=200)


@settings(max_examples=80, deadline=None)
@given(WORDS, WORDS)
def test_similarity_agrees_with_rapidfuzz_over_words(chosen: list[str], rejected: list[str]):
    from rapidfuzz.distance import Indel

    found = measured(" ".join(chosen), " ".join(rejected))["side_similarity"]
    if not chosen and not rejected:
        assert found is None
    else:
        assert found == pytest.approx(Indel.normalized_similarity(chosen, rejected))


def test_beyond_the_cap_the_similarity_is_a_lower_bound():
    chosen, rejected = "x " + "a b " * 50 + "y", "z " + "a b " * 50 + "w"
    whole = measured(chosen, rejected)["side_similarity"]
    capped = measured(chosen, rejected, measure=PairQuality(max_words=20))["side_similarity"]
    assert capped < whole == pytest.approx(100 / 102)


def test_sides_whose_user_turns_differ_answer_different_prompts():
    assert measured(turns("a", "And red?", "b"), turns("c", "And green?", "d"))["prompts_mismatch"]
    assert measured(turns("a", "And red?", "b"), turns("c"))["prompts_mismatch"]
    same = measured(turns("a", "And red?", "b"), turns("c", "And red?", "d"))
    assert not same["prompts_mismatch"] and same["chosen_turns"] == 3
    assert not measured("a", "b")["prompts_mismatch"]


def test_a_side_that_begins_with_the_question_repeats_it_and_a_short_question_may_be_repeated():
    found = measured("Why is the sky blue at noon? It scatters.", "You ask: Why is the sky blue at noon?")
    assert (found["chosen_repeats_prompt"], found["rejected_repeats_prompt"]) == (True, False)
    assert not measured("Why blue? Because.", "No.", prompt="Why blue?")["chosen_repeats_prompt"]


FORMATTED = {
    "list_items": ("- one\n  * two\n3. three", "a - b\n3.5 is more"),
    "headings": ("# Title\n### Part", "#hashtag and C# code"),
    "bold": ("**yes** and **no**", "2 ** 3 ** 2 is\n** odd **"),
    "code_blocks": ("```py\nx\n```\ntext\n```", "`x` and ``y``"),
    "latex": (r"\(x\) so $a_1$", "It costs $5 or $6."),
    "emoji": ("Yes 🎉 and ❤️", "© 2024 ™ 5 #"),
    "table_rows": ("| a | b |\n|---|---|", "a | b"),
    "exclamations": ("Yes! No!", "x != y and ![img](u)"),
}  # fmt: skip


@pytest.mark.parametrize("feature", FORMATTED)
def test_a_feature_of_format_is_counted_and_what_looks_like_it_is_not(feature: str):
    has, lacks = FORMATTED[feature]
    found = measured(has, lacks)
    assert (found[f"chosen_{feature}"] >= 2, found[f"rejected_{feature}"]) == (True, 0), found


def test_a_margin_is_the_given_one_or_that_of_the_scores():
    assert measured("a", "b")["score_margin"] is None
    assert measured("a", "b", chosen_score=2.0, rejected_score=3.0)["score_margin"] == -1.0
    found = measured("a", "b", margin=0.5, chosen_score=2.0, rejected_score=3.0)
    assert found["score_margin"] == 0.5 and found["margin_contradicts_scores"]
    assert measured("a", "b", margin=0.5)["margin_contradicts_scores"] is None


def test_an_answer_that_stops_inside_a_sentence_ends_open():
    prose = "The sky is blue since air scatters short waves"
    found = measured(f"{prose} more than", f"{prose}.")
    assert (found["chosen_ends_open"], found["rejected_ends_open"]) == (True, False)
    found = measured(f"{prose}:\n- red\n- green", "Paris")
    assert (found["chosen_ends_open"], found["rejected_ends_open"]) == (False, False), "a list, a short answer"


def test_an_empty_side_and_a_refusal_are_told_per_side():
    found = measured("I'm sorry, but I can't help with that.", " ")
    assert (found["chosen_refuses"], found["rejected_refuses"]) == (True, False)
    assert (found["chosen_empty"], found["rejected_empty"]) == (False, True)


def test_a_row_with_one_side_has_the_values_of_that_side_alone():
    found = measured(None, "It scatters light.", meta='{"gold": "7"}')
    assert found["rejected_words"] == 3 and found["rejected_state"] == "unparsed" and not found["rejected_refuses"]
    alone = {name for name, value in found.items() if value is not None}
    assert all(name.startswith("rejected_") or name == "pair_verifier" for name in alone)


REFERENCES = {
    '{"ground_truth": "42"}': ("numeric", "42"),
    '{"gold": 1234.5}': ("numeric", "1234.5"),
    '{"gt": "They have 3+4.\\n#### 1,007"}': ("numeric", "1,007"),
    '{"correct_answer": "(b)"}': ("choice", "B"),
    '{"reference_answer": "Paris"}': ("exact", "Paris"),
    '{"reward_model": {"ground_truth": "7"}}': ("numeric", "7"),
    '{"final_answer": "7", "gold": ["8"], "gt": ""}': ("numeric", "7"),
    '{"ground_truth": "\\\\frac{1}{2}"}': None,
    '{"ground_truth": true}': None,
    '{"ground_truth": ["1", "2"]}': None,
    '{"answer": "A", "target": 3}': None,
    '{"gold": "' + "1" * 30_000 + 'x"}': None,
    '["ground_truth"]': None,
}


@pytest.mark.parametrize("meta", REFERENCES)
def test_a_reference_in_meta_names_its_verifier(meta: str):
    assert reference_of(meta) == REFERENCES[meta]


def test_both_sides_are_judged_against_the_reference_behind_the_thought():
    found = measured("So it is 5.", "<think>5?</think>It is 4.", meta='{"ground_truth": "4"}')
    assert (found["pair_verifier"], found["chosen_state"], found["rejected_state"]) == ("numeric", "wrong", "right")
    found = measured("The answer is (A).", "No idea", meta='{"gold": "A"}')
    assert (found["chosen_state"], found["rejected_state"]) == ("right", "unparsed")
    assert measured("4", "5", meta='{"ground_truth": "1/0"}')["pair_verifier"] is None


SCORES = {"chosen_score": 1, "rejected_score": 2.5}
RULES = {  # a pair that the rule catches, whether it is adopted, and the reason
    "identical_pair": ({"chosen": "same", "rejected": "same"}, True, "chosen and rejected are the same text"),
    "near_identical_pair": ({"chosen": "You are welcome!", "rejected": "You are welcome."}, False,
                            "the sides share 100.0 % of their words in order"),
    "negative_margin": ({"chosen": "a", "rejected": "b"} | SCORES, True,
                        "the margin is -1.5: the scores prefer rejected"),
    "verifier_prefers_rejected": ({"chosen": "It is 5", "rejected": "It is 4", "gold_answer": "4"}, True,
                                  "the verifier numeric finds rejected right and chosen wrong"),
    "chosen_refuses": ({"chosen": "I'm sorry, but I can't help with that.", "rejected": "Sure, it is blue."}, False,
                       "chosen refuses and rejected does not"),
    "prompt_mismatch": ({"chosen": turns("Hi", "a", "Red?", "b", first="user"),
                         "rejected": turns("Hi", "c", "Green?", "d", first="user")}, True,
                        "the sides answer different prompts"),
}  # fmt: skip


def test_each_rule_names_its_pair_and_lets_the_others_pass(catalog: Catalog, kedge):
    sound = {"chosen": "It scatters 4.", "rejected": "Nobody knows 5.", "chosen_score": 2, "rejected_score": 1,
             "gold_answer": "4"}  # fmt: skip
    pairs = [sound, *(pair for pair, _, _ in RULES.values())]
    Path("pairs.jsonl").write_text("".join(json.dumps({"prompt": f"Question {number}?"} | pair) + "\n"
                                           for number, pair in enumerate(pairs)))  # fmt: skip
    assert kedge("add", "pairs.jsonl")[0] == 0
    code, _, err = kedge("measure", "pairs", "--only", "pair_quality")
    assert code == 0 and "measuring pair_quality of pairs" in err
    for line, (name, (_, adopted, reason)) in enumerate(RULES.items(), start=2):
        assert verdicts_of(catalog, name) == {("pairs", line): reason}, name
        assert rule_of(catalog, name).header.adopted == adopted, name


def make_pairs(kedge, lengths: list[tuple[int, int]], name: str = "made", bold: int = 0) -> None:
    """Pairs with so many words a side; the first `bold` chosen sides begin in bold."""
    first = ["**a** " if number < bold else "a " for number in range(len(lengths))]
    records = [{"prompt": f"Question {number // 2}?", "chosen": first[number] + "b " * (left - 1),
                "rejected": "c " * right} for number, (left, right) in enumerate(lengths)]  # fmt: skip
    Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert kedge("add", f"{name}.jsonl")[0] == 0


def test_length_bias_has_a_share_an_interval_and_odds_and_show_prints_them(catalog: Catalog, kedge):
    make_pairs(kedge, [(20, 10)] * 30 + [(12, 24)] * 10 + [(7, 7)] * 4, bold=3)
    code, out, _ = kedge("show", "made")
    assert code == 0 and "pair bias: not measured; run: kedge measure made --only pair_quality" in out
    found = bias(catalog, "made")
    assert (found.longer.num_pairs, found.longer.num_chosen, found.num_equal_length) == (40, 30, 4)
    assert found.longer.method == "cluster-robust" and found.num_prompts == 22
    low, high = found.longer.interval
    assert low < 0.75 < high and low < wilson_interval(30, 40).low, "pairs of one prompt are no independent evidence"
    assert (found.median_ratio, found.mean_ratio) == (2.0, pytest.approx((30 * 2 + 10 * 0.5 + 4) / 44))
    assert (found.formats["bold"].num_pairs, found.formats["bold"].share) == (3, 1.0)
    assert found.regression.coefficients["words"][0] > 0 and found.regression.separating == {"bold": "+"}
    told = json.loads(json.dumps(found.as_json()))
    assert told["longer"]["interval"] == pytest.approx([low, high]) and told["counts"]["margin missing"] == 44
    code, out, _ = kedge("show", "made")
    assert code == 0 and "longer, in words" in out and "75.0 %" in out and "margin missing" in out
    code, out, _ = kedge("show", "made", "--json")
    assert [item["kind"] for item in json.loads(out)] == ["source", "pair_bias"]


def test_a_source_of_separated_or_of_single_sides_gives_figures_and_no_traceback(catalog: Catalog, kedge):
    make_pairs(kedge, [(20, 10)] * 30, "apart")
    found = bias(catalog, "apart")
    assert found.regression.separating == {"words": "+"} and found.regression.problem == "no feature differs both ways"
    assert (found.longer.share, found.longer.method) == (1.0, "wilson"), "a robust error of zero proves nothing"
    Path("kto.jsonl").write_text(json.dumps({"prompt": "q", "completion": "a", "label": True}) + "\n")
    assert kedge("add", "kto.jsonl")[0] == 0
    found = bias(catalog, "kto")
    assert (found.num_rows, found.num_pairs, found.longer.share, found.mean_ratio) == (1, 0, None, None)
    code, out, _ = kedge("show", "kto")
    assert code == 0 and "pair bias: no row has both sides" in out


def test_the_paired_regression_finds_the_odds_that_made_the_data_and_says_when_it_cannot():
    random = np.random.default_rng(7)
    raw = random.normal(size=(4000, 2)) * [3.0, 0.5]
    chosen = random.random(4000) < 1 / (1 + np.exp(-(raw @ [0.4, 0.0])))
    found = paired_logit(raw * np.where(chosen, 1, -1)[:, None], ["length", "other"])
    value, interval = found.coefficients["length"]
    assert interval.low < 1.2 < interval.high and abs(value - 1.2) < 0.2, "0.4 for one, and a deviation is 3"
    assert not found.coefficients["other"][1].excludes_zero()
    together = np.stack([np.tile([2.0, -1.0], 30), np.tile([-1.0, 2.0], 30)], axis=1)
    assert "separate" in (paired_logit(together, ["a", "b"]).problem or "")
    twice = np.repeat(random.normal(size=(60, 1)), 2, axis=1)
    assert paired_logit(twice, ["a", "a again"]).coefficients == {} or paired_logit(twice, ["a", "b"]).problem is None
    assert "too few" in (paired_logit([[1.0], [-1.0]], ["a"]).problem or "")
    assert paired_logit(np.zeros((0, 1)), ["a"]).problem == "no feature differs both ways"


def test_intervals_of_shares_are_those_of_the_tables_and_clusters_widen_them():
    assert exact_interval(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert exact_interval(1, 11) == pytest.approx((0.0023, 0.4128), abs=1e-4)
    assert exact_interval(0, 0) == (0.0, 1.0)
    values = [1, 1, 0, 0, 1, 1, 1, 1]
    plain, method = share_interval(values, range(8))
    assert (plain, method) == (wilson_interval(6, 8), "wilson")
    wide, method = share_interval(values, [0, 0, 1, 1, 2, 2, 3, 3])
    assert method == "cluster-robust" and wide.low < plain.low
    assert share_interval([], []) == ((0.0, 1.0), "wilson")


@pytest.mark.real_data
def test_the_shorter_answer_is_chosen_in_hh_rlhf_and_exclamations_are_rejected_in_the_dpo_demo(catalog: Catalog, kedge):
    for file in ("hh_rlhf_harmless_base_test.jsonl.gz", "dpo_en_demo.json.gz"):
        assert kedge("add", str(REAL_DATA / "preference" / file))[0] == 0
    found = bias(catalog, "hh_rlhf_harmless_base_test")
    assert (found.num_pairs, found.longer.num_pairs, found.longer.num_chosen) == (2312, 2264, 1004)
    assert found.longer.interval == pytest.approx((0.423, 0.464), abs=1e-3)
    assert found.regression.coefficients["words"][1].high < 0
    assert found.counts["a side is empty"] == 4 and found.counts["near-identical sides"] == 3
    demo = bias(catalog, "dpo_en_demo")
    assert (demo.longer.num_pairs, demo.longer.num_chosen) == (297, 132)
    assert demo.longer.interval.low < 0.5 < demo.longer.interval.high, "no length bias can be told from 297 pairs"
    assert demo.formats["exclamations"].interval.high < 0.5
