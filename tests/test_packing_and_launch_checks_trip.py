"""Checks P1 to P4, V1 and V2: packings and launches that trip each, and such that do not."""

from __future__ import annotations

import pytest

from curation.auditing.audit import mirror_for
from curation.auditing.mirrors.trl_sft import TRLSFT
from curation.errors import Problem
from tests.audited import at, audited, case, checks_by_id, column, error, mirror, ok, says, talk, warn

SHORT = talk("<think>12+3</think>The answer is 15.")
LONG = talk("<think>" + "12+3 " * 60 + "</think>The answer is 15.")
TEXT = {"text": "12 plus 3 is 15. " * 20}
BFD = mirror("trl_sft", max_length=64, packing=True)
SPLIT = mirror("trl_sft", max_length=64, packing=True, packing_strategy="bfd_split")
WRAPPED = mirror("trl_sft", max_length=64, packing=True, packing_strategy="wrapped")


@says(P1=warn(1 / 3, "33.3% of the documents are split over packed sequences"), P2=ok(None), A1=ok(), A7=ok(), P4=ok())
def test_a_long_document_is_split_and_the_rest_of_it_lacks_its_question(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], SPLIT)
    assert expected.missed_by(found) == []


@says(P1=warn(None, "positions run on over documents"), P2=error(None, "attend to each other"))
def test_documents_that_are_joined_and_cut_see_each_other(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], WRAPPED)
    assert expected.missed_by(found) == []


@says(P1=ok(0.0, "no document is split"), P2=ok(None), P4=ok(0.0, "no token is trained twice"))
def test_documents_that_are_packed_whole_are_apart(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], BFD)
    assert expected.missed_by(found) == []


@says(P2=error(None))
def test_documents_under_a_mask_of_ones_see_each_other(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, SHORT], mirror("llama_factory_sft", cutoff_len=64, packing=True))
    assert expected.missed_by(found) == []


@says(P2=ok(None))
def test_documents_with_numbers_in_the_mask_do_not(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, SHORT], mirror("llama_factory_sft", cutoff_len=64, neat_packing=True))
    assert expected.missed_by(found) == []


def test_rows_that_are_not_packed_have_no_check_of_their_borders(tiny_model):
    assert not {"P1", "P2"} & set(audited(tiny_model, [SHORT, SHORT], mirror("trl_sft", max_length=64)))


@says(P3=ok(None, "3 packed sequences"))
def test_bins_that_no_second_row_fits_into_are_filled_in_part(tiny_model, expected):
    made = case(tiny_model, [SHORT] * 3, BFD)
    tokens = column(made, "tokens")[0]
    found = checks_by_id(at(made, tokens + 10))
    assert found["P3"].value == pytest.approx(10 / (tokens + 10))
    assert expected.missed_by(found) == []


@says(P3=ok(0.0, "1 packed sequences, 100.0% filled"))
def test_a_bin_that_its_rows_fill_wastes_nothing(tiny_model, expected):
    made = case(tiny_model, [SHORT] * 3, BFD)
    found = checks_by_id(at(made, sum(column(made, "tokens"))))
    assert expected.missed_by(found) == []


def test_a_batch_pads_its_rows_to_the_longest(tiny_model):
    made = case(tiny_model, [SHORT, SHORT, LONG], mirror("trl_sft", max_length=1024))
    tokens = column(made, "tokens")
    assert checks_by_id(made)["P3"].value == pytest.approx(1 - sum(tokens) / (3 * max(tokens)))


@says(P4=warn(None, "lie in two windows of their document"), A4=error(1.0))
def test_windows_that_overlap_train_tokens_twice(tiny_model, expected):
    made = case(tiny_model, [TEXT] * 3, mirror("axolotl_pretrain", sequence_len=64, sample_packing=True))
    fates = made.mirror.fates(made.anatomy)
    tokens, windows = column(made, "tokens")[0], len(fates.row) // 3
    found = checks_by_id(made)
    # Windows of 63 tokens, each 31 before the end of the one before; the last has the end of the text too.
    assert windows == -(-(tokens - 1 - 63) // 32) + 1 > 2
    assert found["P4"].value == pytest.approx(31 * (windows - 1) / tokens)
    assert expected.missed_by(found) == []


@says(P4=ok(), P1=ok(0.0), A4=ok())
def test_a_text_of_one_window_is_trained_once(tiny_model, expected):
    found = audited(tiny_model, [TEXT] * 3, mirror("axolotl_pretrain", sequence_len=1024, sample_packing=True))
    assert expected.missed_by(found) == []


@says(V1=warn(0.0, "read in LLaMA-Factory"))
def test_a_mirror_that_was_read_and_not_run_is_a_warning(tiny_model, expected):
    found = audited(tiny_model, [SHORT], mirror("llama_factory_sft", cutoff_len=64))
    assert expected.missed_by(found) == []


@says(V1=ok(0.0, "tested against trl"))
def test_a_mirror_that_is_compared_with_its_trainer_is_vouched_for(tiny_model, expected):
    pytest.importorskip("trl")
    found = audited(tiny_model, [SHORT], mirror("trl_sft", max_length=64))
    assert expected.missed_by(found) == []


@says(V2=error(2, "trainer.padding_free: this option is dead"))
def test_options_that_a_trainer_ignores_are_an_error(tiny_model, expected):
    dead = type(mirror("trl_dpo")).option_problems({"padding_free": True, "max_prompt_length": 512}, "dpo.yaml")
    found = audited(tiny_model, [SHORT], mirror("trl_sft", max_length=64), problems=tuple(dead))
    assert expected.missed_by(found) == []


@says(V2=ok(0.0, "every option is alive"))
def test_options_that_a_trainer_knows_are_fine(tiny_model, expected):
    live = TRLSFT.option_problems({"packing": True, "packing_strategy": "bfd", "max_length": 64}, "sft.yaml")
    found = audited(tiny_model, [SHORT], BFD, problems=tuple(live))
    assert expected.missed_by(found) == []


def test_an_option_of_another_version_is_no_option_of_this_one():
    assert TRLSFT.option_problems({"packing_strategy": "bfd", "packing": True}) == []
    (told,) = TRLSFT.option_problems({"max_seq_length": 64})
    assert isinstance(told, Problem) and "max_length" in told.next
    with pytest.raises(Exception, match="packing_strategy"):
        mirror_for("trl_sft", {"packing": True, "packing_strategy": "ffd"})
