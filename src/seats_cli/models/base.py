"""What a model family must offer. Nothing outside ``models/`` knows a family by name.

A family is one file named after its Hugging Face ``model_type``, with one class. The class methods need only a
config (no torch, no weights): they serve ``seats profile --analytic``. An instance wraps a loaded thinker and
offers its parts to the engine's loops; it never changes the modules of transformers.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from seats_cli.errors import ModelError, UsageError
from seats_cli.geometry import ModelGeometry
from seats_cli.layout import LayoutSpec, VideoGrids
from seats_cli.selection.schedule import SelectionPreset

if TYPE_CHECKING:
    import torch

    from seats_cli.models.turns import Turn

    Rope = tuple[torch.Tensor, torch.Tensor]
    Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
    TokenLayer = Callable[[torch.Tensor, Rope, Attend], torch.Tensor]

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a thinker's config fixes, without its weights.

    Attributes:
        layout: Token ids and the time axis.
        geometry: Sizes, for the cost formulas.
        preset: Published schedule, temperature and ratio table (boundaries by depth where none are published).
        max_positions: Rotary positions seen in training.
        mel_frames_per_window: Log-mel frames in one window.
        mel_frames_per_batch_unit: Sound is encoded in multiples of this many frames, so that pieces give the
            same result as the whole.
        min_pixels: Least pixels per frame for this very model; None: as published.
        max_pixels: Most.
        mirrored_sound_end: What the log-mel hears after the last sample: the sound mirrored, or silence.
    """

    layout: LayoutSpec
    geometry: ModelGeometry
    preset: SelectionPreset
    max_positions: int
    mel_frames_per_window: int
    mel_frames_per_batch_unit: int
    min_pixels: int | None = None
    max_pixels: int | None = None
    mirrored_sound_end: bool = False

    @property
    def pixel_factor(self) -> int:
        """Frame sides are multiples of this many pixels; its square is one merged token."""
        vision = self.geometry.vision
        return vision.patch_size * vision.merge_size


@contextmanager
def reading_config(name: str, family: str) -> Iterator[None]:
    """Turn what a config lacks, or has of the wrong kind, into one line.

    Args:
        name: Of the model.
        family: As users know it.

    Raises:
        ModelError: Instead of what was raised inside.
    """
    try:
        yield
    except KeyError as error:
        raise ModelError(f"{name}: the config has no {error}", f"is this a {family} checkpoint?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{name}: the config is damaged: {error}", "fetch the checkpoint again") from None


