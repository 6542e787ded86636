"""Encoded windows of clips on disk, so that a second question about a clip costs no decoding and no encoding.

What comes back is what was written, bit for bit, a batch at a time. A cache never fails an answer: what cannot be
written is not kept, what is damaged is removed, and a warning says so.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path

import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from seats_cli.config import MediaOptions
from seats_cli.engine import shelf
from seats_cli.engine.encode import WindowBatch
from seats_cli.engine.entry import MAGIC, BatchRecord, ClipFacts, DamagedEntryError, EntryFile, Index
from seats_cli.engine.marks import digest_of, model_mark, versions_mark
from seats_cli.engine.prepare import ClipShape
from seats_cli.errors import SeatsError
from seats_cli.layout import Modality
from seats_cli.models.loading import LoadedModel
from seats_cli.selection.base import EncodedWindows

__all__ = ["ClipFacts", "ClipStore", "Recording", "StoredClip", "key_of"]


def key_of(path: Path, loaded: LoadedModel, media: MediaOptions) -> str:
    """Names the encoded windows of a clip: a hash of all that they depend on.

    Args:
        path: Of the clip; its content counts, not its name.
        loaded: The model, as it computes.
        media: What of the clip is seen and heard.

    Raises:
        MediaError: The clip cannot be read.
    """
    content = {
        "clip": digest_of(path),
        "media": asdict(media),
        "model": model_mark(loaded),
        "versions": versions_mark(*([media.decoder] if media.decoder == "torchcodec" else [])),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _pack(batch: WindowBatch) -> bytes:
    """Its tensors as a safetensors file, in memory."""
    windows = batch.windows
    tensors = {"embeddings": windows.embeddings}
    if windows.saliency is not None:
        tensors["saliency"] = windows.saliency
    tensors |= {f"deepstack.{level}": tensor for level, tensor in enumerate(batch.deepstack)}
    # Of their own memory each: parts of one tensor cannot be saved.
    return bytes_of({name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()})


def _unpack(content: bytes, record: BatchRecord, device: torch.device | str) -> WindowBatch:
    tensors = {name: tensor.to(device) for name, tensor in tensors_of(content).items()}
    windows = EncodedWindows(
        record.modality,
        tensors["embeddings"],
        tensors["saliency"] if record.saliency else None,
        record.window_sizes,
        record.first_window,
    )
    deepstack = tuple(tensors[f"deepstack.{level}"] for level in range(record.deepstack))
    return WindowBatch(windows, record.encoder_flops, record.saliency_flops, deepstack)


class StoredClip:
    """A clip that was found in a cache. It stays readable while this object lives, whatever happens to the cache.

    Args:
        entry: Checked.
    """

    def __init__(self, entry: EntryFile) -> None:
        self._entry = entry

    @property
    def shape(self) -> ClipShape:
        """The clip in tokens."""
        return self._entry.index.shape

    @property
    def facts(self) -> ClipFacts:
        """What a report says of it."""
        return self._entry.index.facts

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was cut, replaced or missing when it was read."""
        return self._entry.index.warnings

    @property
    def saliency(self) -> bool:
        """Whether methods that ask for saliency can be shown it."""
        return self._entry.index.saliency

    @property
    def n_bytes(self) -> int:
        """Its size on disk."""
        return self._entry.n_bytes

    def batches(self, device: torch.device | str) -> dict[Modality, Iterator[WindowBatch]]:
        """The windows by modality, each batch read when it is asked for; callable again.

        Args:
            device: Where the tensors go.

        Raises:
            SeatsError: When a batch is asked for: the disk does not give it.
        """
        return {modality: self._read(modality, device) for modality in self._entry.index.modalities}

    def _read(self, modality: Modality, device: torch.device | str) -> Iterator[WindowBatch]:
        for record in self._entry.index.batches:
            if record.modality is modality:
                try:
                    content = self._entry.read(record.offset, record.n_bytes)
                except OSError as error:
                    problem = f"{self.facts.name}: its windows in the cache cannot be read: "
                    raise SeatsError(f"{problem}{error.strerror or error}", "ask without --cache") from None
                yield _unpack(content, record, device)


