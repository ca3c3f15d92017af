import torch

from nrt_lightning.functional import pad_rows, pad_to_widest


def test_rows_end_or_begin_together():
    rows = [torch.tensor([5, 6, 7]), torch.tensor([8]), torch.tensor([], dtype=torch.long)]
    ids, mask = pad_rows(rows, value=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[True, True, True], [True, False, False], [False, False, False]]
    ids, mask = pad_rows(rows, left=True)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8], [0, 0, 0]]
    assert [row[kept].tolist() for row, kept in zip(ids, mask)] == [row.tolist() for row in rows]


def test_the_width_has_a_lower_bound():
    empty = torch.zeros(0, dtype=torch.long)
    assert [tensor.shape for tensor in pad_rows([empty, empty], min_width=1)] == [(2, 1), (2, 1)]
    assert pad_rows([empty])[0].shape == (1, 0)


def test_the_last_dimension_alone_is_padded_and_dtypes_stay():
    flags, more = pad_to_widest([torch.ones(2, 1, dtype=torch.bool), torch.ones(3, 2, dtype=torch.bool)])
    assert (flags.shape, more.shape, flags.dtype) == ((2, 2), (3, 2), torch.bool)
