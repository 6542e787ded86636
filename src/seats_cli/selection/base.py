"""The contract: what a method is shown, and what it says stays. The engine does the dropping, for all alike.

A method object serves one clip. The engine shows it the encoded windows, batch by batch in sequence order
(with ``whole_clip`` each modality in one batch, audio before video, so that the one may guide the other), and
then, before each layer in ``drop_before_layer``, the sequence as it stands. Text never leaves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from seats_cli.config import SelectionOptions
from seats_cli.layout import Modality
from seats_cli.selection.schedule import TokenPlan


@dataclass(frozen=True, slots=True)
class EncodedWindows:
    """Whole windows of one modality, as the encoder left them.

    Attributes:
        modality: VIDEO or AUDIO.
        embeddings: ``[n, d]``, what the LLM would receive, in sequence order.
        saliency: ``[n]`` float32, attention received in the encoder's last layer; None unless the method
            needs it.
        window_sizes: Tokens of this modality per window; 0 where a window has none. They sum to ``n``.
        first_window: Index, in the clip, of the first of these windows.

    Raises:
        ValueError: The shapes contradict each other.
    """

    modality: Modality
    embeddings: Tensor
    saliency: Tensor | None
    window_sizes: tuple[int, ...]
    first_window: int

    def __post_init__(self) -> None:
        if self.modality is Modality.TEXT:
            raise ValueError("encoded windows hold video or audio, not text")
        n = sum(self.window_sizes)
        if self.embeddings.dim() != 2 or self.embeddings.shape[0] != n:
            raise ValueError(f"embeddings are {list(self.embeddings.shape)}; the windows hold {n} tokens")
        if self.saliency is not None and tuple(self.saliency.shape) != (n,):
            raise ValueError(f"saliency is {list(self.saliency.shape)}; the windows hold {n} tokens")


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of a batch of windows.

    Attributes:
        indices: ``[m]`` int64, ascending, into the batch.
        embeddings: ``[m, d]`` in place of the encoder's, for methods that merge; None: unchanged.
        counts: How many of them each window holds. They sum to ``m``.
        macs: Multiply-adds of matrix products spent on choosing, padding included, for the cost report.

    Raises:
        ValueError: The shapes contradict each other.
    """

    indices: Tensor
    embeddings: Tensor | None
    counts: tuple[int, ...]
    macs: int = 0

    def __post_init__(self) -> None:
        m = sum(self.counts)
        if tuple(self.indices.shape) != (m,):
            raise ValueError(f"indices are {list(self.indices.shape)}; the counts make {m}")
        if self.embeddings is not None and self.embeddings.shape[0] != m:
            raise ValueError(f"embeddings are {list(self.embeddings.shape)}; the counts make {m}")


@dataclass(frozen=True, slots=True)
class LayerState:
    """What is known before a layer.

    Attributes:
        layer: 0-based; the state is the one this layer would receive.
        modality: ``[S]`` integers, ``Modality`` of each token now in the sequence.
        window: ``[S]`` int64, index of its window; -1 for text.
        n_windows: Windows in the clip.
        max_window_tokens: No window holds more tokens of one modality than this.
        scores: Gives ``[S]`` float32, attention of the last text token over the sequence. Computed when
            called.
    """

    layer: int
    modality: Tensor
    window: Tensor
    n_windows: int
    max_window_tokens: int
    scores: Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class LayerKept:
    """What stays from a layer on.

    Attributes:
        indices: ``[S']`` int64, ascending, into the sequence before that layer; all text among them.
        trace: Named tensors for ``--trace``; nothing reads them otherwise.
    """

    indices: Tensor
    trace: dict[str, Tensor] = field(default_factory=dict)


class SelectionMethod(ABC):
    """Decides who stays.

    Args:
        plan: Ratios and nominal counts of this clip.
        options: As the user gave them.
        temperature: Of the window softmax; the option, or the model's published one.

    Attributes:
        name: As in ``--method``.
        summary: One line for ``--help``.
        needs_saliency: Whether the encoders must report attention received.
        whole_clip: Whether ``before_llm`` must see all windows of a modality at once.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs_saliency: ClassVar[bool]
    whole_clip: ClassVar[bool] = False

    def __init__(self, plan: TokenPlan, options: SelectionOptions, temperature: float) -> None:
        self.plan = plan
        self.options = options
        self.temperature = temperature

    @property
    @abstractmethod
    def drop_before_layer(self) -> tuple[int, ...]:
        """0-based layers before which ``before_layer`` is asked, ascending."""

    @abstractmethod
    def before_llm(self, windows: EncodedWindows) -> Kept:
        """Say what stays of these windows."""

    @abstractmethod
    def before_layer(self, state: LayerState) -> LayerKept:
        """Say what stays from ``state.layer`` on."""
