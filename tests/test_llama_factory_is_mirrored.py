"""LLaMA-Factory as its source was read: cuts per turn pair, false stops, packing, blocks, pairs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.auditing.fates import Runs
from curation.auditing.mirrors.llama_factory_dpo import LlamaFactoryDPO
from curation.auditing.mirrors.llama_factory_sft import (
    EFFICIENT_EOS,
    LlamaFactorySFT,
    knapsack,
    turn_pairs,
)  # fmt: skip
from curation.errors import UserError
from tests.made_anatomy import Turns, anatomy, kept_of, names, pairs, positions, texts


@pytest.mark.parametrize(("given_", "kept"), [
    ((100, 8000), (100, 1948)), ((3000, 500), (1548, 500)), ((3000, 3000), (1024, 1024)), ((2048, 1), (2047, 1)),
])  # fmt: skip
def test_the_budget_of_a_turn_pair_is_shared_as_llama_factory_does(given_, kept):
    """Measured on the function itself at cutoff_len 2048."""
    assert kept_of(*given_, 2048) == kept
    fates = LlamaFactorySFT(cutoff_len=2048).fates(anatomy([[given_]]))
    assert positions(fates, 0) == [*range(kept[0]), *range(given_[0], given_[0] + kept[1])]
    assert fates.kept_trained.tolist() == [kept[1]]


@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 400))
def test_a_turn_pair_fills_its_budget_and_never_more(source, target, cutoff):
    kept = kept_of(source, target, cutoff)
    assert kept[0] <= source and kept[1] <= target
    assert sum(kept) == min(cutoff, source + target)
    assert sum(kept) <= sum(kept_of(source, target, cutoff + 1))


rows_of_turns = st.lists(
    st.lists(st.tuples(st.integers(0, 40), st.integers(2, 40)), min_size=0, max_size=5), min_size=1, max_size=6
)


def llama_factory(turns: Turns, cutoff: int, *, history: bool, eos: bool) -> tuple[list[int], bool, int]:
    """(positions that stay, whether the appended end is false, length with it) as the loop of supervised.py does it."""
    begins = np.cumsum([0, *(source + target for source, target in turns)]).tolist()
    whole = [(list(range(begin, begin + source)), list(range(begin + source, begin + source + target)))
             for begin, (source, target) in zip(begins, turns, strict=False)]  # fmt: skip
    if eos and whole:
        whole[-1] = (whole[-1][0], whole[-1][1][:-1])  # the end is appended, so it is no part of the target
    used, kept, cut_at_end = int(eos), [], False
    for number, (source, target) in enumerate(whole[::-1] if history else whole):
        if used >= cutoff:
            break
        room = kept_of(len(source), len(target), cutoff - used)
        piece = source[: room[0]] + target[: room[1]]
        kept = piece + kept if history else kept + piece
        used += sum(room)
        if piece and (not history or number == 0):
            cut_at_end = room[1] < len(target)
    last = whole[-1][0] + whole[-1][1] if whole else []
    ended = bool(eos and last and kept and kept[-1] == last[-1])
    if ended:
        kept = [*kept, begins[-1] - 1]
    return kept, eos and bool(kept) and not ended and cut_at_end, used


@settings(max_examples=300, deadline=None)
@given(rows_of_turns, st.integers(2, 150), st.booleans(), st.booleans())
def test_turns_are_cut_as_the_loop_of_llama_factory_cuts_lists(rows, cutoff, history, eos):
    template = "glm4" if eos else "qwen"
    mirror = LlamaFactorySFT(cutoff_len=cutoff, mask_history=history, template=template)
    fates = mirror.fates(anatomy(rows))
    for row, turns in enumerate(rows):
        kept, false_stop, _ = llama_factory(turns, cutoff, history=history, eos=eos)
        total = sum(map(sum, turns))
        assert positions(fates, row) == kept
        assert fates.kept[row] <= cutoff
        assert names(fates)[row] == ("dropped" if not kept else "whole" if len(kept) == total else "cut")
        assert fates.false_stop[row] == false_stop
        if not eos:
            assert fates.kept[row] == (min(total, cutoff) if turns else 0)
        ends = np.cumsum([sum(pair) for pair in turns]).tolist()
        trained = [place for place in kept for end, (_, target) in zip(ends, turns, strict=True)
                   if end - target <= place < end and (not history or end == total)]  # fmt: skip
        assert fates.kept_trained[row] == len(trained)


@settings(max_examples=100, deadline=None)
@given(rows_of_turns, st.integers(2, 150), st.booleans())
def test_a_longer_cutoff_never_keeps_less(rows, cutoff, history):
    table = anatomy(rows)
    less, more = (
        LlamaFactorySFT(cutoff_len=length, mask_history=history).fates(table) for length in (cutoff, cutoff + 7)
    )
    assert (less.kept <= more.kept).all()
    assert (more.kept <= cutoff + 7).all()


def test_turn_pairs_cover_their_rows_and_what_follows_goes_with_the_last():
    table = anatomy([[(3, 2), (4, 5)], [], [(1, 1)]]).set_column(0, "tokens", pa.array([16, 4, 2], pa.int32()))
    source, target = turn_pairs(table["tokens"].to_numpy().astype(np.int64), Runs.of(table))
    assert source.tolist() == [3, 4, 1]
    assert target.tolist() == [2, 7, 1]


def test_a_source_that_is_cut_loses_the_header_of_its_answer_which_the_prompt_check_sees():
    fates = LlamaFactorySFT(cutoff_len=20).fates(anatomy([[(30, 5)], [(10, 5)], [(10, 5), (4, 6)]]))
    assert positions(fates, 0) == [*range(15), *range(30, 35)], "the answer follows in the middle of the question"
    assert fates.covers_start().tolist() == [False, True, False]
    assert fates.holds(np.array([30, 10, 10]), np.array([35, 15, 15])).tolist() == [True, True, True]
    assert names(fates) == ["cut", "whole", "cut"]


def test_the_first_turns_stay_and_with_mask_history_the_last_which_alone_is_trained():
    table = anatomy([[(4, 4), (4, 4), (4, 4)]])
    first, last = (LlamaFactorySFT(cutoff_len=16, mask_history=history).fates(table) for history in (False, True))
    assert positions(first, 0) == list(range(16))
    assert positions(last, 0) == list(range(8, 24))
    assert (first.kept_trained.tolist(), last.kept_trained.tolist()) == ([8], [4])


def test_rows_without_an_answer_are_dropped():
    fates = LlamaFactorySFT().fates(anatomy([[], [(2, 3)]], ["raised", None]))
    assert names(fates) == ["dropped", "whole"]


def test_efficient_eos_teaches_to_stop_after_half_an_answer_alone():
    table = anatomy([[(5, 40)], [(5, 10)], [(30, 4)], [(5, 10), (5, 30)], [(5, 14), (5, 30)]])
    plain, efficient = (LlamaFactorySFT(cutoff_len=20, template=name).fates(table) for name in ("qwen", "gemma2"))
    assert not plain.false_stop.any()
    # cut answer; whole; a cut question whose answer ends; a second answer cut; a second turn that is gone altogether
    assert efficient.false_stop.tolist() == [True, False, False, True, False]
    stop = np.array([44, 14, 33, 49, 53])
    assert efficient.holds(stop, stop + 1).tolist() == [False, True, True, False, False]
    assert len(EFFICIENT_EOS) == 22


def naive_knapsack(lengths: list[int], capacity: int) -> list[list[int]]:
    waiting, found = sorted(lengths), []
    while waiting:
        space, taken = capacity, []
        while any(length <= space for length in waiting):
            length = max(length for length in waiting if length <= space)
            waiting.remove(length)
            taken.append(length)
            space -= length
        found.append(taken)
    return found


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 12))
def test_packing_fills_one_sequence_after_the_other_with_the_longest_row_that_fits(lengths, batch):
    bins = knapsack(np.array(lengths, np.int64), 30, batch)
    expected = [taken for first in range(0, len(lengths), batch)
                for taken in naive_knapsack([x for x in lengths[first : first + batch] if x], 30)]  # fmt: skip
    assert bins.max(initial=-1) + 1 == len(expected)
    for number, taken in enumerate(expected):
        assert sorted(np.array(lengths)[bins == number].tolist()) == sorted(taken)
    assert [bin for bin, length in zip(bins.tolist(), lengths, strict=True) if not length] == [-1] * lengths.count(0)


def test_of_equal_rows_the_last_is_packed_first():
    assert knapsack(np.array([4, 4, 4]), 8, 1000).tolist() == [1, 0, 0]


def test_packed_rows_are_cut_one_token_earlier_and_see_each_other_unless_packed_neatly():
    table = anatomy([[(4, 30)], [(3, 4)], [(2, 3)]])
    packed, neat = LlamaFactorySFT(cutoff_len=16, packing=True), LlamaFactorySFT(cutoff_len=16, neat_packing=True)
    for mirror in (packed, neat):
        assert mirror.packs
        fates = mirror.fates(table)
        assert fates.kept.tolist() == [15, 7, 5]
        assert fates.num_bins() == 2
        assert fates.bin.tolist() == [0, 1, 1]
    assert (packed.isolates, neat.isolates, LlamaFactorySFT().isolates) == (False, True, True)
    assert not LlamaFactorySFT().packs


def test_an_appended_end_takes_its_place_in_a_packed_sequence():
    table = anatomy([[(2, 20)], [(1, 5)]])
    fates = LlamaFactorySFT(cutoff_len=17, packing=True, template="glm4").fates(table)
    assert fates.kept.tolist() == [15, 6], "15 tokens and the end fill the 16 that packing leaves"
    assert fates.num_bins() == 2


def test_pretraining_joins_texts_and_loses_the_last_block():
    mirror = LlamaFactorySFT(stage="pt", cutoff_len=10)
    assert mirror.packs and not mirror.isolates
    fates = mirror.fates(texts([4, 13, 6, 5]))
    # 28 tokens: blocks 0..9 and 10..19, and 8 tokens that are lost
    assert [positions(fates, row) for row in range(4)] == [[*range(4)], [*range(13)], [*range(3)], []]
    assert names(fates) == ["whole", "split", "cut", "dropped"]
    assert fates.bin.tolist() == [0, 0, 1, 1]
    assert fates.kept.sum() == 20


@given(st.lists(st.integers(0, 25), max_size=30), st.integers(2, 12), st.integers(1, 7))
def test_blocks_of_pretraining_are_full_and_hold_their_batch_in_order(lengths, cutoff, batch):
    mirror = LlamaFactorySFT(stage="pt", cutoff_len=cutoff, preprocessing_batch_size=batch)
    fates = mirror.fates(texts(lengths))
    blocks = []
    for first in range(0, len(lengths), batch):
        joined = [
            (row, place) for row in range(first, min(first + batch, len(lengths))) for place in range(lengths[row])
        ]
        blocks += [joined[at : at + cutoff] for at in range(0, len(joined) - cutoff + 1, cutoff)]
    found: dict[int, list[tuple[int, int]]] = {}
    for row, start, length, bin in zip(fates.row, fates.start, fates.length, fates.bin, strict=True):
        found.setdefault(int(bin), []).extend((int(row), int(start) + place) for place in range(length))
    assert [found.get(number, []) for number in range(len(blocks))] == blocks
    assert len(found) == len(blocks)


def test_pretraining_without_packing_cuts_on_the_right():
    mirror = LlamaFactorySFT(stage="pt", cutoff_len=10, packing=False)
    fates = mirror.fates(texts([4, 13]))
    assert (names(fates), fates.kept.tolist(), mirror.packs) == (["whole", "cut"], [4, 10], False)


def test_llama_factory_renders_chats_for_sft_and_text_for_pt():
    assert LlamaFactorySFT().rendering_path("sft", ["messages"]) == "turns"
    assert LlamaFactorySFT(train_on_prompt=True).rendering_path("sft", ["messages"]) == "whole"
    assert LlamaFactorySFT(stage="pt").rendering_path("midtrain", ["text"]) == "text"
    for mirror, columns in ((LlamaFactorySFT(), ["text"]), (LlamaFactorySFT(stage="pt"), ["messages"])):
        with pytest.raises(UserError, match="stage: pt"):
            mirror.rendering_path("midtrain", columns)


def test_both_answers_of_a_pair_get_the_length_of_the_longer_one():
    table = pairs([(10, 40, 5), (40, 5, 6), (4, 5, 6), (10, 12, None)])
    fates = LlamaFactoryDPO(cutoff_len=20).fates(table)
    # rows: the four chosen answers, then the three rejected ones
    assert positions(fates, 0) == [*range(4), *range(10, 26)], "both are cut in proportion"
    assert positions(fates, 4) == [*range(4), *range(10, 15)], "the short answer stays, its prompt is cut all the same"
    assert positions(fates, 1) == [*range(14), *range(40, 45)]
    assert positions(fates, 5) == [*range(14), *range(40, 46)]
    assert names(fates) == ["cut", "cut", "whole", "dropped", "cut", "cut", "whole"]
    assert fates.covers_start().tolist() == [False, False, True, False, False, False, True]
    assert fates.kept_trained.tolist() == [16, 5, 5, 0, 5, 6, 6]
    assert not fates.false_stop.any()
    assert (LlamaFactoryDPO(cutoff_len=20, stage="rm").fates(table).kept == fates.kept).all()
    assert LlamaFactoryDPO(cutoff_len=20).refuses(table)


def test_kto_treats_every_answer_alone():
    table = pairs([(10, 40, 5), (10, 12, None)])
    fates = LlamaFactoryDPO(cutoff_len=20, stage="kto").fates(table)
    kept = [[*range(4), *range(10, 26)], [*range(20)], [*range(15)]]
    assert [positions(fates, row) for row in range(3)] == kept, "the chosen answers, then the rejected one"
    assert LlamaFactoryDPO(stage="kto").refuses(table) == []
