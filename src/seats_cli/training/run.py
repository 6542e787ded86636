"""The whole training, stage by stage, in a folder that remembers how far it has come."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seats_cli.config import ModelOptions
from seats_cli.models.loading import load
from seats_cli.training.language import encode_pool, new_story_heads, train
from seats_cli.training.model import HIDDEN_SIZE, new_thinker, vocabulary, write_checkpoint
from seats_cli.training.pool import PoolSpec, make_pool
from seats_cli.training.sequences import Features
from seats_cli.training.stopping import Stop
from seats_cli.training.towers import parts_of
from seats_cli.training.warmup import new_heads, read_pieces, warm_up


@dataclass(frozen=True, slots=True)
class LanguageStage:
    """One stretch of the language model's training.

    Attributes:
        pools: Names of the pools it draws from.
        longest: Clips with more visual and audio tokens are left out.
        n_steps: Steps its learning rate is planned for.
        peak_rate: Learning rate.
        n_tokens: Tokens in a batch.
        n_questions: Questions about each clip.
    """

    pools: tuple[str, ...]
    longest: int
    n_steps: int
    peak_rate: float
    n_tokens: int
    n_questions: int = 12


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out.

    Attributes:
        pools: Clips to learn from, by name.
        held_out: Clips to validate on.
        encoder_pools: Names of those the encoders learn from.
        encoder_steps: Steps of the first stage.
        encoder_rate: Its learning rate.
        language: Stretches of the second stage.
    """

    pools: dict[str, PoolSpec] = field(
        default_factory=lambda: {
            "medium": PoolSpec(seed=2101, n_clips=2000, least_seconds=4, most_seconds=9),
            "crowded": PoolSpec(seed=5101, n_clips=1500, least_seconds=8, most_seconds=16),
            "long": PoolSpec(seed=3101, n_clips=400, least_seconds=12, most_seconds=32),
        }
    )
    held_out: PoolSpec = field(default_factory=lambda: PoolSpec(4101, 50, least_seconds=4, most_seconds=32))
    encoder_pools: tuple[str, ...] = ("medium", "crowded")
    encoder_steps: int = 1600
    encoder_rate: float = 5e-4
    language: tuple[LanguageStage, ...] = (
        LanguageStage(("medium",), 500, 250, 1.5e-3, 5000, 16),
        LanguageStage(("medium", "crowded", "long"), 10_000, 1300, 1.5e-3, 6500, 16),
    )


