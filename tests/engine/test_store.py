"""The cache on disk: what comes back is what was written or nothing, whatever happens to who writes it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from seats_cli.config import MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine import marks, shelf
from seats_cli.engine.encode import window_batches
from seats_cli.engine.pipeline import Settings, prepare
from seats_cli.engine.prepare import media_info
from seats_cli.engine.reading import method_for
from seats_cli.engine.stage_one import select_windows
from seats_cli.engine.store import ClipFacts, ClipStore, key_of
from seats_cli.errors import MediaError, UsageError
from seats_cli.layout import Modality
from seats_cli.media import open_clip
from seats_cli.models.loading import load
from seats_cli.timing import Stopwatch
from tests.array_clip import clip_for
from tests.cli.conftest import environment
from tests.engine.made_windows import (
    FACTS,
    SHAPE,
    WARNINGS,
    batch_of,
    batches_of,
    found,
    hammer,
    key,
    record,
    seen,
)
from tests.media.clips import even_times, tone, write_video

ROOT = Path(__file__).parents[2]
MUCH = 10**9
OURS = {shelf.TAG_FILE, shelf.FORMAT_FILE}


@pytest.fixture
def store(tmp_path):
    return ClipStore(tmp_path / "cache", MUCH)


def inside(store: ClipStore) -> set[str]:
    """What lies in the folder, but its marks."""
    return set(os.listdir(store.folder)) - OURS


def size_of_one(folder: Path) -> int:
    store = ClipStore(folder, MUCH)
    record(store, key(0), batches_of(0))
    return shelf.entry_path(folder, key(0)).stat().st_size


# What comes back


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("saliency", [True, False])
def test_what_comes_back_is_what_was_written(store, dtype, saliency):
    batches = batches_of(3, dtype, saliency=saliency)
    before = seen(batches)
    with store.recording(key(1), batches) as recording:
        assert seen(recording.batches) == before
        assert store.load(key(1)) is None
        recording.commit(SHAPE, FACTS, WARNINGS)
    assert seen(batches) == before
    clip = ClipStore(store.folder, MUCH).load(key(1))
    for _ in range(2):
        assert seen(clip.batches("cpu")) == before
    assert (clip.shape, clip.facts, clip.warnings) == (SHAPE, FACTS, WARNINGS)
    assert clip.saliency is saliency
    assert inside(store) == {f"{key(1)}.clip"}
    assert store.warnings == []


def test_what_lacks_saliency_is_there_for_those_that_do_not_ask_for_it(store):
    record(store, key(0), batches_of(0, saliency=False))
    assert store.load(key(0)).saliency is False
    assert store.load(key(0), saliency=True) is None
    record(store, key(0), batches_of(0))
    assert found(store, key(0), saliency=True) == seen(batches_of(0))
    assert store.warnings == []


def test_parts_of_one_tensor_are_kept_without_the_rest(store):
    """Encoders give views; their memory is not what is kept."""
    whole = torch.randn(1000, 64)
    one = batch_of(Modality.VIDEO, (4, 2), levels=2)
    windows = dataclasses.replace(one.windows, embeddings=whole[:6, :16])
    batch = dataclasses.replace(one, windows=windows, deepstack=(whole[:6, :16], whole.T[:6, 3:19]))
    with torch.inference_mode():
        record(store, key(0), {Modality.VIDEO: [batch]})
        assert found(store, key(0)) == seen({Modality.VIDEO: [batch]})
    assert store.load(key(0)).n_bytes < 10_000


def test_a_clip_without_sound_or_without_windows(store):
    for number, batches in enumerate([{Modality.AUDIO: [], Modality.VIDEO: batches_of(0)[Modality.VIDEO]}, {}]):
        record(store, key(number), batches)
        assert found(store, key(number)) == seen(batches)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "shape", [(40, 2, 3, 21.0), (8, 3, 3, 0.0), (0, 1, 1, 4.4)], ids=["long", "picture", "sound"]
)
def test_a_clip_of_a_model_comes_back_and_is_selected_from_as_if_it_were_fresh(checkpoint, store, shape, dtype):
    loaded = load(ModelOptions(model=str(checkpoint), device="cpu", dtype=dtype))
    model = loaded.model
    clip, media = clip_for(loaded, *shape)
    with torch.inference_mode():
        prepared = prepare(loaded, clip, "What is it?", Settings(media), Stopwatch())

        def fresh(per_batch: int = 8):
            sizes = prepared.layout.window_sizes
            return window_batches(
                model,
                clip,
                prepared.waveform,
                prepared.shape,
                sizes,
                Stopwatch(),
                saliency=True,
                windows_per_batch=per_batch,
            )

        # Kept in batches of another size than those that it is held against.
        with store.recording(key(0), fresh(2)) as recording:
            expected = seen(recording.batches)
            recording.commit(prepared.shape, ClipFacts.of(clip, prepared.shape, "m"), clip.warnings)
        stored = store.load(key(0), saliency=True)
        assert seen(stored.batches(model.device)) == expected
        deep = [batch.deepstack for batch in stored.batches("cpu")[Modality.VIDEO]]
        assert all(map(len, deep)) == (model.model_type == "qwen3_omni_moe") or not deep
        for method in ("seats", "full", "random"):
            options = SelectionOptions(method=method, trr=0.3)
            for first, second in ((fresh(2), stored.batches("cpu")), (stored.batches("cpu"), fresh(2))):
                one, two = (
                    select_windows(
                        model, prepared.layout, batches, method_for(loaded, prepared.plan, options), Stopwatch()
                    )
                    for batches in (first, second)
                )
                assert torch.equal(one.index, two.index)
                assert torch.equal(one.embeddings, two.embeddings)
                assert one.embeddings.dtype == two.embeddings.dtype == model.dtype
                assert (one.deepstack is None) == (two.deepstack is None)
                assert one.deepstack is None or torch.equal(one.deepstack, two.deepstack)
                assert (one.encoder_flops, one.selection_flops) == (two.encoder_flops, two.selection_flops)
                assert one.trace.keys() == two.trace.keys()
                assert all(torch.equal(one.trace[name], two.trace[name]) for name in one.trace)
    info = stored.facts.media_info(clip.path, stored.shape, prepared.layout.n_windows)
    assert info == media_info(clip, prepared.shape, prepared.layout.n_windows)
    assert stored.shape == prepared.shape
    assert stored.warnings == tuple(clip.warnings)


def test_the_facts_of_a_file_are_those_of_its_report(loaded, tmp_path, store):
    path = tmp_path / "clip with a name.mp4"
    write_video(path, even_times(3, 10), sound=tone(2.5))
    settings = Settings(MediaOptions(end_seconds=2.0))
    clip = open_clip(str(path), settings.media)
    with torch.inference_mode():
        prepared = prepare(loaded, clip, "What?", settings, Stopwatch())
    with store.recording(key(0), {}) as recording:
        recording.commit(prepared.shape, ClipFacts.of(clip, prepared.shape, "m"), clip.warnings)
    stored = store.load(key(0))
    assert stored.shape == prepared.shape
    assert stored.facts.media_info("p", stored.shape, 3) == dataclasses.replace(
        media_info(clip, prepared.shape, 3), path="p"
    )
    assert (stored.facts.name, stored.facts.model) == (path.name, "m")
    assert str(tmp_path).encode() not in shelf.entry_path(store.folder, key(0)).read_bytes()


def test_windows_are_read_when_they_are_asked_for(store):
    """Memory holds a batch, not a clip."""
    record(store, key(0), batches_of(0))
    clip = store.load(key(0))
    read = []
    original = clip._entry.read
    clip._entry.read = lambda offset, n: read.append(n) or original(offset, n)
    stream = clip.batches("cpu")[Modality.VIDEO]
    assert read == []
    for n_read in (1, 2, 3):
        next(stream)
        assert len(read) == n_read


# Keys


def test_keys_name_content_and_not_files(loaded, tmp_path):
    one, copy, other = tmp_path / "one.wav", tmp_path / "copy.mp4", tmp_path / "other.wav"
    content = bytes(1_000_000)
    one.write_bytes(content)
    shutil.copy(one, copy)
    # Silent but for one place, which is at no end and not in the middle.
    other.write_bytes(content[:300_000] + b"sound" + content[300_005:])
    media = MediaOptions()
    assert key_of(one, loaded, media) == key_of(copy, loaded, media) != key_of(other, loaded, media)
    with pytest.raises(MediaError):
        key_of(tmp_path / "none.mp4", loaded, media)
    with pytest.raises(MediaError):
        key_of(tmp_path, loaded, media)


def test_keys_change_with_all_that_windows_depend_on(loaded, checkpoint, tmp_path, monkeypatch):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"clip")
    changed = {
        "fps": 1.0,
        "max_frames": 10,
        "min_pixels": 784,
        "max_pixels": 784_000,
        "start_seconds": 1.0,
        "end_seconds": 9.0,
        "audio": "off",
        "require_audio": True,
        "picture": "off",
        "decoder": "torchcodec",
    }
    assert set(changed) == {field.name for field in dataclasses.fields(MediaOptions)}
    medias = [MediaOptions(), *(MediaOptions(**{name: value}) for name, value in changed.items())]
    keys = [key_of(clip, loaded, media) for media in medias]
    others = ({"dtype": "bfloat16"}, {"attention": "eager"}, {"quant": "bnb-4bit"}, {"model_id": "other"})
    keys += [key_of(clip, dataclasses.replace(loaded, **other), MediaOptions()) for other in others]
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    copied = dataclasses.replace(loaded, folder=folder)
    assert key_of(clip, copied, MediaOptions()) == keys[0]
    for name in ("config.json", "preprocessor_config.json", "model-00001-of-00002.safetensors", "seats.toml"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        keys.append(key_of(clip, copied, MediaOptions()))
    for package in ("seats", "torch", "transformers", "av"):
        versions = {**marks.versions_mark(), package: "0.0.0"}
        monkeypatch.setattr("seats_cli.engine.store.versions_mark", lambda versions=versions: versions)
        keys.append(key_of(clip, loaded, MediaOptions()))
    assert len(set(keys)) == len(keys)
    assert all(shelf.ENTRY.fullmatch(f"{one}.clip") for one in keys)


# Writers that do not come to an end


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("after", range(6))
def test_nothing_is_left_of_what_is_not_committed(store, error, after):
    def run() -> None:
        with store.recording(key(0), batches_of(0)) as recording:
            for passed, _ in enumerate(batch for stream in recording.batches.values() for batch in stream):
                if passed == after:
                    raise error
            raise error

    with pytest.raises(error):
        run()
    assert inside(store) == set()
    assert store.load(key(0)) is None
    assert store.warnings == []


def test_an_encoder_that_fails_leaves_nothing(store):
    def broken():
        yield from batches_of(0)[Modality.AUDIO]
        raise ValueError("out of luck")

    with pytest.raises(ValueError, match="out of luck"):
        record(store, key(0), {Modality.AUDIO: broken()})
    assert inside(store) == set()


def test_windows_that_have_not_passed_are_no_entry(store):
    """An entry that lacks windows would be a wrong answer."""
    with store.recording(key(0), batches_of(0)) as recording:
        list(recording.batches[Modality.AUDIO])
        next(recording.batches[Modality.VIDEO])
        with pytest.raises(ValueError, match="not all windows have passed: VIDEO"):
            recording.commit(SHAPE, FACTS, WARNINGS)
    assert inside(store) == set()


KILLED = """
import os, sys
from pathlib import Path
from seats_cli.engine import entry, shelf, store
from tests.engine.made_windows import batches_of, key, record