@dataclass(frozen=True, slots=True)
class PixelNorm:
    """Mean and standard deviation per RGB channel, of values in [0, 1]."""

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder made of a batch of whole windows.

    Attributes:
        embeddings: [n, D], what the language model would receive.
        attention_received: Called with the tokens of each window (ints that sum to n); gives float32 [n], the
            attention each token receives in the encoder's last layer (SEATS Sec. 4.1). None where not asked for.
        deepstack: [n, D] each, what is added to these tokens behind decoder layers 0, 1, ...; mostly none.
        projected: Whether ``attention_received`` projects the last layer's queries and keys again.
    """

    embeddings: torch.Tensor
    attention_received: Callable[[Sequence[int]], torch.Tensor] | None
    deepstack: tuple[torch.Tensor, ...] = ()
    projected: bool = False


class OmniModel(ABC):
    """A loaded thinker, adapted to the engine.

    Args:
        thinker: The model of transformers, in eval mode.
        processor: Its processor; None for a named architecture with random weights.
        spec: What its config fixes.

    Attributes:
        encoding: Held while an encoder runs: its config says for everybody how it attends (``models.chunks``), and
            who looks inside one would see what another thread encodes.
    """

    model_type: ClassVar[str]
    thinker_class: ClassVar[str]
    """Class in transformers that holds the thinker alone."""
    named: ClassVar[Mapping[str, Config]]
    """Thinker configs of known checkpoints, by Hub id: true dimensions, with no download."""
    stand_in: ClassVar[tuple[str, Config]]
    """Name and thinker config of a mid-size model, for measuring where the named ones do not fit."""
    thinking_marks: ClassVar[tuple[str, str]] = ("<think>", "</think>")
    """What opens and closes reasoning, where the tokenizer has a token for each."""

    def __init__(self, thinker: Any, processor: Any, spec: ModelSpec) -> None:
        self.thinker = thinker
        self.processor = processor
        self.spec = spec
        self.encoding = threading.Lock()

    @classmethod
    @abstractmethod
    def spec_of(cls, name: str, thinker_config: Config) -> ModelSpec:
        """Read a thinker's config."""

    @classmethod
    @abstractmethod
    def audio_tokens(cls, n_mel_frames: int) -> int:
        """Audio tokens that so many log-mel frames become."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[torch.nn.Module]:
        """The decoder layers, in order."""

    @property
    @abstractmethod
    def pixel_norm(self) -> PixelNorm:
        """How pixels are normalised."""

    @property
    @abstractmethod
    def mel_filters(self) -> Any:
        """Mel filter bank, numpy [n_fft // 2 + 1, n_mel_bins]."""

    @abstractmethod
    def prompt(
        self, question: str, system: str | None, clip: str, *, thinking: bool = True, history: Sequence[Turn] = ()
    ) -> tuple[list[int], list[int]]:
        """Token ids before and after the clip. ``clip`` is ``"video"`` (with or without sound) or ``"audio"``.

        With a history the clip stands before the first of its questions.

        Raises:
            ModelError: The chat template does not write the answers of earlier turns.
            UsageError: The question is empty or contains an added token of the tokenizer, or ``thinking`` is False
                and the chat template has no switch for it.
        """

    @abstractmethod
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [S, D] of int64 ids [S]."""

    @abstractmethod
    def rope(self, hidden: torch.Tensor, positions: torch.Tensor) -> Rope:
        """Rotary tables (cos, sin), each [1, S, head_dim], for float32 positions [3, S]; where ``hidden`` is."""

    @abstractmethod
    def run_layer(self, index: int, hidden: torch.Tensor, rope: Rope, mask: Any, cache: Any) -> torch.Tensor:
        """One decoder layer on hidden states [1, S, D]; keys and values go into ``cache``."""

    @abstractmethod
    def token_layer(self, index: int) -> TokenLayer:
        """Decoder layer ``index`` for one token, put together from its pieces; the engine has the cache.

        What is returned takes the hidden state [1, 1, D], rotary tables [1, 1, head_dim] and ``attend``, and gives
        the next hidden state. It calls ``attend`` once, with rotated queries [n_kv_heads, group, head_dim], the
        token's own key and value [n_kv_heads, 1, head_dim] and the scale of the scores; that gives what the
        queries attend to, in their shape. It asks nothing of the device. For models ``in_one_place``.
        """

    @property
    def in_one_place(self) -> bool:
        """Whether one device holds and computes all, with no hook of accelerate on any module.

        Then pieces may be called without looking each time where they compute, as ``call`` does.
        """
        return len(self.devices) == 1 and not any(hasattr(one, "_hf_hook") for one in self.thinker.modules())

    @property
    def is_quantised(self) -> bool:
        """Whether weights are held in fewer bits, by a library that may wait for the device as it likes."""
        return getattr(self.thinker, "hf_quantizer", None) is not None

    def decoding(self) -> AbstractContextManager[None]:
        """Entered while answer tokens are written one by one, for families whose kernels then differ."""
        return nullcontext()

    @abstractmethod
    def query_attention(self, index: int, hidden: torch.Tensor, rope: Rope) -> torch.Tensor:
        """Attention of the last token over all S, with layer ``index``'s projections: float32 [S].

        Softmax over the whole sequence, then the mean over heads (SEATS Sec. 4.2.2). Only the last query is
        projected; no S x S matrix is built.
        """

    @abstractmethod
    def last_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [vocab] of the last position of hidden states [1, S, D]."""

    @abstractmethod
    def encode_video(self, patches: torch.Tensor, grid: tuple[int, int, int], *, saliency: bool) -> Encoded:
        """Encode ``grid`` = (grids, patch rows, patch columns) of flat patches [n, patch_dim]."""

    @abstractmethod
    def encode_audio(self, mel: torch.Tensor, *, saliency: bool) -> Encoded:
        """Encode log-mel [n_mel_bins, frames] that starts at a window's boundary."""

    @property
    @abstractmethod
    def towers(self) -> Sequence[torch.nn.Module]:
        """The encoders, for a stopwatch to listen to."""

    @abstractmethod
    def stock_inputs(
        self,
        ids: torch.Tensor,
        patches: torch.Tensor | None,
        mel: torch.Tensor | None,
        video: VideoGrids | None,
    ) -> dict[str, Any]:
        """The same clip as arguments of transformers' own forward, for comparison."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            UsageError: There is none: the weights are random and nothing was downloaded.
        """
        if self.processor is None:
            raise UsageError("a model with random weights has no tokenizer", "use it with seats profile")
        return self.processor.tokenizer

    @property
    def thinking_ids(self) -> tuple[int, int] | None:
        """Ids of the marks that open and close reasoning; None where the tokenizer lacks one of them."""
        known = {} if self.processor is None else self.tokenizer.added_tokens_encoder
        opening, closing = map(known.get, self.thinking_marks)
        return None if opening is None or closing is None else (opening, closing)

    @cached_property
    def can_skip_thinking(self) -> bool:
        """Whether the chat template has a switch for reasoning: ``enable_thinking`` makes a difference to it."""
        # To a template that does not name it the switch is not shown: transformers would complain to the user.
        if self.processor is None or "enable_thinking" not in str(self.processor.chat_template):
            return False
        turns = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        return self._chat(turns, enable_thinking=True) != self._chat(turns, enable_thinking=False)

    def check_thinking(self, thinking: bool) -> None:
        """Find out that reasoning cannot be switched off.

        Raises:
            UsageError: It should be, and the chat template has no switch for it.
        """
        if not thinking and not self.can_skip_thinking:
            raise UsageError("--no-thinking: this model's chat template has no such switch", "leave it out")

    def chat(self, turns: Sequence[Mapping[str, Any]], *, thinking: bool = True) -> str:
        """Turns in the checkpoint's chat template, up to where the model goes on.

        Args:
            turns: As transformers takes them.
            thinking: True: as by the template's default; False: with its switch for reasoning off.

        Raises:
            UsageError: There is no such switch.
        """
        self.check_thinking(thinking)
        return self._chat(turns) if thinking else self._chat(turns, enable_thinking=False)

    def _chat(self, turns: Sequence[Mapping[str, Any]], **switches: bool) -> str:
        text: str = self.processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, **switches
        )
        return text

    @property
    def device(self) -> torch.device:
        """Where inputs go first."""
        return place_of(self.thinker.get_input_embeddings())

    @property
    def devices(self) -> list[torch.device]:
        """Every device that computes, the first one first."""
        places = [self.device, *map(place_of, self.layers)]
        places += [place_of(module) for tower in self.towers for module in tower.children() if _holds(module)]
        return list(dict.fromkeys(places))

    @property
    def dtype(self) -> torch.dtype:
        """Of the hidden states."""
        dtype: torch.dtype = self.thinker.get_input_embeddings().weight.dtype
        return dtype

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: those of the generation config, and the end of a turn."""
        config = getattr(self.thinker, "generation_config", None)
        eos = getattr(config, "eos_token_id", None)
        found = [] if eos is None else list(eos) if isinstance(eos, list | tuple) else [eos]
        if self.processor is not None and self.tokenizer.eos_token_id is not None:
            found.append(self.tokenizer.eos_token_id)
        return tuple(dict.fromkeys(int(i) for i in found))


def _holds(module: torch.nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _hooked_place(module: torch.nn.Module) -> torch.device | None:
    import torch

    hook: Any = getattr(module, "_hf_hook", None)
    for one in (hook, *getattr(hook, "hooks", ())):
        place = getattr(one, "execution_device", None)
        if place is not None:
            return torch.device(f"cuda:{place}" if isinstance(place, int) else place)
    return None


def place_of(module: torch.nn.Module) -> torch.device:
    """Where a module with weights computes. Accelerate may park the weights elsewhere; then its hooks know."""
    place = _hooked_place(module) or next(chain(module.parameters(), module.buffers())).device
    if place.type != "meta":
        return place
    return next((found for found in map(_hooked_place, module.modules()) if found is not None), place)


def call(piece: torch.nn.Module, *inputs: torch.Tensor) -> Any:
    """Use a piece of a larger module by itself, such as one projection of a layer.

    A piece is always called, its weights are never read: parked ones are brought by the piece's own hook while it
    runs, quantised ones are understood by the piece alone. The inputs go where it computes, as the hook of the
    larger module, which is passed by, would have seen to.
    """
    place = place_of(piece)
    return piece(*(one.to(place) for one in inputs))


def check_plain_text(text: str, what: str, tokenizer: Any) -> None:
    """Refuse text that holds a special token, which would change the sequence's structure, or is not text.

    Raises:
        UsageError: Names the token.
    """
    if text != text.encode("utf-8", "replace").decode():
        raise UsageError(f"the {what} is not valid UTF-8", "check the terminal's or the file's encoding")
    found = [token for token in tokenizer.added_tokens_encoder if token in text]
    if found:
        raise UsageError(f"the {what} contains the reserved token {found[0]}", "write it differently")