class Recording:
    """Windows that are kept as they pass. Made by ``ClipStore.recording``.

    Args:
        store: That they go to.
        key: Of the clip.
        batches: By modality, as they are encoded.

    Attributes:
        batches: The same, to be used in their place.
    """

    def __init__(self, store: ClipStore, key: str, batches: Mapping[Modality, Iterable[WindowBatch]]) -> None:
        self._store, self._key = store, key
        self._records: list[BatchRecord] = []
        self._n_bytes = 0
        self._part: tuple[Path, FileIO] | None = None
        self._held = ExitStack()
        self._pending = set(batches)
        self._modalities = tuple(batches)
        self.batches: dict[Modality, Iterator[WindowBatch]] = {
            modality: self._passing(modality, stream) for modality, stream in batches.items()
        }
        try:
            self._part = self._held.enter_context(shelf.new_part(store.folder))
            self._write(MAGIC)
        except OSError as error:
            self._give_up(error)

    def _passing(self, modality: Modality, stream: Iterable[WindowBatch]) -> Iterator[WindowBatch]:
        for batch in stream:
            self._keep(batch)
            yield batch
        self._pending.discard(modality)

    def _keep(self, batch: WindowBatch) -> None:
        if self._part is None:
            return
        content, windows = _pack(batch), batch.windows
        record = BatchRecord(
            modality=windows.modality,
            offset=self._n_bytes,
            n_bytes=len(content),
            checksum=zlib.crc32(content),
            first_window=windows.first_window,
            window_sizes=tuple(windows.window_sizes),
            saliency=windows.saliency is not None,
            deepstack=len(batch.deepstack),
            encoder_flops=batch.encoder_flops,
            saliency_flops=batch.saliency_flops,
        )
        try:
            self._write(content)
        except OSError as error:
            self._give_up(error)
        else:
            self._records.append(record)

    def _write(self, content: bytes) -> None:
        if self._part is None:
            return
        self._n_bytes += len(content)
        if self._n_bytes > self._store.limit_bytes:
            self._store.warn(
                f"the encoded clip is larger than the cache may be ({self._store.limit_bytes / 1e9:.3g} GB): "
                "it is not kept; a larger --cache-size would keep it"
            )
            self.discard()
        else:
            shelf.write_all(self._part[1], content)

    def _give_up(self, error: OSError) -> None:
        self._store.warn_unwritable(error)
        self.discard()

    def discard(self) -> None:
        """Keep nothing of it, unless it has been committed; what still passes is passed on."""
        self._part = None
        with suppress(OSError):
            self._held.close()

    def commit(self, shape: ClipShape, facts: ClipFacts, warnings: Sequence[str]) -> None:
        """Make it an entry, and room for it. To be called when all windows have passed.

        Args:
            shape: The clip in tokens.
            facts: What a report says of it.
            warnings: What was cut, replaced or missing; not what depends on a question.

        Raises:
            ValueError: Windows are still to come: this would be an entry that lacks them.
        """
        if self._pending:
            raise ValueError(f"not all windows have passed: {', '.join(sorted(m.name for m in self._pending))}")
        index = Index(
            key=self._key,
            shape=shape,
            facts=facts,
            warnings=tuple(warnings),
            modalities=self._modalities,
            batches=tuple(self._records),
        )
        try:
            self._write(index.to_bytes())
            if self._part is None:
                return
            # No fsync: after a loss of power the checksums tell, and the clip is encoded again.
            os.replace(self._part[0], shelf.entry_path(self._store.folder, self._key))
        except OSError as error:
            self._give_up(error)
            return
        self.discard()
        self._store.make_room(self._key)


class ClipStore:
    """A cache on disk. Several processes and threads may use one folder at once, each with a store of its own.

    Args:
        folder: Made a cache when it is new or empty.
        limit_bytes: For all entries together; those that are longest unused go first.

    Attributes:
        folder: As given.
        limit_bytes: As given.
        warnings: What went wrong, a line each; nothing of it changes an answer. Whoever reports them empties it
            (``take_warnings``).

    Raises:
        UsageError: The folder holds something else, or cannot be made a cache.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.warnings: list[str] = []
        shelf.claim(folder)
        shelf.sweep(folder)

    def apart(self) -> ClipStore:
        """The same cache for another thread: its warnings are its own."""
        other = copy.copy(self)
        other.warnings = []
        return other

    def warn(self, line: str) -> None:
        """Note a line, once."""
        if line not in self.warnings:
            self.warnings.append(line)

    def warn_unwritable(self, error: OSError) -> None:
        """Note that something cannot be kept."""
        self.warn(f"--cache {self.folder} cannot be written: {error.strerror or error}; this clip is not kept")

    def take_warnings(self) -> tuple[str, ...]:
        """The warnings since the last call."""
        taken = tuple(self.warnings)
        del self.warnings[: len(taken)]
        return taken

    def load(self, key: str, *, saliency: bool = False) -> StoredClip | None:
        """Find a clip; it then counts as used just now.

        All of it is read once, to see that it is whole.

        Args:
            key: Of ``key_of``.
            saliency: It must hold what methods need that ask for saliency.

        Returns:
            None: it is not there. A damaged one is removed, and a warning says so.
        """
        path = shelf.entry_path(self.folder, key)
        try:
            entry = EntryFile(path)
            try:
                entry.check(key)
            except DamagedEntryError as error:
                self.warn(f"the clip in the cache was damaged ({error}): it is encoded again")
                with suppress(OSError):
                    if entry.is_at(path):  # and not a whole one, just put in its place
                        path.unlink()
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            self.warn(f"{path} cannot be read: {error.strerror or error}; the clip is encoded again")
            return None
        if saliency and not entry.index.saliency:
            return None
        with suppress(OSError):  # of a folder that may only be read nothing is evicted
            os.utime(path)
        return StoredClip(entry)

    @contextmanager
    def recording(self, key: str, batches: Mapping[Modality, Iterable[WindowBatch]]) -> Iterator[Recording]:
        """Keep windows while they pass; unless they are committed in the end, nothing is left.

        An entry of that key is replaced. If the folder cannot be written, a warning says so, and the windows pass.

        Args:
            key: Of ``key_of``.
            batches: By modality, as they are encoded.
        """
        recording = Recording(self, key, batches)
        try:
            yield recording
        finally:
            recording.discard()

    def make_room(self, keep: str) -> None:
        """Evict what is longest unused until the rest is within the limit.

        Args:
            keep: The key of an entry that stays.
        """
        try:
            shelf.make_room(self.folder, self.limit_bytes, keep)
        except OSError as error:
            self.warn(f"--cache {self.folder} is larger than it may be: {error.strerror or error}")
