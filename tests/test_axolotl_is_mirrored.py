"""axolotl as its source was read: drops, cuts, packing, pairs, windows and blocks of pretraining."""

from __future__ import annotations

import random

import numpy as np
import pytest

from curation.auditing.mirrors.axolotl_dpo import AxolotlDPO
from curation.auditing.mirrors.axolotl_pretrain import AxolotlPretrain, windows
from curation.auditing.mirrors.axolotl_sft import AxolotlSFT
from curation.errors import UserError
from tests.made_anatomy import anatomy, names, pairs, positions, texts


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