FILES = {module.__file__ for module in (entry, shelf, store)}
root = Path(sys.argv[1])
batches = {modality: stream[:1] for modality, stream in batches_of(0).items()}

def child(folder, last):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            lines += 1
            if lines > last:
                os.kill(os.getpid(), 9)
        return trace
    sys.settrace(trace)
    record(store.ClipStore(folder, 10**9), key(0), batches)
    os._exit(0)

last = 0
while True:
    pid = os.fork()
    if not pid:
        child(root / str(last), last)
    _, status = os.waitpid(pid, 0)
    print(last, status, flush=True)
    if status != 9:
        break
    last += 1
"""


def process(script: str, *arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), environment()["PYTHONPATH"]])},
        timeout=300,
        check=False,
        **more,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_line_it_leaves_a_whole_entry_or_none(tmp_path):
    ended = process(KILLED, tmp_path)
    assert ended.returncode == 0, ended.stderr
    *killed, last = [tuple(map(int, line.split())) for line in ended.stdout.splitlines()]
    assert last[1] == 0
    assert len(killed) > 100
    batches = {modality: stream[:1] for modality, stream in batches_of(0).items()}
    expected, states = seen(batches), []
    for number, _ in killed:
        folder = tmp_path / str(number)
        if not folder.exists():
            continue  # before there was a cache
        parts = [name for name in os.listdir(folder) if shelf.PART.fullmatch(name)]
        store = ClipStore(folder, MUCH)  # sweeps
        clip = found(store, key(0))
        assert clip in (None, expected)
        assert inside(store) == (set() if clip is None else {f"{key(0)}.clip"})
        assert store.warnings == []
        if clip is None:
            record(store, key(0), batches)
            assert found(store, key(0)) == expected
        states.append((clip is None, bool(parts)))
    # Some with a part that was swept, then, from one line on, with an entry.
    assert (True, True) in states
    assert [missing for missing, _ in states] == sorted((missing for missing, _ in states), reverse=True)
    assert states[-1][0] is False


WAITING = """
import sys, time
from pathlib import Path
from seats_cli.engine.store import ClipStore
from tests.engine.made_windows import batches_of, key

