"""One clip and its questions as a training sequence: what the engine would read for each question alone."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from seats_cli.layout import Modality
from seats_cli.training.labels import IGNORED, STORY_HEADS, sounds_in_tokens, story_labels, things_in_tokens
from seats_cli.training.referents import ANSWER, NAME
from seats_cli.training.sequences import HEARD, SEEN, Prompts, choose_questions, collate, make_sequence
from seats_cli.world.questions import FAMILIES, all_questions
from seats_cli.world.scene import SOUNDS
from tests.world.drawn import scenes


@pytest.fixture(scope="module")
def prompts(loaded) -> Prompts:
    return Prompts(loaded.model)


def questions_of(scene, n: int = 4, families=tuple(FAMILIES)):
    return choose_questions(scene, families, n, np.random.default_rng(3))


def test_questions_are_of_as_many_families_as_there_can_be():
    for scene in scenes(40):
        every = all_questions(scene)
        families = {question.category for question in every}
        chosen = questions_of(scene, 9)
        assert len(chosen) == len(set(chosen)) == min(9, len(every))
        assert set(chosen) <= set(every)
        assert len({question.category for question in chosen}) == min(9, len(families))
        heard = questions_of(scene, 50, HEARD)
        assert {question.category for question in heard} <= set(HEARD)
        assert len(heard) == sum(question.category in HEARD for question in every)


def test_families_that_need_one_half_ask_of_nothing_else():
    assert set(HEARD) | set(SEEN) <= set(FAMILIES)
    for scene in scenes(60):
        things, sounds = (
            {word for thing in scene.things for word in (thing.shape, thing.colour)},
            {sound.kind for sound in scene.sounds},
        )
        for question in all_questions(scene):
            words = f"{question.text} {question.answer}"
            if question.category in HEARD:
                assert not things & set(words.strip("?.").replace("?", "").split())
            elif question.category in SEEN:
                assert not any(kind in words for kind in sounds)


def test_a_row_is_prompt_question_and_answer(loaded, features, prompts):
    tokenizer = loaded.model.tokenizer
    clip = features[0]
    questions = questions_of(clip.scene)
    made = make_sequence(clip, questions, prompts)
    for number, question in enumerate(questions):
        mine = made.block == number
        before, after = loaded.model.prompt(question.text, None, "video")
        answer = [*tokenizer(question.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        # The marker that closes the clip belongs to the clip: it is the same for every question.
        assert made.layout.ids[: len(before)].tolist() == list(before)
        assert made.layout.ids[-1] == after[0]
        assert made.ids[mine].tolist() == [*after[1:], *answer[:-1]]
        first = int(made.layout.next_position)
        assert made.positions[mine].tolist() == list(range(first, first + int(mine.sum())))
        asked = made.targets[mine] != IGNORED
        assert made.targets[mine][asked].tolist() == answer
        assert made.ids[mine][1:][asked[:-1]].tolist() == answer[:-1]
        assert tokenizer.decode(made.targets[mine][asked][:-1]) == question.answer


@pytest.mark.parametrize(("see", "hear"), [(True, True), (True, False), (False, True)])
def test_tokens_lie_where_their_modality_is(features, prompts, see, hear):
    clip = features[1]
    families = tuple(FAMILIES) if see and hear else SEEN if see else HEARD
    made = make_sequence(clip, questions_of(clip.scene, 3, families), prompts, see=see, hear=hear)
    seen, heard = made.layout.rows(Modality.VIDEO), made.layout.rows(Modality.AUDIO)
    assert (len(seen), len(heard)) == (see * len(clip.video), hear * len(clip.audio))
    order = np.sort(np.concatenate([seen, heard]))
    vectors = dict(zip(seen, clip.video.float(), strict=True)) if see else {}
    vectors |= dict(zip(heard, clip.audio.float(), strict=True)) if hear else {}
    assert torch.equal(made.embeddings, torch.stack([vectors[row] for row in order]))


def test_the_story_is_told_where_it_can_be_known(features, prompts):
    clip = features[2]
    questions = questions_of(clip.scene)
    made = make_sequence(clip, questions, prompts)
    things, sounds = things_in_tokens(clip.scene), sounds_in_tokens(clip.scene, len(clip.audio))
    of_video, of_audio = story_labels(clip.scene, things, sounds)
    assert set(made.story) == set(STORY_HEADS)
    assert set(of_video) | set(of_audio) == set(STORY_HEADS)
    for labels, modality in ((of_video, Modality.VIDEO), (of_audio, Modality.AUDIO)):
        rows = made.layout.rows(modality)
        for name, values in labels.items():
            assert made.story[name][rows].tolist() == values.tolist()
            elsewhere = np.delete(made.story[name].numpy(), rows)
            assert set(elsewhere.tolist()) == {IGNORED}
    untold = make_sequence(clip, questions, prompts, story=False)
    assert (untold.story, untold.looks) == ({}, ())
    deaf = make_sequence(clip, questions_of(clip.scene, 3, SEEN), prompts, hear=False).story
    assert all(set(deaf[name].tolist()) == {IGNORED} for name in of_audio)
    blind = make_sequence(clip, questions_of(clip.scene, 3, HEARD), prompts, see=False).story
    assert all(set(values.tolist()) == {IGNORED} for name, values in blind.items() if name.endswith("now"))
    assert max(blind["sound number"].tolist()) > 0


def test_a_batch_is_its_sequences_with_nothing_added(features, prompts):
    counts = (1, 3, 5, 2, 4)
    made = [
        make_sequence(clip, questions_of(clip.scene, n), prompts) for clip, n in zip(features, counts, strict=True)
    ]
    batch = collate(made)
    start = 0
    for i, one in enumerate(made):
        c, q = one.layout.n_tokens, len(one.ids)
        assert batch.clip_ids[i, :c].tolist() == one.layout.ids.tolist()
        assert batch.clip_positions[:, i, :c].tolist() == one.layout.positions.tolist()
        assert not batch.is_media[i, c:].any()
        assert batch.ids[i, :q].tolist() == one.ids.tolist()
        assert (batch.block[i, q:] == -1).all()
        assert (batch.targets[i, q:] == IGNORED).all()
        n = int(batch.is_media[i].sum())
        assert torch.equal(batch.embeddings[start : start + n], one.embeddings)
        start += n
        for row in range(q):
            attends = batch.mask[i, 0, row]
            assert attends[:c].all()
            assert not attends[c : batch.clip_ids.shape[1]].any()
            mine = attends[batch.clip_ids.shape[1] :]
            wanted = [k <= row and bool(one.block[k] == one.block[row]) for k in range(q)]
            assert mine[:q].tolist() == wanted
            assert not mine[q:].any()
    assert start == len(batch.embeddings)
    width = batch.clip_ids.shape[1]
    for name in STORY_HEADS:
        rows = batch.story[name].view(len(made), width)
        for row, one in zip(rows, made, strict=True):
            assert row[: one.layout.n_tokens].tolist() == one.story[name].tolist()
            assert (row[one.layout.n_tokens :] == IGNORED).all()


def test_names_look_at_what_they_mean_and_answers_at_what_holds_them(loaded, features, prompts):
    tokenizer = loaded.model.tokenizer
    for clip in features:
        scene = clip.scene
        questions = questions_of(scene, 30)
        made = make_sequence(clip, questions, prompts)
        assert sorted({int(made.block[look.token]) for look in made.looks}) == list(range(len(questions)))
        for look in made.looks:
            question = questions[int(made.block[look.token])]
            if look.kind == NAME:
                word = tokenizer.decode(made.ids[look.token]).strip()
                owners = [scene.things[i] for i in look.things] + [scene.sounds[i] for i in look.sounds]
                assert len(owners) == 1
                assert word.removesuffix("s") in f"thing {asdict(owners[0])} {getattr(owners[0], 'place', '')}"
            else:
                said = tokenizer.decode(made.targets[look.token]).strip()
                assert said in question.answer
                kinds = [scene.sounds[i].kind for i in look.sounds]
                names = [scene.things[i].name for i in look.things]
                for owner in (*SOUNDS, *(thing.name for thing in scene.things)):
                    if question.answer == owner and question.category != "before":
                        assert owner in kinds + names
        batch = collate([made])
        for found, kind in zip(batch.looks.found, batch.looks.kind, strict=True):
            assert int(kind) in (NAME, ANSWER)
            assert set(made.layout.modality[found.numpy()]) <= {Modality.VIDEO, Modality.AUDIO}
    blind = make_sequence(features[0], questions_of(features[0].scene, 3, HEARD), prompts, see=False)
    assert (blind.things < 0).all()
