"""The first stage: encoders that learn what tokens show, and go on as if never stopped."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from seats_cli.training.labels import AUDIO_HEADS, IGNORED, VIDEO_HEADS
from seats_cli.training.model import HIDDEN_SIZE, new_thinker
from seats_cli.training.towers import encode_chunks, encode_grids, parts_of, to_patches
from seats_cli.training.warmup import Heads, learning_rate, new_heads, read_pieces, warm_up

SMALL = {"counts": (6, 3), "log": lambda _: None}


@pytest.fixture(scope="module")
def pieces(pool):
    return read_pieces([(pool.spec, pool.folder)])


class Learner:
    """Encoders and heads, the same every time."""

    def __init__(self, words) -> None:
        self.thinker = new_thinker(words, seed=2)
        torch.manual_seed(4)
        self.heads = new_heads(HIDDEN_SIZE)

    def state(self) -> dict[str, torch.Tensor]:
        both = {**self.thinker.state_dict(), **{f"heads.{k}": v for k, v in self.heads.state_dict().items()}}
        return {name: value.detach().clone() for name, value in both.items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        heads = {name.removeprefix("heads."): value for name, value in state.items() if name.startswith("heads.")}
        self.heads.load_state_dict(heads)
        self.thinker.load_state_dict({k: v for k, v in state.items() if not k.startswith("heads.")})

    @torch.no_grad()
    def loss(self, pieces) -> float:
        _, vision, audio = parts_of(self.thinker)
        total = 0.0
        for (rows, columns), grids in pieces[0].items():
            tokens = encode_grids(vision, to_patches(grids.data), rows * 2, columns * 2)
            labels = {name: value.flatten() for name, value in grids.labels.items()}
            total += float(self.heads["video"].losses(tokens.flatten(0, 1), labels)[0])
        tokens = encode_chunks(audio, pieces[1].data)
        labels = {name: value.flatten() for name, value in pieces[1].labels.items()}
        return total + float(self.heads["audio"].losses(tokens.flatten(0, 1), labels)[0])


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_pieces_are_every_grid_and_every_whole_chunk_with_a_label_per_token(pool, pieces):
    grids, chunks = pieces
    lengths = [pool.spec.scene(index)[0].seconds for index in range(pool.spec.n_clips)]
    assert sum(len(piece.data) for piece in grids.values()) == sum(lengths)
    assert len(chunks.data) == sum(length // 2 for length in lengths)
    assert chunks.data.shape[1:] == (128, 200)
    for (rows, columns), piece in grids.items():
        assert piece.data.shape[1:] == (2, rows * 28, columns * 28, 3)
        assert {name: value.shape for name, value in piece.labels.items()} == dict.fromkeys(
            VIDEO_HEADS, (len(piece.data), rows * columns)
        )
    assert {name: value.shape for name, value in chunks.labels.items()} == dict.fromkeys(
        AUDIO_HEADS, (len(chunks.data), 50)
    )
    for piece, key in [*((piece, "shape") for piece in grids.values()), (chunks, "sound")]:
        assert sorted([*piece.busy.tolist(), *piece.idle.tolist()]) == list(range(len(piece.data)))
        assert all((piece.labels[key][number] > 0).any() for number in piece.busy)
        assert not any((piece.labels[key][number] > 0).any() for number in piece.idle)


def test_a_draw_has_mostly_pieces_with_something_in_them(pieces):
    chunks = pieces[1]
    data, labels = chunks.draw(20, np.random.default_rng(0))
    assert data.shape == (20, 128, 200)
    busy = (labels["sound"].view(20, 50) > 0).any(1)
    assert 17 <= int(busy.sum()) <= 20
    assert {name: value.shape for name, value in labels.items()} == dict.fromkeys(AUDIO_HEADS, (1000,))


def test_a_step_lowers_the_loss_and_touches_no_language_model(words, pieces):
    learner = Learner(words)
    before, loss = learner.state(), learner.loss(pieces)
    assert warm_up(learner.thinker, learner.heads, pieces, 1, peak_rate=0.1, **SMALL) == 1
    assert learner.loss(pieces) < loss
    changed = {name for name, value in learner.state().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("visual." in name or "audio_tower." in name or name.startswith("heads.") for name in changed)


def test_going_on_gives_the_same_bits_as_never_having_stopped(words, pieces):
    whole = Learner(words)
    warm_up(whole.thinker, whole.heads, pieces, 4, **SMALL)
    first, saved = Learner(words), {}

    def save(step: int, optimizer) -> None:
        saved[step] = (first.state(), copy.deepcopy(optimizer))

    # The learning rate of these steps does not depend on how many are planned.
    assert warm_up(first.thinker, first.heads, pieces, 2, save=save, **SMALL) == 2
    second = Learner(words)
    second.restore(saved[2][0])
    assert (
        warm_up(second.thinker, second.heads, pieces, 4, first_step=2, optimizer_state=saved[2][1], **SMALL) == 4
    )
    assert_same(second.state(), whole.state())


def test_it_stops_when_it_is_told_to(words, pieces):
    learner, saved = Learner(words), []
    step = warm_up(
        learner.thinker,
        learner.heads,
        pieces,
        9,
        stop=lambda: True,
        first_step=3,
        save=lambda step, _: saved.append(step),
        **SMALL,
    )
    assert (step, saved) == (3, [3])


def test_the_learning_rate_rises_then_falls_to_a_twentieth():
    rates = [learning_rate(step, 1000, 2.0) for step in range(1000)]
    assert all(a < b for a, b in pairwise(rates[:100]))
    assert all(a >= b for a, b in pairwise(rates[100:]))
    assert max(rates) == pytest.approx(2.0)
    assert learning_rate(1000, 1000, 2.0) == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.02)


def test_heads_weigh_nothing_less_and_leave_out_what_is_not_asked():
    heads = Heads(3, {"a": 2, "b": 4})
    hidden = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labels = {"a": torch.tensor([0, 1, IGNORED, 1, 0]), "b": torch.full((5,), IGNORED)}
    total, right = heads.losses(hidden, labels)
    logits = heads.linear(hidden)[:, :2].log_softmax(-1).detach()
    weights = [0.15, 1.0, 1.0, 0.15]
    terms = [-float(logits[row, label]) for row, label in ((0, 0), (1, 1), (3, 1), (4, 0))]
    expected = math.fsum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
    picks = logits.argmax(-1)
    assert right == {"a": pytest.approx(float((picks[[1, 3]] == 1).float().mean()))}