store = ClipStore(Path(sys.argv[1]), 10**9)
with store.recording(key(0), batches_of(0)) as recording:
    for stream in recording.batches.values():
        for batch in stream:
            print("passed", flush=True)
            time.sleep(60)
"""


def test_what_a_writer_leaves_is_told_from_what_one_writes(tmp_path):
    folder = tmp_path / "cache"
    writer = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(folder)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), environment()["PYTHONPATH"]])},
    )
    try:
        assert writer.stdout.readline() == b"passed\n"
        store = ClipStore(folder, MUCH)
        (part,) = inside(store)
        os.utime(folder / part, (0, 0))
        shelf.clear(folder)
        ClipStore(folder, MUCH)
        assert inside(store) == {part}
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    ClipStore(folder, MUCH)
    assert inside(store) == set()


def test_where_nothing_can_be_locked_parts_go_by_age(store, monkeypatch):
    monkeypatch.setattr(shelf, "_lock", lambda file: None)
    with store.recording(key(0), batches_of(0)) as recording:
        assert shelf.sweep(store.folder) == 0
        (part,) = inside(store)
        os.utime(store.folder / part, (0, 0))
        assert shelf.sweep(store.folder) > 0
        assert seen(recording.batches) == seen(batches_of(0))
        recording.commit(SHAPE, FACTS, WARNINGS)
    # Its file was taken away while it wrote, as by a hand that removes the folder: not kept, and said.
    (line,) = store.take_warnings()
    assert "cannot be written" in line
    assert store.load(key(0)) is None
    assert inside(store) == set()


# Disks that take nothing


LIMITED = """
import resource, sys
from pathlib import Path
from seats_cli.engine.store import ClipStore
from tests.engine.made_windows import *

