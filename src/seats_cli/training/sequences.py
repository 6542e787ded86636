"""Clips as training sequences: one clip, then many questions about it, none of which sees another.

Each question stands where it would stand if it were the only one: right after the clip, with the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from seats_cli.layout import Layout, Modality, VideoGrids, build_layout
from seats_cli.models.base import OmniModel
from seats_cli.training.labels import (
    IGNORED,
    STORY_HEADS,
    Int64,
    sounds_in_tokens,
    story_labels,
    things_in_tokens,
)
from seats_cli.training.referents import (
    NAME,
    REFERENT_HEADS,
    Look,
    Span,
    looks_of,
    referent_labels,
    shown_or_heard,
)
from seats_cli.world.questions import FAMILIES, Question
from seats_cli.world.scene import Scene

HEARD = ("sound kind", "beep count", "sound after", "two sounds")
SEEN = (
    *("colour", "shape", "place", "motion", "thing count"),
    *("first", "last", "before", "after", "two things"),
)


@dataclass(frozen=True, slots=True)
class Features:
    """A clip as the encoders left it.

    Attributes:
        scene: What happens.
        video: float16 [grids * rows * columns, D].
        audio: float16 [n, D].
    """

    scene: Scene
    video: Tensor
    audio: Tensor

    @property
    def n_tokens(self) -> int:
        """Visual and audio tokens."""
        return len(self.video) + len(self.audio)


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """One clip and its questions.

    Attributes:
        scene: What happens in it.
        layout: Text before the clip, the clip, and the marker that closes it: C tokens.
        embeddings: float32 [c, D] of the visual and audio tokens, in sequence order.
        story: Per head int64 [C].
        things: int64 [C], the thing each token shows; negative for none.
        sounds: int64 [C], the sound each token holds; negative for none.
        looks: Of the questions' tokens; empty where nothing is to be learnt.
        ids: int64 [Q], questions and answers one after another.
        block: int64 [Q], which question each belongs to.
        positions: int64 [Q].
        targets: int64 [Q], the next token where it belongs to an answer.
        questions: As asked.
    """

    scene: Scene
    layout: Layout
    embeddings: Tensor
    story: dict[str, Tensor]
    things: Int64
    sounds: Int64
    looks: tuple[Look, ...]
    ids: Tensor
    block: Tensor
    positions: Tensor
    targets: Tensor
    questions: tuple[Question, ...]


class Prompts:
    """Questions and answers as token ids, each made once."""

    def __init__(self, model: OmniModel) -> None:
        self.model = model
        self._prompts: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        self._answers: dict[str, list[int]] = {}

    def prompt(self, question: str, clip: str) -> tuple[list[int], list[int]]:
        """Ids before and after the clip."""
        key = question, clip
        if key not in self._prompts:
            self._prompts[key] = self.model.prompt(question, None, clip)
        return self._prompts[key]

    def spans(self, text: str) -> list[Span]:
        """Characters of each token of a text."""
        encoded = self.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [(start, end) for start, end in encoded["offset_mapping"]]

    def answer(self, text: str) -> list[int]:
        """Ids of an answer and of the end of its turn."""
        if text not in self._answers:
            tokenizer = self.model.tokenizer
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            self._answers[text] = [*ids, tokenizer.eos_token_id]
        return self._answers[text]


def choose_questions(
    scene: Scene, families: Sequence[str], n: int, rng: np.random.Generator
) -> tuple[Question, ...]:
    """Up to ``n`` questions, one family after another until there are enough."""
    offered = []
    for name in families:
        pairs = FAMILIES[name](scene)
        for rank, index in enumerate(rng.permutation(len(pairs))):
            offered.append((rank + rng.random(), Question(name, *pairs[index])))
    offered.sort(key=lambda one: one[0])
    return tuple(question for _, question in offered[:n])


def _scattered(values: Int64, rows: Int64, n: int, nothing: int) -> Int64:
    found = np.full(n, nothing, dtype=np.int64)
    if len(rows):
        found[rows] = values
    return found


def _story(scene: Scene, layout: Layout, things: Int64, sounds: Int64, see: bool) -> dict[str, Tensor]:
    """Labels of the heads a sequence can know about."""
    found = {name: np.full(layout.n_tokens, IGNORED, dtype=np.int64) for name in STORY_HEADS}
    of_video, of_audio = story_labels(scene, things, sounds)
    for modality, labels in ((Modality.VIDEO, of_video), (Modality.AUDIO, of_audio)):
        rows = layout.rows(modality)
        for name, values in labels.items():
            if len(rows) and (see or not name.endswith("now")):
                found[name][rows] = values
    return {name: torch.from_numpy(values) for name, values in found.items()}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Questions and answers one after another."""

    ids: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def add(self, scene: Scene, question: Question, prompts: Prompts, kind: str, position: int) -> None:
        """Append one question; its first token stands at ``position``."""
        asked, answer = prompts.prompt(question.text, kind)[1][1:], prompts.answer(question.answer)
        words = prompts.spans(question.text)
        begin = len(self.ids)
        for look in looks_of(scene, question, words, prompts.spans(question.answer)):
            # A word of the answer is said by the token before it.
            token = look.token if look.kind == NAME else look.token - len(words) + len(asked) - 1
            self.looks.append(replace(look, token=begin + token))
        row = [*asked, *answer[:-1]]
        self.block.extend([self.block[-1] + 1 if self.block else 0] * len(row))
        self.ids.extend(row)
        self.positions.extend(range(position, position + len(row)))
        self.targets.extend([*[IGNORED] * (len(asked) - 1), *answer])


