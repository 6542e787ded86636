"""One encoded clip in one file of the cache: its windows, and what a report says of it. No torch.

    MAGIC | batch | batch | ... | index, as JSON | FOOTER

A batch is a safetensors file by itself. The index stands at the end, so that batches are written as they come and
nothing is held; the footer finds it. Everything has a checksum: a machine that loses power may leave any bytes.
"""

from __future__ import annotations

import io
import json
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from seats_cli.engine.prepare import ClipShape
from seats_cli.layout import Modality, VideoGrids
from seats_cli.media.types import Clip
from seats_cli.report import MediaInfo

MAGIC = b"seats clip 1\n"
END = b"clip end"
FOOTER = struct.Struct("<QI8s")
"""Bytes of the index, its CRC-32, END."""
CHUNK_BYTES = 1 << 20


class DamagedEntryError(Exception):
    """An entry is not as it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What a report says of a clip, beside its shape and its path, which is the caller's.

    Attributes:
        name: Of the file it was read from, without folders; to be shown, nothing depends on it.
        model: That encoded it, as its user named it; likewise.
        seconds_video: Length of the picture in the used part; 0 without one.
        seconds_audio: Length of what is heard; 0 without.
        frames: That are seen.
        fps: Their true rate; None without picture.
        has_audio_track: Whether the file has sound, heard or not.
    """

    name: str
    model: str
    seconds_video: float
    seconds_audio: float
    frames: int
    fps: float | None
    has_audio_track: bool

    @classmethod
    def of(cls, clip: Clip, shape: ClipShape, model: str) -> Self:
        """Read them off an open clip.

        Args:
            clip: Opened.
            shape: What is seen and heard of it.
            model: As its user named it.
        """
        return cls(
            name=os.path.basename(clip.path),
            model=model,
            seconds_video=clip.seconds_video if shape.video else 0.0,
            seconds_audio=clip.seconds_audio if shape.n_audio_tokens else 0.0,
            frames=clip.plan.n_frames if clip.plan else 0,
            fps=clip.plan.fps if clip.plan else None,
            has_audio_track=clip.has_audio_track,
        )

    @property
    def seconds(self) -> float:
        """Length of the used part."""
        return max(self.seconds_video, self.seconds_audio)

    def media_info(self, path: str | None, shape: ClipShape, n_windows: int) -> MediaInfo:
        """The same as ``prepare.media_info`` gives for the open clip.

        Args:
            path: As the caller named the clip.
            shape: Of the clip.
            n_windows: Of its layout.
        """
        return MediaInfo(
            path=path,
            seconds_video=self.seconds_video,
            seconds_audio=self.seconds_audio,
            frames=self.frames,
            fps=self.fps,
            audio_track=self.has_audio_track,
            width=shape.frame_size[1] if shape.frame_size else None,
            height=shape.frame_size[0] if shape.frame_size else None,
            grids=shape.video.n_grids if shape.video else 0,
            windows=n_windows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """Where a batch of windows lies in an entry, and all of it that is no tensor.

    Attributes:
        modality: VIDEO or AUDIO.
        offset: First byte.
        n_bytes: How many.
        checksum: CRC-32 of them.
        first_window: As in ``EncodedWindows``.
        window_sizes: Likewise.
        saliency: Whether it is there.
        deepstack: Levels there are.
        encoder_flops: As in ``WindowBatch``.
        saliency_flops: Likewise.
    """

    modality: Modality
    offset: int
    n_bytes: int
    checksum: int
    first_window: int
    window_sizes: tuple[int, ...]
    saliency: bool
    deepstack: int
    encoder_flops: int
    saliency_flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """All of an entry but its tensors.

    Attributes:
        key: Of the entry.
        shape: The clip in tokens.
        facts: What its report says.
        warnings: What was cut, replaced or missing.
        modalities: In the order in which they are encoded; each may have no batches.
        batches: In the order in which they were written, those of one modality in sequence order.
    """

    key: str
    shape: ClipShape
    facts: ClipFacts
    warnings: tuple[str, ...]
    modalities: tuple[Modality, ...]
    batches: tuple[BatchRecord, ...]

    @property
    def saliency(self) -> bool:
        """Whether methods that ask for saliency can be shown these windows."""
        return all(batch.saliency for batch in self.batches)

    def to_bytes(self) -> bytes:
        """The end of an entry: the index and the footer."""
        text = json.dumps(asdict(self)).encode()
        return text + FOOTER.pack(len(text), zlib.crc32(text), END)

    @classmethod
    def from_bytes(cls, text: bytes) -> Self:
        """Read the index without the footer.

        Raises:
            DamagedEntryError: It is no index.
        """
        try:
            found = json.loads(text)
            return cls(
                key=str(found["key"]),
                shape=_shape(found["shape"]),
                facts=ClipFacts(**found["facts"]),
                warnings=tuple(map(str, found["warnings"])),
                modalities=tuple(map(Modality, found["modalities"])),
                batches=tuple(map(_batch, found["batches"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedEntryError(f"its index cannot be read: {type(error).__name__}: {error}") from None


def _shape(found: Mapping[str, Any]) -> ClipShape:
    video, size = found["video"], found["frame_size"]
    return ClipShape(
        None if video is None else VideoGrids(**video),
        None if size is None else (int(size[0]), int(size[1])),
        int(found["n_mel_frames"]),
        int(found["n_audio_tokens"]),
    )


def _batch(found: Mapping[str, Any]) -> BatchRecord:
    sizes = tuple(map(int, found["window_sizes"]))
    return BatchRecord(**{**found, "modality": Modality(found["modality"]), "window_sizes": sizes})


class EntryFile:
    """An entry, open: what is read of it stays readable and the same, even when it is removed or replaced.

    Args:
        path: Of the entry.

    Attributes:
        n_bytes: Size of the file.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        # Whoever is not done with the batches leaves iterators behind, and says nothing.
        weakref.finalize(self, os.close, self._fd)
        self._lock = threading.Lock()
        self.n_bytes = os.fstat(self._fd).st_size

    @cached_property
    def index(self) -> Index:
        """All but the tensors.

        Raises:
            OSError: It cannot be read.
            DamagedEntryError: The entry is not as it was written. Of the batches that is not looked at.
        """
        least = len(MAGIC) + FOOTER.size
        if self.n_bytes < least or self.read(0, len(MAGIC)) != MAGIC:
            raise DamagedEntryError("it does not begin as an entry does")
        n_index, checksum, end = FOOTER.unpack(self.read(self.n_bytes - FOOTER.size, FOOTER.size))
        start = self.n_bytes - FOOTER.size - n_index
        if end != END or start < len(MAGIC):
            raise DamagedEntryError("its end is missing")
        text = self.read(start, n_index)
        if zlib.crc32(text) != checksum:
            raise DamagedEntryError("its index was changed")
        return Index.from_bytes(text)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Some of its bytes.

        Raises:
            OSError: They cannot be read, or are not there any more.
        """
        with self._lock, io.FileIO(self._fd, closefd=False) as file:
            file.seek(offset)
            parts = []
            while n_bytes:
                part = file.read(n_bytes)
                if not part:
                    raise OSError("the file ends early")
                parts.append(part)
                n_bytes -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self, key: str) -> None:
        """See that it is the entry of this key, and that every byte is as it was written.

        Raises:
            OSError: It cannot be read.
            DamagedEntryError: It is not.
        """
        if self.index.key != key:
            raise DamagedEntryError("it has the name of another")
        for batch in self.index.batches:
            if not 0 <= batch.offset <= batch.offset + batch.n_bytes <= self.n_bytes:
                raise DamagedEntryError("windows are missing")
            checksum = 0
            for start in range(0, batch.n_bytes, CHUNK_BYTES):
                part = self.read(batch.offset + start, min(CHUNK_BYTES, batch.n_bytes - start))
                checksum = zlib.crc32(part, checksum)
            if checksum != batch.checksum:
                raise DamagedEntryError("windows were changed")

    def is_at(self, path: Path) -> bool:
        """Whether this very file is what lies there now."""
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except OSError:
            return False
