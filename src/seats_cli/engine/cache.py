"""Keys and values per layer, each layer with a length of its own."""

from __future__ import annotations

from typing import Any

import torch


class RaggedCache:
    """What attention remembers, layer by layer.

    Layers that processed fewer tokens hold fewer; nothing here assumes one common length. Attention modules of
    transformers call ``update`` and nothing else.

    Args:
        n_layers: Decoder layers.
        spare: Room made for tokens that follow the first call, so that appending copies nothing.
    """

    def __init__(self, n_layers: int, spare: int = 0) -> None:
        self._keys: list[torch.Tensor | None] = [None] * n_layers
        self._values: list[torch.Tensor | None] = [None] * n_layers
        self._lengths = [0] * n_layers
        self._spare = spare

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens held by each layer."""
        return tuple(self._lengths)

    @property
    def n_bytes(self) -> int:
        """Bytes of the tokens held, room to spare not counted."""
        held = zip(self._keys, self._values, self._lengths, strict=True)
        return sum(
            (key.element_size() * key[:, :, :n].numel() + value.element_size() * value[:, :, :n].numel())
            for key, value, n in held
            if key is not None and value is not None
        )

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [1, n_kv_heads, n, head_dim]; give back all that the layer holds."""
        old, n = self._lengths[layer_idx], key.shape[2]
        keys = self._room(self._keys[layer_idx], key, old)
        values = self._room(self._values[layer_idx], value, old)
        keys[:, :, old : old + n] = key
        values[:, :, old : old + n] = value
        self._keys[layer_idx], self._values[layer_idx] = keys, values
        self._lengths[layer_idx] = old + n
        if old == 0:
            return key, value
        return keys[:, :, : old + n], values[:, :, : old + n]

    def _room(self, buffer: torch.Tensor | None, new: torch.Tensor, old: int) -> torch.Tensor:
        """``buffer`` itself while the new tokens fit, otherwise a larger copy."""
        need = old + new.shape[2]
        if buffer is not None and buffer.shape[2] >= need:
            return buffer
        grown = new.new_empty(*new.shape[:2], need + max(self._spare, need // 2 if old else 0), new.shape[3])
        if buffer is not None:
            grown[:, :, :old] = buffer[:, :, :old]
        return grown

    def reserve(self, n: int, multiple: int = 1) -> None:
        """Make room for ``n`` more tokens in every layer, and zero it: what is masked must not be NaN.

        Args:
            n: At least 1.
            multiple: Of it are the places in a layer, those taken included.
        """
        for layer_idx, length in enumerate(self._lengths):
            self._keys[layer_idx] = _roomy(self._keys[layer_idx], length, n, multiple)
            self._values[layer_idx] = _roomy(self._values[layer_idx], length, n, multiple)

    @property
    def room(self) -> int:
        """Tokens that every layer takes without growing."""
        places = [0 if key is None else key.shape[2] for key in self._keys]
        return min(place - length for place, length in zip(places, self._lengths, strict=True))

    def buffers(self, layer_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole places of a layer's keys and values, [n_kv_heads, places, head_dim]: for who writes in them.

        Raises:
            ValueError: The layer holds nothing.
        """
        key, value = self._keys[layer_idx], self._values[layer_idx]
        if key is None or value is None:
            raise ValueError(f"layer {layer_idx} holds nothing")
        return key[0], value[0]

    def note(self, n: int) -> None:
        """Count ``n`` tokens in every layer, which were written into ``buffers``; below 0: take so many back."""
        self._lengths = [length + n for length in self._lengths]

    def keep(self, layer_idx: int, rows: torch.Tensor) -> None:
        """Cut a layer to ``rows``, int64 indices into what it holds."""
        key, value, n = self._keys[layer_idx], self._values[layer_idx], self._lengths[layer_idx]
        if key is None or value is None:
            return
        kept = len(rows)
        shape = (*key.shape[:2], kept + self._spare, key.shape[3])
        new_key, new_value = key.new_empty(shape), value.new_empty(shape)
        new_key[:, :, :kept] = key[:, :, :n].index_select(2, rows.to(key.device))
        new_value[:, :, :kept] = value[:, :, :n].index_select(2, rows.to(value.device))
        self._keys[layer_idx], self._values[layer_idx] = new_key, new_value
        self._lengths[layer_idx] = kept


def _roomy(buffer: torch.Tensor | None, length: int, n: int, multiple: int) -> torch.Tensor | None:
    """``buffer`` with zeroed room for ``n`` after ``length``; itself where it is there."""
    if buffer is None:
        return None
    if buffer.shape[2] < length + n or buffer.shape[2] % multiple:
        places = -(-max(length + n, buffer.shape[2]) // multiple) * multiple
        grown = buffer.new_empty(*buffer.shape[:2], places, buffer.shape[3])
        grown[:, :, :length] = buffer[:, :, :length]
        if buffer.is_cuda:  # it may be of another stream, which must not have its memory back too soon
            buffer.record_stream(torch.cuda.current_stream(buffer.device))
        buffer = grown
    buffer[:, :, length:].zero_()
    return buffer