folder, one = Path(sys.argv[1]), int(sys.argv[2])
store = ClipStore(folder, 10**9)
batches = batches_of(0)
for most in (one - 1, one // 3, 0):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    with store.recording(key(0), batches) as recording:
        assert seen(recording.batches) == seen(batches)
        recording.commit(SHAPE, FACTS, WARNINGS)
    (line,) = store.take_warnings()
    assert "cannot be written: File too large; this clip is not kept" in line, line
    assert store.load(key(0)) is None
    assert sorted(p.name for p in folder.iterdir()) == ["CACHEDIR.TAG", "SEATS-CACHE"]
"""


def test_a_disk_that_is_full_costs_the_entry_alone(tmp_path):
    """At its end, in the middle, and from the first byte on."""
    ended = process(LIMITED, tmp_path / "cache", size_of_one(tmp_path / "one"))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_is_read(store):
    record(store, key(0), batches_of(0))
    store.folder.chmod(0o500)
    try:
        again = ClipStore(store.folder, MUCH)
        assert found(again, key(0)) == seen(batches_of(0))
        record(again, key(1), batches_of(1))
        (line,) = again.take_warnings()
        assert "cannot be written: Permission denied" in line
        assert inside(again) == {f"{key(0)}.clip"}
        with pytest.raises(UsageError, match="cannot be cleared"):
            shelf.clear(store.folder)
    finally:
        store.folder.chmod(0o700)


@pytest.mark.parametrize("function", ["open", "replace", "write"])
def test_what_cannot_be_written_passes(store, monkeypatch, function):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    if function == "open":
        monkeypatch.setattr(shelf, "new_part", refuse)
    elif function == "write":
        monkeypatch.setattr(shelf, "write_all", refuse)
    else:
        monkeypatch.setattr(os, "replace", refuse)
    with store.recording(key(0), batches_of(0)) as recording:
        assert seen(recording.batches) == seen(batches_of(0))
        recording.commit(SHAPE, FACTS, WARNINGS)
    (line,) = store.take_warnings()
    assert line == f"--cache {store.folder} cannot be written: Read-only file system; this clip is not kept"
    assert store.take_warnings() == ()
    assert inside(store) == set()


# Damage


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_whatever_byte_is_damaged_it_is_no_hit(store):
    """A byte changed, the end missing, zeros after a loss of power: encoded again, and a warning says so."""
    record(store, key(0), batches_of(0))
    path = shelf.entry_path(store.folder, key(0))
    whole = path.read_bytes()
    places = [*range(0, len(whole), 997), *range(len(whole) - 40, len(whole))]
    lengths = [0, 1, 13, 100, len(whole) // 2, len(whole) - 1]
    damaged = [flipped(whole, place) for place in places] + [whole[:n] for n in lengths]
    damaged += [whole + b"x", bytes(len(whole)), whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)]
    for content in damaged:
        path.write_bytes(content)
        assert store.load(key(0)) is None
        (line,) = store.take_warnings()
        assert "damaged" in line
        assert not path.exists()
        assert store.load(key(0)) is None
        assert store.take_warnings() == ()
    path.write_bytes(whole)
    assert found(store, key(0)) == seen(batches_of(0))


def test_an_entry_under_the_name_of_another_is_no_hit(store):
    record(store, key(0), batches_of(0))
    shutil.copy(shelf.entry_path(store.folder, key(0)), shelf.entry_path(store.folder, key(1)))
    assert store.load(key(1)) is None
    assert "damaged" in store.take_warnings()[0]
    assert inside(store) == {f"{key(0)}.clip"}


def test_something_else_under_the_name_of_an_entry_stays(store):
    path = shelf.entry_path(store.folder, key(0))
    path.mkdir()
    assert store.load(key(0)) is None
    assert "cannot be read" in store.take_warnings()[0]
    assert shelf.entries(store.folder) == []
    shelf.clear(store.folder)
    assert path.is_dir()


def test_damage_is_not_taken_for_what_has_replaced_it(store, monkeypatch):
    """Between the look and the removal another process may have put a whole one there."""
    record(store, key(0), batches_of(0))
    path = shelf.entry_path(store.folder, key(0))
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, 500))
    original = os.path.samestat

    def meanwhile(*statuses):
        other = path.with_name("other")
        other.write_bytes(whole)
        os.replace(other, path)
        monkeypatch.setattr(os.path, "samestat", original)
        return original(statuses[0], path.stat())

    monkeypatch.setattr(os.path, "samestat", meanwhile)
    assert store.load(key(0)) is None
    assert path.read_bytes() == whole


# Limits


def test_what_is_longest_unused_goes_first(tmp_path):
    one = size_of_one(tmp_path / "one")
    store = ClipStore(tmp_path / "cache", 3 * one + one // 2)
    for number in range(3):
        record(store, key(number), batches_of(number))
        os.utime(shelf.entry_path(store.folder, key(number)), (1000 + number, 1000 + number))
    assert store.load(key(0)) is not None  # used
    record(store, key(3), batches_of(3))
    assert inside(store) == {f"{key(number)}.clip" for number in (0, 2, 3)}
    record(store, key(2), batches_of(2))  # in place of itself
    assert inside(store) == {f"{key(number)}.clip" for number in (0, 2, 3)}
    smaller = ClipStore(store.folder, one + one // 2)
    # Even if all others seem to have been used after it: clocks differ.
    for number in (0, 3):
        os.utime(shelf.entry_path(store.folder, key(number)), (time.time() + 1e6,) * 2)
    record(smaller, key(2), batches_of(2))
    assert inside(store) == {f"{key(2)}.clip"}
    assert store.warnings == smaller.warnings == []


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_is_larger_than_the_limit_is_not_kept(tmp_path, share):
    limit = max(1, int(share * size_of_one(tmp_path / "one")) - 1)
    store = ClipStore(tmp_path / "cache", limit)
    small = {Modality.AUDIO: [batch_of(Modality.AUDIO, (1,))]}
    with store.recording(key(0), batches_of(0)) as recording:
        assert seen(recording.batches) == seen(batches_of(0))
        recording.commit(SHAPE, FACTS, WARNINGS)
    (line,) = store.take_warnings()
    assert "larger than the cache may be" in line
    assert "--cache-size" in line
    assert inside(store) == set()
    if share == 1.0:
        record(store, key(1), small)
        assert inside(store) == {f"{key(1)}.clip"}
        record(store, key(0), batches_of(0))  # what is there does not go for what is not kept
        assert inside(store) == {f"{key(1)}.clip"}


# Several at once


def test_what_was_found_stays_readable(store):
    record(store, key(0), batches_of(0))
    clip = store.load(key(0))
    stream = clip.batches("cpu")
    first = next(stream[Modality.AUDIO])
    assert shelf.clear(store.folder).entries == 1
    record(store, key(0), batches_of(7))
    rest = {modality: list(batches) for modality, batches in stream.items()}
    rest[Modality.AUDIO].insert(0, first)
    assert seen(rest) == seen(batches_of(0))
    assert seen(clip.batches("cpu")) == seen(batches_of(0))
    assert found(store, key(0)) == seen(batches_of(7))


def test_two_processes_hammer_one_small_folder(tmp_path):
    limit = 2 * size_of_one(tmp_path / "one") + 100
    env = {**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), environment()["PYTHONPATH"]])}
    run = [sys.executable, "-m", "tests.engine.made_windows", str(tmp_path / "cache")]
    workers = [
        subprocess.Popen(
            [*run, str(seed), "300", str(limit)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )
        for seed in range(2)
    ]
    outs = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outs
    hits, misses = (sum(column) for column in zip(*(map(int, out.split()) for out, _ in outs), strict=True))
    assert hits > 0
    assert misses > 0
    store = ClipStore(tmp_path / "cache", limit)
    assert all(shelf.ENTRY.fullmatch(name) for name in inside(store))
    assert sum(entry.n_bytes for entry in shelf.entries(store.folder)) <= limit


def test_threads_hammer_one_small_folder(tmp_path):
    limit = 2 * size_of_one(tmp_path / "one") + 100
    ended, failed = [], []

    def work(seed: int) -> None:
        try:
            ended.append(hammer(tmp_path / "cache", seed, 60, limit))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(ended) == 4


# Folders


def test_a_folder_is_marked_as_a_cache(store):
    """https://bford.info/cachedir/: the first 43 bytes tell backup programs to pass it over."""
    tag = (store.folder / "CACHEDIR.TAG").read_bytes()
    assert tag.startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert tag[43:44] == b"\n"
    ClipStore(store.folder, MUCH)
    assert set(os.listdir(store.folder)) == OURS


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / f"{key(0)}.clip").write_text("mine")
    for act in (lambda: ClipStore(tmp_path, MUCH), lambda: shelf.clear(tmp_path)):
        with pytest.raises(UsageError, match="is not a cache of seats"):
            act()
    assert os.listdir(tmp_path) == [f"{key(0)}.clip"]


