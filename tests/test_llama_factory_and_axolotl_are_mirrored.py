"""The mirrors of LLaMA-Factory and axolotl, which are read and not run: figures of their source, and plain loops that
do to lists of tokens what the source says."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.auditing.fates import FATES, Fates, Runs
from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors.axolotl_dpo import AxolotlDPO
from curation.auditing.mirrors.axolotl_pretrain import AxolotlPretrain, windows
from curation.auditing.mirrors.axolotl_sft import AxolotlSFT
from curation.auditing.mirrors.llama_factory_dpo import LlamaFactoryDPO
from curation.auditing.mirrors.llama_factory_sft import (
    EFFICIENT_EOS,
    LlamaFactorySFT,
    infer_seqlen,
    knapsack,
    turn_pairs,
)  # fmt: skip
from curation.errors import UserError
from curation.measures.pair_anatomy import OF_SIDE, SIDES

ALL = (LlamaFactorySFT, LlamaFactoryDPO, AxolotlSFT, AxolotlDPO, AxolotlPretrain)
Turns = list[tuple[int, int]]  # (source, target) tokens of each turn pair of a row


def anatomy(rows: list[Turns], errors: list[str | None] | None = None) -> pa.Table:
    """Rows of turn pairs as columns of the anatomy measure; every target is trained."""
    starts, lengths, tokens = [], [], []
    for turns in rows:
        ends = np.cumsum([source + target for source, target in turns], dtype=int).tolist()
        starts.append([end - target for end, (_, target) in zip(ends, turns, strict=True)])
        lengths.append([target for _, target in turns])
        tokens.append(ends[-1] if ends else 0)
    kind = pa.list_(pa.int32())
    return pa.table({
        "tokens": pa.array(tokens, pa.int32()), "trained_tokens": pa.array([sum(item) for item in lengths], pa.int32()),
        "mask_starts": pa.array(starts, kind), "mask_lengths": pa.array(lengths, kind),
        "render_error": pa.array(errors or [None] * len(rows), pa.string()),
    })  # fmt: skip


def texts(tokens: list[int]) -> pa.Table:
    """Texts of so many tokens, their end of sequence with them; all are trained."""
    return anatomy([[(0, count)] if count else [] for count in tokens])


def pairs(rows: list[tuple[int, int | None, int | None]]) -> pa.Table:
    """(prompt, chosen, rejected) tokens as columns of the pair anatomy; None: the side is absent."""
    columns: dict[str, pa.Array] = {"render_error": pa.nulls(len(rows), pa.string())}
    for number, side in enumerate(SIDES):
        answers = [row[1 + number] for row in rows]
        columns[f"{side}_present"] = pa.array([answer is not None for answer in answers], pa.bool_())
        values = {"prompt_tokens": [0 if a is None else row[0] for row, a in zip(rows, answers, strict=True)],
                  "tokens": [0 if a is None else row[0] + a for row, a in zip(rows, answers, strict=True)],
                  "trained_tokens": [a or 0 for a in answers]}  # fmt: skip
        for name, kind in OF_SIDE:
            columns[f"{side}_{name}"] = pa.array(values.get(name, [0] * len(rows)), kind)
    return pa.table(columns)


def positions(fates: Fates, row: int) -> list[int]:
    """The source tokens of a row that stay, in order of its pieces."""
    return [start + index for of, start, length in zip(fates.row, fates.start, fates.length, strict=True)
            if of == row for index in range(length)]  # fmt: skip


def names(fates: Fates) -> list[str]:
    return [FATES[code] for code in fates.fate]


def kept_of(source: int, target: int, cutoff: int) -> tuple[int, int]:
    kept = infer_seqlen(np.array([source]), np.array([target]), np.array([cutoff]))
    return int(kept[0][0]), int(kept[1][0])


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


def test_axolotl_drops_long_and_tiny_rows_unless_told_to_cut():
    table = anatomy([[(3, 9)], [(2, 8)], [(0, 1)], [(12, 1)]])
    dropped = AxolotlSFT(sequence_len=10).fates(table)
    assert names(dropped) == ["dropped", "whole", "dropped", "dropped"]
    assert AxolotlSFT(sequence_len=10, excess_length_strategy="drop").fates(table).kept.tolist() == [0, 10, 0, 0]
    cut = AxolotlSFT(sequence_len=10, excess_length_strategy="truncate").fates(table)
    assert names(cut) == ["cut", "whole", "dropped", "cut"]
    assert cut.kept_trained.tolist() == [7, 8, 0, 0], "a row with nothing left to train stays: the filter is a no-op"
    longer = AxolotlSFT(sequence_len=10, min_sample_len=11, excess_length_strategy="truncate")
    assert longer.fates(table).kept.tolist() == [10, 0, 0, 10]
    assert AxolotlSFT().sequence_len == 512


def test_axolotl_stops_at_a_long_row_where_told_to_raise():
    table = anatomy([[(3, 9)], [(2, 8)]])
    mirror = AxolotlSFT(sequence_len=10, excess_length_strategy="raise")
    assert "1 rows are longer" in mirror.refuses(table)[0]
    assert names(mirror.fates(table)) == ["whole", "whole"]
    assert AxolotlSFT(sequence_len=10).refuses(table) == []
    assert AxolotlSFT(sequence_len=12, excess_length_strategy="raise").refuses(table) == []


@pytest.mark.parametrize("option", ["streaming", "skip_prepare_dataset"])
def test_axolotl_neither_cuts_nor_drops_what_it_does_not_prepare(option):
    mirror = AxolotlSFT(sequence_len=10, **{option: True})
    assert names(mirror.fates(anatomy([[(3, 9)], [(0, 1)]]))) == ["whole", "whole"]
    assert AxolotlSFT.option_problems({"excess_length_strategy": "truncate", option: True})


def test_axolotl_packs_whole_rows_and_keeps_them_apart_under_some_attentions_only():
    table = anatomy([[(3, 3)], [(2, 2)], [(3, 7)], [(9, 9)]])
    mirror = AxolotlSFT(sequence_len=10, sample_packing=True)
    fates = mirror.fates(table)
    assert (names(fates), fates.num_bins()) == (["whole", "whole", "whole", "dropped"], 2)
    assert not mirror.isolates
    assert AxolotlSFT(sample_packing=True, flash_attention=True).isolates
    assert AxolotlSFT(sample_packing=True, attn_implementation="sdpa").isolates
    assert not AxolotlSFT(sample_packing=True, attn_implementation="eager").isolates
    assert AxolotlSFT().isolates


def test_axolotls_first_fit_in_shuffled_order_needs_about_as_many_sequences():
    draw = random.Random(0)
    lengths = [min(1000, int(draw.lognormvariate(5, 1)) + 2) for _ in range(2000)]
    mirror = AxolotlSFT(sequence_len=1000, sample_packing=True)
    number = mirror.fates(anatomy([[(0, length)] for length in lengths])).num_bins()
    for seed in range(3):
        order = random.Random(seed).sample(lengths, len(lengths))
        spaces: list[int] = []
        for length in order:
            place = next((index for index, space in enumerate(spaces) if space >= length), None)
            if place is None:
                spaces.append(1000 - length)
            else:
                spaces[place] -= length
        assert abs(len(spaces) - number) <= 0.05 * number


def test_axolotl_renders_chats_and_leaves_text_to_its_other_kinds():
    assert AxolotlSFT().rendering_path("sft", ["messages"]) == "turns"
    assert AxolotlSFT(train_on_inputs=True).rendering_path("sft", ["messages"]) == "whole"
    assert AxolotlPretrain().rendering_path("midtrain", ["text"]) == "text"
    with pytest.raises(UserError, match="axolotl_pretrain"):
        AxolotlSFT().rendering_path("midtrain", ["text"])
    with pytest.raises(UserError, match="axolotl_sft"):
        AxolotlPretrain().rendering_path("midtrain", ["messages"])


def test_axolotl_drops_pairs_with_a_long_side_and_with_truncate_cuts_each_side_alone():
    table = pairs([(4, 6, 7), (4, 6, 3), (10, 2, 2), (4, 20, 20)])
    drop = AxolotlDPO(sequence_len=10).fates(table)
    assert names(drop) == ["dropped", "whole", "dropped", "dropped"] * 2
    cut = AxolotlDPO(sequence_len=10, excess_length_strategy="truncate").fates(table)
    assert names(cut) == ["whole", "whole", "dropped", "cut", "cut", "whole", "dropped", "cut"]
    assert cut.kept.tolist() == [10, 10, 0, 10, 10, 7, 0, 10]
    assert cut.kept_trained.tolist() == [6, 6, 0, 6, 6, 3, 0, 6]
    assert "3 rows are longer" in AxolotlDPO(sequence_len=10, excess_length_strategy="raise").refuses(table)[0]


def test_axolotls_kto_drops_one_answer_without_the_other():
    table = pairs([(4, 6, 7), (4, 9, None)])
    assert names(AxolotlDPO(sequence_len=10, rl="kto").fates(table)) == ["whole", "dropped", "dropped"]
    assert AxolotlDPO(rl="kto").refuses(table) == []
    assert "lack their chosen or rejected" in AxolotlDPO(sequence_len=100).refuses(table)[0]


@pytest.mark.parametrize("limit", [4, 5, 16, 33, 600])
def test_windows_of_pretraining_are_those_of_the_tokenizers_overflow(limit):
    """Against the library that axolotl calls: truncation with a stride, and every overflowing part."""
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(n): n for n in range(3000)}, unk_token="0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.enable_truncation(limit - 1, stride=min(256, (limit - 2) // 2))
    counts = [1, 2, limit - 2, limit - 1, limit, limit + 1, 2 * limit, 3 * limit - 1, 1777]
    row, start, length = windows(np.array(counts) + 1, limit)
    for number, count in enumerate(counts):
        made = backend.encode(" ".join(str(place) for place in range(count)))
        found = [list(range(first, first + size)) for of, first, size in zip(row, start, length, strict=True)
                 if of == number]  # fmt: skip
        assert [*found[:-1], found[-1][:-1]] == [part.ids for part in (made, *made.overflowing)]
        assert found[-1][-1] == count, "the last window takes the end of sequence"


def test_pretraining_windows_overlap_and_all_but_the_last_end_where_the_text_does_not():
    mirror = AxolotlPretrain(sequence_len=10, sample_packing=True)
    fates = mirror.fates(texts([6, 10, 20]))
    assert [positions(fates, row) for row in range(2)] == [[*range(6)], [*range(10)]]
    assert fates.start[fates.row == 2].tolist() == [0, 5, 10]
    assert fates.length[fates.row == 2].tolist() == [9, 9, 10]
    assert fates.false_stop.tolist() == [False, False, True]
    assert names(fates) == ["whole", "whole", "split"]
    assert fates.kept[2] == 28 and fates.kept_trained[2] == 28, "8 of 20 tokens are trained twice"
    assert fates.covers_start().all()
    assert mirror.packs and mirror.isolates
    assert not AxolotlPretrain(sample_packing=True, pretrain_multipack_attn=False).isolates


def test_an_overlap_is_never_longer_than_256():
    _, start, length = windows(np.array([5001]), 2048)
    assert (start[1:] - start[:-1] == 2047 - 256).all()
    assert length.tolist() == [2047, 2047, 5001 - 2 * 1791]


def test_pretraining_without_packing_loses_the_rest_of_a_text():
    plain = AxolotlPretrain(sequence_len=10).fates(texts([6, 9, 10, 30]))
    assert plain.kept.tolist() == [5, 8, 8, 8], "no end of sequence is added"
    assert not plain.false_stop.any()
    joined = AxolotlPretrain(sequence_len=10, pretraining_sample_concatenation=True)
    fates = joined.fates(texts([6, 9, 10, 30, 3, 3]))
    assert fates.kept.tolist() == [6, 9, 8, 8, 3, 3]
    assert fates.false_stop.tolist() == [False, False, True, True, False, False]
    assert fates.bin.tolist() == [0, 1, 2, 3, 4, 4], "a pad follows each end"
    assert joined.packs and not joined.isolates


def test_completion_texts_are_cut_into_blocks_whose_last_alone_ends():
    mirror = AxolotlPretrain(type="completion", sequence_len=10)
    fates = mirror.fates(texts([10, 25, 21, 700]))
    assert fates.length[fates.row == 1].tolist() == [10, 10, 5]
    assert names(fates) == ["whole", "split", "split", "split"]
    assert fates.kept.tolist() == [10, 25, 20, 640], "a block of one token is dropped, and all beyond 64 blocks"
    assert not fates.false_stop.any() and fates.num_bins() is None
    packed = mirror.model_copy(update={"sample_packing": True})
    assert packed.fates(texts([10, 25, 5])).num_bins() == 4 and not packed.isolates


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_mirror_says_that_it_was_read_and_takes_other_lengths(cls: type[Mirror]):
    assert cls.read_not_run.startswith(
        ("read in LLaMA-Factory 0.9.6.dev0 @ff6d4d1;", "read in axolotl 0.18.0 @067b021;")
    )
    mirror = cls()
    assert mirror.at(64).context_length == 64
    table = pairs([]) if cls.stages == ("preference",) else anatomy([])
    assert len(mirror.fates(table).fate) == 0
    assert mirror.refuses(table) == []


@pytest.mark.parametrize(("cls", "name"), [
    (LlamaFactorySFT, "max_source_length"), (LlamaFactorySFT, "reserved_label_len"), (LlamaFactoryDPO, "packing"),
    (AxolotlSFT, "max_packed_sequence_len"), (AxolotlDPO, "rpo_alpha"), (AxolotlPretrain, "max_packed_sequence_len"),
])  # fmt: skip
def test_options_of_the_past_are_told(cls, name):
    problems = cls.option_problems({name: 1})
    assert [problem.key for problem in problems] == [f"trainer.{name}"]
    assert "dead" in problems[0].what


def test_options_that_llama_factory_refuses_together_are_told():
    found = LlamaFactorySFT.option_problems({"mask_history": True, "train_on_prompt": True})
    assert "refuses mask_history together with train_on_prompt" in found[0].what
    assert LlamaFactorySFT.option_problems({"stage": "pt", "neat_packing": True})[0].key == "trainer.neat_packing"
    assert AxolotlSFT.option_problems({"roles_to_train": ["user"]})[0].key == "trainer.roles_to_train"
    assert AxolotlSFT.option_problems({"roles_to_train": ["assistant"], "train_on_eos": "turn"}) == []


def test_rendered_conversations_are_cut_where_their_turns_lie(tiny_model):
    """The same figures over rows that are really rendered, with the shipped ChatML template."""
    from curation import schema
    from curation.measures.anatomy import anatomy_for

    said = (("user", "What is 1 plus 2?" * 9), ("assistant", "3"), ("user", "And 2 plus 2?"), ("assistant", "4"))
    talk = [{"role": role, "content": text} for role, text in said]
    rows = pa.table({"messages": pa.array([talk, talk[:2]], schema.MESSAGES), "tools": pa.nulls(2, pa.string())})
    mirror = LlamaFactorySFT(cutoff_len=40)
    measure = anatomy_for(None, str(tiny_model), "tokenizer", mirror.rendering_path("sft", ["messages"]), {})
    table = measure.measure(rows, "sft")
    fates = mirror.fates(table)
    ids = measure.rendering.render_many(rows.to_pylist(), "sft")[0].ids
    kept = measure.rendering.tokenizer.hf.decode(ids[positions(fates, 0)])
    assert fates.kept.tolist() == [40, 40]
    assert kept.startswith("<|im_start|>user\nWhat is 1") and kept.rstrip().endswith("3<|im_end|>")
    assert "<|im_start|>assistant" not in kept, "the header of the answer is cut off with the end of the question"
    assert not fates.covers_start().any()
