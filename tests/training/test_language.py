"""The forward of training is the model that answers later; its steps learn, and go on as if never stopped."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from seats_cli.config import MediaOptions, SelectionOptions
from seats_cli.engine.pipeline import Settings, Stopwatch, prepare, read_prompt
from seats_cli.layout import Modality
from seats_cli.media import open_clip
from seats_cli.training import language
from seats_cli.training.labels import IGNORED
from seats_cli.training.language import forward, new_story_heads, train, validate
from seats_cli.training.model import HIDDEN_SIZE, LOOK_LAYERS, N_LAYERS, STORY_LAYER
from seats_cli.training.referents import ANSWER, NAME
from seats_cli.training.sequences import HEARD, SEEN, Prompts, choose_questions, collate, make_sequence
from seats_cli.training.towers import parts_of
from seats_cli.world.clips import write_scene
from seats_cli.world.questions import FAMILIES


def questions_of(scene, n: int, families=tuple(FAMILIES)):
    return choose_questions(scene, families, n, np.random.default_rng(3))


@pytest.fixture(scope="module")
def prompts(loaded) -> Prompts:
    return Prompts(loaded.model)


@torch.no_grad()
def stock(model: Any, made: Any, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of one question's tokens, and the states after the story layer, from transformers' own causal model.

    One sequence: the clip, then this question.
    """
    core, _, _ = parts_of(model.thinker)
    mine = made.block == number
    ids = torch.cat([torch.from_numpy(made.layout.ids), made.ids[mine]])[None]
    hidden = core.embed_tokens(ids)
    rows = torch.from_numpy(np.flatnonzero(made.layout.modality))
    is_media = torch.zeros(ids.shape[1], dtype=torch.bool)
    is_media[rows] = True
    hidden[0, is_media] = made.embeddings
    positions = torch.cat([torch.from_numpy(made.layout.positions), made.positions[mine].expand(3, -1)], 1)
    out = core(inputs_embeds=hidden, position_ids=positions[:, None], use_cache=False, output_hidden_states=True)
    states = out.hidden_states[STORY_LAYER + 1][0, : made.layout.n_tokens]
    return model.thinker.lm_head(out.last_hidden_state)[0, made.layout.n_tokens :], states


def close(one: torch.Tensor, other: torch.Tensor, part: float) -> None:
    assert one.shape == other.shape
    assert (one - other).abs().max() <= part * other.abs().max()


def test_the_media_rows_are_those_that_are_no_text(features, prompts):
    made = make_sequence(features[0], questions_of(features[0].scene, 1), prompts)
    assert np.count_nonzero(made.layout.modality) == len(made.embeddings)


@pytest.mark.parametrize(("see", "hear"), [(True, True), (True, False), (False, True)])
def test_many_questions_in_a_batch_are_each_alone_to_transformers(loaded, features, prompts, see, hear):
    families = tuple(FAMILIES) if see and hear else SEEN if see else HEARD
    made = [
        make_sequence(clip, questions_of(clip.scene, n, families), prompts, see=see, hear=hear)
        for clip, n in zip(features, (3, 1, 4), strict=False)
    ]
    batch = collate(made)
    with torch.no_grad():
        out = forward(loaded.model, batch)
    logits, story = out.logits, out.story
    assert story.shape == (3, batch.clip_ids.shape[1], HIDDEN_SIZE)
    for i, one in enumerate(made):
        for number in range(len(one.questions)):
            wanted, states = stock(loaded.model, one, number)
            close(logits[i][batch.block[i] == number], wanted, 1e-4)
            close(story[i, : one.layout.n_tokens], states, 1e-4)


def test_a_question_does_not_know_of_the_others(loaded, features, prompts):
    clip = features[3]
    questions = questions_of(clip.scene, 5)
    with torch.no_grad():
        batch = collate([make_sequence(clip, questions, prompts)])
        together = forward(loaded.model, batch).logits[0]
        for number, question in enumerate(questions):
            alone = forward(loaded.model, collate([make_sequence(clip, (question,), prompts)])).logits[0]
            close(together[batch.block[0] == number], alone, 1e-5)