def test_only_entries_are_cleared(store):
    record(store, key(0), batches_of(0))
    other = ["notes.txt", f"{key(0)}.clip.bak", f"{'g' * 64}.clip", ".part-mine", "folder"]
    for name in other[:-1]:
        (store.folder / name).write_text("mine")
    (store.folder / "folder").mkdir()
    (store.folder / "folder" / f"{key(1)}.clip").write_text("mine")
    target = store.folder.parent / "target"
    target.write_text("mine")
    (store.folder / f"{key(2)}.clip").symlink_to(target)
    freed = shelf.clear(store.folder)
    assert freed.entries == 1
    assert inside(store) == {*other, f"{key(2)}.clip"}
    assert target.read_text() == "mine"
    assert shelf.clear(store.folder) == shelf.Freed()


def test_clear_by_age(store):
    for number, days in enumerate((0, 2, 4)):
        record(store, key(number), batches_of(0))
        os.utime(shelf.entry_path(store.folder, key(number)), (time.time() - days * 86_400,) * 2)
    assert shelf.clear(store.folder, 3 * 86_400).entries == 1
    assert inside(store) == {f"{key(0)}.clip", f"{key(1)}.clip"}
    os.utime(shelf.entry_path(store.folder, key(0)), (time.time() + 1e6,) * 2)
    assert shelf.clear(store.folder).entries == 2


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.write_text("here"), "is not a folder"),
        (lambda path: (path.mkdir(), (path / shelf.FORMAT_FILE).write_text("2\n")), "of another version of seats"),
    ],
)
def test_a_place_that_cannot_be_a_cache_is_one_line(tmp_path, prepare, words):
    path = tmp_path / "place"
    prepare(path)
    with pytest.raises(UsageError, match=words):
        ClipStore(path, MUCH)
    (tmp_path / "file").write_text("here")
    with pytest.raises(UsageError, match="cannot be written"):
        ClipStore(tmp_path / "file" / "cache", MUCH)