def make_sequence(
    features: Features,
    questions: tuple[Question, ...],
    prompts: Prompts,
    *,
    see: bool = True,
    hear: bool = True,
    story: bool = True,
) -> TrainingSequence:
    """Lay out a clip and its questions.

    Args:
        features: The clip.
        questions: About it; at least one.
        prompts: Of the model.
        see: The picture is there.
        hear: The sound is there.
        story: Make the labels of the story heads, and the looks.
    """
    scene = features.scene
    kind = "video" if see else "audio"
    grids = VideoGrids(scene.seconds, scene.rows, scene.columns, 1.0) if see else None
    before, after = prompts.prompt(questions[0].text, kind)
    layout = build_layout(before, after[:1], prompts.model.spec.layout, grids, len(features.audio) if hear else 0)
    modality = layout.modality[layout.modality != Modality.TEXT]
    embeddings = torch.zeros(len(modality), features.audio.shape[1])
    if see:
        embeddings[torch.from_numpy(modality == Modality.VIDEO)] = features.video.float()
    if hear:
        embeddings[torch.from_numpy(modality == Modality.AUDIO)] = features.audio.float()
    things = things_in_tokens(scene) if see else np.zeros(0, dtype=np.int64)
    sounds = sounds_in_tokens(scene, len(features.audio) if hear else 0)
    rows = _Rows()
    for question in questions:
        rows.add(scene, question, prompts, kind, int(layout.next_position))
    return TrainingSequence(
        scene,
        layout,
        embeddings,
        _story(scene, layout, things, sounds, see) if story else {},
        _scattered(things, layout.rows(Modality.VIDEO), layout.n_tokens, -1),
        _scattered(sounds, layout.rows(Modality.AUDIO), layout.n_tokens, -1),
        tuple(rows.looks) if story else (),
        torch.tensor(rows.ids),
        torch.tensor(rows.block),
        torch.tensor(rows.positions),
        torch.tensor(rows.targets),
        questions,
    )


@dataclass(frozen=True, slots=True)
class Looks:
    """The looks of a batch: L tokens of questions, each with what it should find among C tokens.

    Attributes:
        clip: int64 [L], which clip of the batch.
        token: int64 [L], which token of that clip's questions.
        kind: int64 [L], ``NAME`` or ``ANSWER``.
        found: bool [L, C], what it should find; at least one token each.
        labels: Per head of ``REFERENT_HEADS`` int64 [L].
    """

    clip: Tensor
    token: Tensor
    kind: Tensor
    found: Tensor
    labels: dict[str, Tensor]