def test_the_engine_reads_a_clip_as_training_did(loaded, features, prompts, pool, tmp_path):
    """From the file to the first logits: the same ids and positions, and nearly the same logits.

    Nearly, because training keeps spectrograms and encoded tokens in half precision.
    """
    options = MediaOptions(min_pixels=36 * 784, max_pixels=72 * 784)
    settings = Settings(media=options, selection=SelectionOptions(method="full"))
    for index in (0, 1):
        scene, quality = pool.spec.scene(index)
        write_scene(tmp_path / "clip.mp4", scene, quality)
        clip = open_clip(tmp_path / "clip.mp4", options)
        (question,) = questions_of(scene, 1)
        made = make_sequence(features[index], (question,), prompts)
        batch = collate([made])
        with torch.inference_mode():
            watch = Stopwatch(loaded.model.devices)
            prepared = prepare(loaded, clip, question.text, settings, watch)
            engine = read_prompt(loaded, prepared, settings.selection, watch).prefill.logits
            trained = forward(loaded.model, batch).logits[0]
        first = int((made.targets != IGNORED).nonzero()[0, 0])
        asked = made.ids[: first + 1]
        layout = prepared.layout
        assert layout.ids.tolist() == [*made.layout.ids.tolist(), *asked.tolist()]
        positions = np.concatenate([made.layout.positions, made.positions[: first + 1].expand(3, -1).numpy()], 1)
        assert layout.positions.tolist() == positions.tolist()
        close(trained[first], engine.flatten(), 0.02)


def attention_on_the_clip(model: Any, made: Any, look: Any, layer: int) -> torch.Tensor:
    """What transformers' own attention of a look's token gives each of the clip's tokens: [2, C], eager."""
    core, _, _ = parts_of(model.thinker)
    mine = made.block == int(made.block[look.token])
    ids = torch.cat([torch.from_numpy(made.layout.ids), made.ids[mine]])[None]
    hidden = core.embed_tokens(ids)
    hidden[0, : made.layout.n_tokens][torch.from_numpy(made.layout.modality != Modality.TEXT)] = made.embeddings
    positions = torch.cat([torch.from_numpy(made.layout.positions), made.positions[mine].expand(3, -1)], 1)
    kept = core.config._attn_implementation
    core.config._attn_implementation = "eager"
    try:
        out = core(inputs_embeds=hidden, position_ids=positions[:, None], use_cache=False, output_attentions=True)
    finally:
        core.config._attn_implementation = kept
    row = made.layout.n_tokens + look.token - int(mine.nonzero()[0])
    weights = out.attentions[layer][0, :2, row, : made.layout.n_tokens]
    return weights / weights.sum(-1, keepdim=True)


@torch.no_grad()
def test_a_look_is_the_models_own_attention_on_what_it_should_find(loaded, features, prompts):
    made = [make_sequence(clip, questions_of(clip.scene, 4), prompts) for clip in features[:3]]
    batch = collate(made)
    out, looks = forward(loaded.model, batch), batch.looks
    assert set(looks.kind.tolist()) == {NAME, ANSWER}
    for kind, shares in zip((NAME, ANSWER), out.share_found, strict=True):
        wanted = (looks.kind == kind).nonzero().flatten()
        assert shares.shape == (2, len(wanted))
        for place, number in list(enumerate(wanted))[::3]:
            one = made[int(looks.clip[number])]
            (look,) = (x for x in one.looks if (x.token, x.kind) == (int(looks.token[number]), kind))
            weights = attention_on_the_clip(loaded.model, one, look, LOOK_LAYERS[kind])
            found = looks.found[number, : one.layout.n_tokens]
            close(shares[:, place].exp(), weights[:, found].sum(-1), 1e-3)
    named = looks.kind == NAME
    assert all((labels[~named] == IGNORED).all() for labels in looks.labels.values())
    assert all((looks.found.sum(1) > 0).tolist())