class Run:
    """A training in a folder.

    Args:
        folder: Holds the clips, the state and, at the end, the checkpoint.
        recipe: What to do.
        log: Told how it goes.
        encoders: A checkpoint, or a model's name, to take finished encoders from: a new run then skips its first
            stage.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, log: Callable[[str], None] = print, encoders: str | None = None
    ) -> None:
        self.folder, self.recipe, self.log = folder, recipe, log
        self.words = vocabulary()
        self.state_path = folder / "state.pt"
        folder.mkdir(parents=True, exist_ok=True)
        self.state: dict[str, Any] = {"stage": 0, "step": 0}
        if self.state_path.exists():
            self.state = torch.load(self.state_path, weights_only=True)
        self.thinker = new_thinker(self.words)
        self.heads = new_heads(HIDDEN_SIZE)
        self.story = new_story_heads(HIDDEN_SIZE)
        if "thinker" in self.state:
            self.thinker.load_state_dict(self.state["thinker"])
            self.heads.load_state_dict(self.state["heads"])
            self.story.load_state_dict(self.state["story"])
            if encoders is not None:
                log(f"--encoders {encoders} is not used: this run goes on from {self.state_path}")
        elif encoders is not None:
            self._take_encoders(encoders)

    def _take_encoders(self, model: str) -> None:
        taken = load(ModelOptions(model=model, device="cpu", dtype="float32")).model.thinker
        for mine, theirs in zip(parts_of(self.thinker)[1:], parts_of(taken)[1:], strict=True):
            mine.load_state_dict(theirs.state_dict())
        self.state["stage"] = 1

    def _save(self, stage: int, step: int, optimizer: dict[str, Any] | None) -> None:
        """Remember everything; whole or not at all."""
        self.state = {
            "stage": stage,
            "step": step,
            "optimizer": optimizer,
            "thinker": self.thinker.state_dict(),
            "heads": self.heads.state_dict(),
            "story": self.story.state_dict(),
        }
        part = self.state_path.with_suffix(".part")
        torch.save(self.state, part)
        os.replace(part, self.state_path)

    def _pool_folder(self, spec: PoolSpec) -> Path:
        return self.folder / "clips" / f"{spec.seed}-{spec.least_seconds}-{spec.most_seconds}"

    def make_clips(self, workers: int) -> None:
        """Draw, encode and decode every clip that is not there yet."""
        for spec in (*self.recipe.pools.values(), self.recipe.held_out):
            self.log(f"clips of seed {spec.seed}: {spec.n_clips}")
            make_pool(spec, self._pool_folder(spec), workers)

    def _train_encoders(self, stop: Stop) -> bool:
        pools = [self.recipe.pools[name] for name in self.recipe.encoder_pools]
        pieces = read_pieces([(spec, self._pool_folder(spec)) for spec in pools])
        with stop.steps():
            step = warm_up(
                self.thinker,
                self.heads,
                pieces,
                self.recipe.encoder_steps,
                stop=stop,
                first_step=self.state["step"],
                peak_rate=self.recipe.encoder_rate,
                optimizer_state=self.state.get("optimizer"),
                log=self.log,
                save=lambda step, optimizer: self._save(0, step, optimizer),
            )
        return step >= self.recipe.encoder_steps

    def _features(self, specs: Sequence[PoolSpec]) -> list[Features]:
        found = []
        for spec in specs:
            self.log(f"encoding the clips of seed {spec.seed}")
            found += encode_pool(self.thinker, spec, self._pool_folder(spec), range(spec.n_clips))
        return found

    def _train_language(self, number: int, stop: Stop) -> bool:
        stage = self.recipe.language[number]
        pool = self._features([self.recipe.pools[name] for name in stage.pools])
        held_out = self._features([self.recipe.held_out])
        checkpoint = self.folder / "scratch"
        write_checkpoint(self.thinker, self.words, checkpoint, torch.float32)
        loaded = load(ModelOptions(model=str(checkpoint), device="cpu", dtype="float32")).model
        with stop.steps():
            step = train(
                type(loaded)(self.thinker, loaded.processor, loaded.spec),
                self.story,
                [features for features in pool if features.n_tokens <= stage.longest],
                held_out,
                stop=stop,
                n_steps=stage.n_steps,
                first_step=self.state["step"],
                peak_rate=stage.peak_rate,
                n_tokens=stage.n_tokens,
                n_questions=stage.n_questions,
                seed=number,
                optimizer_state=self.state.get("optimizer"),
                log=self.log,
                save=lambda step, optimizer: self._save(number + 1, step, optimizer),
            )
        return step >= stage.n_steps

    def go(self, seconds: float) -> bool:
        """Train for so long at most. Call again to go on.

        Args:
            seconds: Time for steps; reading and encoding the clips before each stage comes on top.

        Returns:
            Whether the training is done; then the checkpoint is in ``checkpoint``.

        Raises:
            KeyboardInterrupt: Ctrl-C. During steps the one that had begun is finished and saved.
        """
        stop = Stop(seconds)
        for stage in range(self.state["stage"], len(self.recipe.language) + 1):
            if stop():
                return False
            done = self._train_encoders(stop) if stage == 0 else self._train_language(stage - 1, stop)
            if done:
                self._save(stage + 1, 0, None)
            if stop.interrupted:
                raise KeyboardInterrupt
            if not done:
                return False
        write_checkpoint(self.thinker, self.words, self.folder / "checkpoint", torch.float16)
        return True