def _gather_looks(sequences: Sequence[TrainingSequence], longest: int) -> Looks:
    clips, looks, masks, labels = [], [], [], []
    for i, one in enumerate(sequences):
        for look in one.looks:
            found = shown_or_heard(look, one.things, one.sounds)
            if found.any():
                clips.append(i)
                looks.append(look)
                masks.append(np.pad(found, (0, longest - len(found))))
                labels.append(referent_labels(one.scene, look))
    return Looks(
        torch.tensor(clips, dtype=torch.int64),
        torch.tensor([look.token for look in looks], dtype=torch.int64),
        torch.tensor([look.kind for look in looks], dtype=torch.int64),
        torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, longest, dtype=torch.bool),
        {name: torch.tensor([label[name] for label in labels], dtype=torch.int64) for name in REFERENT_HEADS},
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded sequences: B clips of at most C tokens, with at most Q tokens of questions.

    Attributes:
        clip_ids: int64 [B, C].
        clip_positions: int64 [3, B, C].
        is_media: bool [B, C], where ``embeddings`` go.
        embeddings: float32 [tokens of all clips, D].
        story: Per head int64 [B * C].
        ids: int64 [B, Q].
        positions: int64 [3, B, Q].
        mask: bool [B, 1, Q, C + Q], what a question's tokens attend to.
        targets: int64 [B, Q].
        block: int64 [B, Q]; -1 for padding.
        looks: Where some of the questions' tokens should look.
    """

    clip_ids: Tensor
    clip_positions: Tensor
    is_media: Tensor
    embeddings: Tensor
    story: dict[str, Tensor]
    ids: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor
    block: Tensor
    looks: Looks


def collate(sequences: Sequence[TrainingSequence]) -> Batch:
    """Pad to the right."""
    n, longest = len(sequences), max(one.layout.n_tokens for one in sequences)
    widest = max(len(one.ids) for one in sequences)
    clip_ids = torch.zeros(n, longest, dtype=torch.int64)
    clip_positions = torch.zeros(3, n, longest, dtype=torch.int64)
    is_media = torch.zeros(n, longest, dtype=torch.bool)
    ids = torch.zeros(n, widest, dtype=torch.int64)
    positions = torch.zeros(n, widest, dtype=torch.int64)
    targets = torch.full((n, widest), IGNORED)
    block = torch.full((n, widest), -1)
    there = torch.zeros(n, longest, dtype=torch.bool)
    story = {name: torch.full((n, longest), IGNORED) for name in sequences[0].story}
    for i, one in enumerate(sequences):
        c, q = one.layout.n_tokens, len(one.ids)
        clip_ids[i, :c] = torch.from_numpy(one.layout.ids)
        clip_positions[:, i, :c] = torch.from_numpy(one.layout.positions)
        is_media[i, :c] = torch.from_numpy(one.layout.modality != Modality.TEXT)
        there[i, :c] = True
        ids[i, :q], positions[i, :q], targets[i, :q], block[i, :q] = one.ids, one.positions, one.targets, one.block
        for name, values in one.story.items():
            story[name][i, :c] = values
    same = (block[:, :, None] == block[:, None, :]) & torch.ones(widest, widest, dtype=torch.bool).tril()
    mask = torch.cat([there[:, None, :].expand(n, widest, longest), same], dim=2)[:, None]
    return Batch(
        clip_ids,
        clip_positions,
        is_media,
        torch.cat([one.embeddings for one in sequences]),
        {name: values.flatten() for name, values in story.items()},
        ids,
        positions[None].expand(3, -1, -1),
        mask,
        targets,
        block,
        _gather_looks(sequences, longest),
    )