class Learner:
    """A model of its own to train, the same every time."""

    def __init__(self, loaded: Any) -> None:
        thinker = copy.deepcopy(loaded.model.thinker)
        self.model = type(loaded.model)(thinker, loaded.model.processor, loaded.model.spec)
        torch.manual_seed(4)
        self.heads = new_story_heads(HIDDEN_SIZE)

    def state(self) -> dict[str, torch.Tensor]:
        both = {**self.model.thinker.state_dict(), **{f"heads.{k}": v for k, v in self.heads.state_dict().items()}}
        return {name: value.detach().clone() for name, value in both.items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        heads = {name.removeprefix("heads."): value for name, value in state.items() if name.startswith("heads.")}
        self.heads.load_state_dict(heads)
        self.model.thinker.load_state_dict({k: v for k, v in state.items() if not k.startswith("heads.")})

    def train(self, pool, **more) -> int:
        small = {"n_tokens": 700, "n_questions": 4, "peak_rate": 0.02, "log": lambda _: None}
        return train(self.model, self.heads, pool, pool[:2], **(small | more))

    @torch.no_grad()
    def loss(self, pool) -> float:
        prompts = Prompts(self.model)
        batch = collate([make_sequence(clip, questions_of(clip.scene, 6), prompts) for clip in pool])
        return float(language.losses(self.model, self.heads, batch)[0])


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_two_steps_lower_the_loss_and_touch_no_encoder(loaded, features):
    learner = Learner(loaded)
    before, loss = learner.state(), learner.loss(features)
    assert learner.train(features, n_steps=2) == 2
    assert learner.loss(features) < loss
    after = learner.state()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    encoders = {name for name in after if "visual." in name or "audio_tower." in name}
    assert not encoders & changed
    decoder = [name for name in after if "layers." in name and name not in encoders]
    assert len({name.split("layers.")[1].split(".")[0] for name in decoder}) == N_LAYERS
    assert {*decoder, "lm_head.weight", "heads.story.linear.weight", "heads.named.linear.weight"} <= changed


def test_going_on_gives_the_same_bits_as_never_having_stopped(loaded, features):
    whole, saved = Learner(loaded), {}

    def save(step: int, optimizer: dict[str, Any]) -> None:
        saved.setdefault(step, (whole.state(), copy.deepcopy(optimizer)))

    whole.train(features, n_steps=4, validate_every=2, save=save)
    assert set(saved) == {2, 4}
    resumed = Learner(loaded)
    resumed.restore(saved[2][0])
    assert resumed.train(features, n_steps=4, first_step=2, optimizer_state=saved[2][1]) == 4
    assert_same(resumed.state(), whole.state())


def test_it_stops_when_it_is_told_to(loaded, features):
    learner, saved = Learner(loaded), []
    before = learner.state()
    known = {"n_steps": 9, "first_step": 3, "save": lambda step, _: saved.append(step)}
    step = learner.train(features, stop=lambda: True, **known)
    assert (step, saved) == (3, [3])
    assert_same(learner.state(), before)


def test_a_question_counts_as_right_if_every_token_of_its_answer_is_the_likeliest(
    loaded, features, prompts, monkeypatch
):
    def knows_every_other_answer(model: Any, batch: Any) -> language.Forwarded:
        """Says every answer but the last token of each second question's."""
        said = batch.targets.clamp(min=0).clone()
        for row, blocks in zip(said, batch.block, strict=True):
            for number in range(1, int(blocks.max()) + 1, 2):
                row[(blocks == number).nonzero()[-1]] += 1
        logits = functional.one_hot(said, model.thinker.lm_head.out_features).float()
        return language.Forwarded(logits, torch.zeros(()), torch.zeros(()), ())

    monkeypatch.setattr(language, "forward", knows_every_other_answer)
    scores = validate(loaded.model, features[:1], prompts, n_questions=5)
    questions = choose_questions(features[0].scene, tuple(FAMILIES), 5, np.random.default_rng(0))
    right = {question.category: float(number % 2 == 0) for number, question in enumerate(questions)}
    assert len(right) == 5
    assert scores == {"all": pytest.approx(0.6), **right}
