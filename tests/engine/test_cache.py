"""Keys and values per layer, against plain lists of tensors."""

from __future__ import annotations

import pytest
import torch

from seats_cli.engine.cache import RaggedCache

HEADS, DIM = 2, 4


def tokens(n: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    key, value = torch.randn(2, 1, HEADS, n, DIM, generator=generator).to(dtype)
    return key, value


def test_empty() -> None:
    cache = RaggedCache(3)
    assert cache.lengths == (0, 0, 0)
    assert cache.n_bytes == 0
    cache.keep(1, torch.tensor([], dtype=torch.long))
    assert cache.lengths == (0, 0, 0)


@pytest.mark.parametrize("spare", [0, 1, 3, 100])
def test_grows_like_a_list(spare: int) -> None:
    cache = RaggedCache(2, spare)
    held: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {0: [], 1: []}
    steps = [(0, 7), (1, 3), (0, 1), (1, 1), (0, 1), (0, 5), (1, 1), (0, 1), (0, 1), (1, 20)]
    for seed, (layer, n) in enumerate(steps):
        key, value = tokens(n, seed)
        held[layer].append((key, value))
        got = cache.update(key, value, layer, {"cache_position": None}, anything=1)
        expected = (torch.cat(parts, dim=2) for parts in zip(*held[layer], strict=True))
        for one, other in zip(got, expected, strict=True):
            assert torch.equal(one, other)
    assert cache.lengths == (16, 25)
    assert cache.n_bytes == (16 + 25) * HEADS * DIM * 4 * 2


def test_bytes_count_what_is_held_and_its_precision() -> None:
    cache = RaggedCache(2, spare=50)
    cache.update(*tokens(6, 0, torch.bfloat16), 1)
    assert cache.n_bytes == 6 * HEADS * DIM * 2 * 2


def test_no_copy_while_there_is_room() -> None:
    cache = RaggedCache(1, spare=4)
    cache.update(*tokens(5, 0), 0)
    places = set()
    for step in range(4):
        key, _ = cache.update(*tokens(1, step + 1), 0)
        places.add(key.data_ptr())
    assert len(places) == 1
    key, _ = cache.update(*tokens(1, 9), 0)
    assert key.data_ptr() not in places
    assert key.shape[2] == 10


def test_what_was_given_is_not_shared() -> None:
    cache = RaggedCache(1, spare=1)
    key, value = tokens(3, 0)
    cache.update(key, value, 0)
    kept = key.clone()
    key.zero_()
    got, _ = cache.update(*tokens(1, 1), 0)
    assert torch.equal(got[:, :, :3], kept)


@pytest.mark.parametrize("rows", [[0, 2, 5], [], [6], [0, 1, 2, 3, 4, 5, 6]])
def test_keep(rows: list[int]) -> None:
    cache = RaggedCache(2, spare=2)
    key, value = tokens(5, 0)
    more_key, more_value = tokens(2, 1)
    cache.update(key, value, 0)
    cache.update(more_key, more_value, 0)
    cache.update(*tokens(4, 2), 1)
    cache.keep(0, torch.tensor(rows, dtype=torch.long))
    assert cache.lengths == (len(rows), 4)
    one_key, one_value = tokens(1, 3)
    got_key, got_value = cache.update(one_key, one_value, 0)
    for got, parts, one in ((got_key, (key, more_key), one_key), (got_value, (value, more_value), one_value)):
        assert torch.equal(got, torch.cat([torch.cat(parts, dim=2)[:, :, rows], one], dim=2))


@pytest.mark.parametrize("spare", [0, 3, 40])
@pytest.mark.parametrize(("n", "multiple"), [(1, 1), (3, 1), (5, 16), (41, 8)])
def test_reserved_room_is_written_from_outside(spare: int, n: int, multiple: int) -> None:
    """Zeroed, of the size asked for, and what is noted there is held like the rest."""
    cache = RaggedCache(2, spare)
    held = [tokens(5, 0), tokens(2, 1)]
    for layer, (key, value) in enumerate(held):
        cache.update(key, value, layer)
    cache.reserve(n, multiple)
    assert cache.room >= n
    assert cache.lengths == (5, 2)
    for layer, (key, value) in enumerate(held):
        for buffer, given in zip(cache.buffers(layer), (key, value), strict=True):
            length = given.shape[2]
            assert buffer.shape[1] % multiple == 0
            assert torch.equal(buffer[:, :length], given[0])
            assert not buffer[:, length:].any()
            buffer[:, length] = 7.0
    cache.note(1)
    assert cache.lengths == (6, 3)
    key, _ = cache.update(*tokens(1, 5), 1)
    assert (key[:, :, 2] == 7).all()
    cache.note(-2)
    assert cache.lengths == (4, 2)


def test_nothing_moves_where_there_is_room() -> None:
    cache = RaggedCache(1, 8)
    cache.update(*tokens(8, 0), 0)
    before = cache.buffers(0)[0].data_ptr()
    cache.reserve(8, 16)
    assert cache.buffers(0)[0].data_ptr() == before


def test_an_empty_layer_has_no_buffers() -> None:
    cache = RaggedCache(1)
    cache.reserve(4)
    assert cache.room == 0
    with pytest.raises(ValueError, match="layer 0 holds nothing"):
        cache.buffers(0)
