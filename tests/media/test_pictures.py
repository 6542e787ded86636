"""What is decoded by threads and with gaps, against one pass over the whole file: bit for bit."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import closing
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError, TimeLimitError
from seats_cli.media import ahead as ahead_room
from seats_cli.media import frames as frames_room
from seats_cli.media import open_clip
from seats_cli.media import pictures as pictures_room
from seats_cli.media import skipping as skipping_room
from seats_cli.media.cores import at_most
from seats_cli.media.frames import Losses, count_flaws, pick_frames
from seats_cli.media.outline import sketch_clip
from seats_cli.media.pictures import pictures
from seats_cli.timelimit import time_limit
from tests.media.clips import even_times, has_encoder, open_files, tone, write_video
from tests.media.test_rotation import ONE, patch_matrix

SIZE = (80, 48)
TIMES = even_times(8, 25)
CLOCK = Fraction(1, 25)


@cache
def texture_of(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (height, 4 * width, 3))


@cache
def moving(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A texture that slides, so that motion is found, with grain, so that every picture is another."""
    width, height = size
    texture = texture_of(width, height)
    grain = np.random.default_rng(number).integers(-20, 20, (height, width, 3))
    left = (number * 3) % (3 * width)
    return np.clip(texture[:, left : left + width] // 2 + 60 + grain, 0, 255).astype(np.uint8)


_written: dict[tuple, bytes] = {}


def film(path: Path, times=TIMES, **more) -> Path:
    """A file of moving pictures; the same one is encoded once."""
    key = (path.suffix, tuple(times), repr(sorted(more.items())))
    if key not in _written:
        _written[key] = encode(path, times, **more).read_bytes()
    path.write_bytes(_written[key])
    return path


def encode(path: Path, times, **more) -> Path:
    codec = more.get("codec", "libx264")
    if codec == "libx264":
        more["options"] = {
            "preset": "veryfast",
            "crf": "28",
            "bf": "3",
            "sc_threshold": "0",
            **more.get("options", {}),
        }
    return write_video(path, times, size=SIZE, picture=moving, **{"gop": 25, "time_base": CLOCK, **more})


def by_one_pass(path: Path, **options):
    """Pictures, times and warnings as one decoder gives them that is fed all packets."""
    picture = sketch_clip(path, MediaOptions(**options)).picture
    track, losses = picture.track, Losses()
    shown, last = [], None
    picked = pick_frames(str(path), track.info.stream_index, track.timeline, picture.wanted_ticks, losses)
    for ticks, frame in picked:
        if ticks != last:
            count_flaws(frame, track.first, losses)
            same = track.first.has_size_of(frame)
            width, height = (None, None) if same else (track.first.width, track.first.height)
            image = track.first.orientation.apply(frame.to_ndarray(format="rgb24", width=width, height=height))
        shown.append((ticks, image))
        last = ticks
    return shown, losses.lines()


@pytest.fixture
def way(monkeypatch):
    """Notes how pictures were had: a list that ``whole`` is added to when one pass was needed."""
    taken = []
    real = pictures_room.whole_pass

    def noted(*args):
        taken.append("whole")
        return real(*args)

    monkeypatch.setattr(pictures_room, "whole_pass", noted)
    return taken


def same(path: Path, n_threads: int = 3, **options) -> None:
    expected, lines = by_one_pass(path, **options)
    losses = Losses()
    wanted = sketch_clip(path, MediaOptions(**options)).picture.wanted(str(path))
    with at_most(n_threads):
        found = list(pictures(wanted, losses, None))
    assert [ticks for ticks, _ in found] == [ticks for ticks, _ in expected]
    for (_, image), (_, right) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(image, right)
    assert losses.lines() == lines
    assert open_files(path) == 0


H264 = {
    "plain": {},
    "no b": {"bf": "0"},
    "one reference": {"refs": "1", "bf": "2"},
    "four references": {"x264-params": "ref=4:b-pyramid=normal", "bf": "5"},
    "strict pyramid": {"x264-params": "b-pyramid=strict:ref=4", "bf": "4"},
    "weighted": {"x264-params": "weightp=2:weightb=1:direct=temporal"},
    "slices": {"slices": "4"},
    "cavlc": {"coder": "0"},
    "no deblocking": {"x264-params": "no-deblock=1"},
    "scene cuts": {"sc_threshold": "80"},
}


@pytest.mark.parametrize("name", H264)
def test_h264(tmp_path, way, name):
    suffix = ("mp4", "mkv", "ts")[list(H264).index(name) % 3]
    same(film(tmp_path / f"a.{suffix}", options=H264[name]))
    assert way == []


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_containers(tmp_path, way, suffix):
    same(film(tmp_path / f"a.{suffix}"))
    same(tmp_path / f"a.{suffix}", start_seconds=3.3)
    assert way == []


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_any_number_of_threads(tmp_path, way, n_threads):
    path = film(tmp_path / "a.mp4")
    same(path, n_threads)
    same(film(tmp_path / "b.mp4", gop=1000), n_threads)
    assert way == []


OPEN = [
    ("libx264", "mp4", {"x264-params": "open-gop=1:b-pyramid=normal", "bf": "4"}),
    ("libx264", "ts", {"x264-params": "open-gop=1", "bf": "3"}),
    ("libx265", "mp4", {"x265-params": "log-level=none:open-gop=1:bframes=4:keyint=25:min-keyint=25"}),
    ("libx265", "mkv", {"x265-params": "log-level=none:open-gop=0:bframes=3:temporal-layers=2:keyint=25"}),
    ("mpeg2video", "ts", {"bf": "2"}),
    ("mpeg2video", "mpg", {"bf": "0"}),
    ("mpeg2video", "mkv", {"bf": "2", "flags": "+ildct+ilme"}),
    ("mpeg1video", "mkv", {"bf": "2"}),
    ("mpeg4", "mp4", {"bf": "2"}),
    ("mpeg4", "mkv", {"bf": "3", "flags": "+mv4+qpel"}),
    ("libvpx-vp9", "webm", {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "realtime"}),
    ("libvpx", "webm", {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "realtime"}),
    ("libsvtav1", "mp4", {"preset": "12"}),
    ("mjpeg", "mov", {}),
    ("ffv1", "mkv", {}),
]


@pytest.mark.parametrize(("codec", "suffix", "options"), OPEN)
def test_other_structures(tmp_path, codec, suffix, options):
    if not has_encoder(codec):
        return
    pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "bgr0"}.get(codec, "yuv420p")
    path = film(tmp_path / f"a.{suffix}", codec=codec, options=options, pix_fmt=pix_fmt)
    same(path)
    first = sketch_clip(path, MediaOptions()).picture.track.first
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (first.width, first.height) == (frame.width, frame.height)
        assert first.interlaced == bool(frame.interlaced_frame)
    same(path, start_seconds=3.3, end_seconds=6.1)


@pytest.mark.parametrize(
    "options", [{"x264-params": "intra-refresh=1"}, {"flags": "+ildct+ilme", "x264-params": "tff=1"}]
)
def test_where_a_keyframe_is_none_and_where_pictures_have_fields(tmp_path, options):
    for suffix in ("mp4", "ts"):
        same(film(tmp_path / f"a.{suffix}", options=options))


def test_fields_are_never_passed_over(tmp_path):
    path = film(tmp_path / "a.mp4", options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
    wanted = sketch_clip(path, MediaOptions()).picture.wanted(str(path))
    assert wanted.first.interlaced
    assert not pictures_room._plan(wanted).source.skips


@pytest.mark.parametrize(
    "options",
    [
        {"start_seconds": 2.3},
        {"start_seconds": 4.1, "end_seconds": 4.4},
        {"fps": 0.3},
        {"fps": 25.0},
        {"fps": 60.0},
        {"max_frames": 2},
        {"max_frames": 6},
    ],
)
def test_any_plan(tmp_path, way, options):
    same(film(tmp_path / "a.mp4", gop=20), **options)
    assert way == []


def test_gaps_are_jumped_over(tmp_path, way):
    path = film(tmp_path / "a.mp4", even_times(30, 10), rate=10, gop=10, time_base=Fraction(1, 10))
    same(path, fps=0.2)
    assert way == []


def test_variable_rates_edits_and_times_below_zero(tmp_path, way):
    gaps = np.random.default_rng(5).choice([10, 40, 41, 250, 900], size=60)
    times = [Fraction(int(ms), 1000) for ms in np.concatenate([[0], np.cumsum(gaps)])]
    clock = Fraction(1, 1000)
    same(film(tmp_path / "a.mkv", times, time_base=clock))
    same(film(tmp_path / "b.mp4", [t + Fraction(37, 10) for t in times], time_base=clock))
    assert way == []
    early = [t - Fraction(12, 25) for t in TIMES]
    same(film(tmp_path / "c.mp4", early, container_options={"avoid_negative_ts": "disabled"}))


def test_times_by_order_take_one_pass(tmp_path, way):
    same(film(tmp_path / "a.avi", codec="mpeg4", options={"bf": "2"}))
    same(film(tmp_path / "a.h264", format="h264"))
    assert way == ["whole", "whole"]


@pytest.mark.parametrize("turn", [(0, 1, -1, 0), (-1, 0, 0, 1)])
def test_turned_pictures(tmp_path, way, turn):
    path = film(tmp_path / "a.mp4")
    patch_matrix(path, tuple(ONE * value for value in turn))
    same(path)
    assert way == []


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_sizes_that_change_on_the_way(tmp_path):
    def larger(number):
        return moving(number, (128, 96))

    one = film(tmp_path / "a.ts", TIMES[:100])
    two = write_video(
        tmp_path / "b.ts", [t + 4 for t in TIMES[:100]], size=(128, 96), picture=larger, time_base=CLOCK, gop=25
    )
    path = joined(tmp_path / "c.ts", one, two)
    same(path)
    assert any("another size" in line for line in by_one_pass(path)[1])


@pytest.fixture
def one_thread(monkeypatch):
    """What FFmpeg makes up for damaged pictures depends on how its threads race."""
    real = frames_room.decode_stream
    monkeypatch.setattr(frames_room, "decode_stream", lambda c, s, n, lost: real(c, s, 1, lost))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("damaged", [{3}, {60, 61}, {130, 151, 180}, set(range(100, 130)), {199}])
def test_damaged_packets(tmp_path, suffix, damaged):
    same(film(tmp_path / f"a.{suffix}", damaged=damaged))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits(tmp_path, seed):
    """Many of them are not seen by any decoder, and change the picture."""
    codec, suffix = [("libx264", "mkv"), ("mpeg4", "mp4"), ("mpeg2video", "ts")][seed % 3]
    path = film(tmp_path / f"a.{suffix}", codec=codec, options={"slices": "1"} if codec == "libx264" else {})
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(seed)
    places = rng.integers(len(data) // 8, len(data) * 3 // 4, 1 + seed)
    data[places] ^= (1 << rng.integers(0, 8, places.size)).astype(np.uint8)
    path.write_bytes(data.tobytes())
    try:
        by_one_pass(path)
    except MediaError:
        return
    same(path)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_files_cut_short(tmp_path, share):
    for name, more in (("a.mkv", {}), ("a.mp4", {"container_options": {"movflags": "faststart"}}), ("a.ts", {})):
        path = film(tmp_path / name, **more)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        same(path)


def test_keyframes_that_the_container_makes_up(tmp_path):
    """An mp4 without its list of sync samples calls all of them keyframes."""
    path = film(tmp_path / "a.mp4")
    data = path.read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))
    same(path)
    path = film(tmp_path / "b.mp4", codec="mpeg4", options={"bf": "2"})
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    same(path)


class Openings:
    """Notes with which options files are opened: a stand-in for ``av.open``."""

    def __init__(self, monkeypatch):
        self.quick = []
        real = av.open

        def noted(*args, **more):
            self.quick.append(more["options"].get("skip_frame") == "all")
            return real(*args, **more)

        monkeypatch.setattr(av, "open", noted)


@pytest.mark.parametrize(("suffix", "by_header"), [("mp4", True), ("mkv", True), ("ts", False)])
def test_only_the_first_opening_decodes_to_know_the_streams(tmp_path, monkeypatch, way, suffix, by_header):
    path = encode(tmp_path / f"a.{suffix}", TIMES, sound=tone(8))
    openings = Openings(monkeypatch)
    clip = open_clip(path, MediaOptions())
    assert clip.audio is not None
    with at_most(2):
        assert len(list(clip.frames())) == clip.plan.n_frames
    assert openings.quick == [False, *[by_header] * 3]
    assert way == []


def test_a_header_that_does_not_say_how_far_pictures_are_out_of_order(tmp_path, way):
    path = film(tmp_path / "a.mkv")
    data = bytearray(path.read_bytes())
    begin = data.index(b"\xff\xe1") + 4
    end = begin + int.from_bytes(data[begin - 2 : begin], "big")
    # bitstream_restriction_flag and what it announces, to the end: 1, 1, 1, 1, 0001001, 0001001, 011, 00101, 1.
    assert data[end - 4 : end] == bytes.fromhex("f1225960")
    data[end - 4] ^= 0x80
    path.write_bytes(data)
    same(path)
    assert way == []


class Counting:
    """Packets that decoders are given: a stand-in for ``packets``."""

    def __init__(self, monkeypatch):
        self.n = 0
        real = skipping_room.RunReader._decode

        def counted(reader, packet, *, wanted):
            self.n += 1
            return real(reader, packet, wanted=wanted)

        monkeypatch.setattr(skipping_room.RunReader, "_decode", counted)


@pytest.mark.parametrize("options", [{}, {"fps": 0.3}, {"fps": 10.0}, {"start_seconds": 2.0}, {"max_frames": 4}])
def test_no_more_is_decoded_than_by_one_pass(tmp_path, monkeypatch, way, options):
    path = film(tmp_path / "a.mp4", gop=10)
    counting = Counting(monkeypatch)
    clip = open_clip(path, MediaOptions(**options))
    assert len(list(clip.frames())) == clip.plan.n_frames
    assert way == []
    assert 0 < counting.n <= sketch_clip(path, MediaOptions(**options)).picture.n_decoded


def test_frames_that_no_other_needs_are_not_decoded(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", gop=1000)
    decoded = []
    real = skipping_room._Check.passed

    def noted(check, frames):
        decoded.extend(frames)
        return real(check, frames)

    monkeypatch.setattr(skipping_room._Check, "passed", noted)
    list(open_clip(path, MediaOptions()).frames())
    assert len(decoded) < 0.75 * len(TIMES)


def test_shrinking_once_in_the_thread_that_decoded(tmp_path):
    path = film(tmp_path / "a.mp4", even_times(24, 1), rate=1, gop=4, time_base=Fraction(1, 1))
    threads, n_calls = set(), 0
    lock = threading.Lock()

    def shrink(image):
        nonlocal n_calls
        with lock:
            n_calls += 1
            threads.add(threading.current_thread())
        return np.ascontiguousarray(image[::4, ::4])

    with at_most(2):
        frames = list(open_clip(path, MediaOptions()).frames(shrink))
    assert n_calls == 24
    assert len(frames) == 48
    assert threading.current_thread() not in threads
    for frame, (_, image) in zip(frames, by_one_pass(path)[0], strict=True):
        np.testing.assert_array_equal(frame.image, image[::4, ::4])


@pytest.mark.usefixtures("one_thread")
def test_shrinking_where_one_pass_is_needed(tmp_path, way):
    path = film(tmp_path / "a.mp4", damaged={50})
    frames = list(open_clip(path, MediaOptions()).frames(lambda image: np.ascontiguousarray(image[::2])))
    assert way == ["whole"]
    for frame, (_, image) in zip(frames, by_one_pass(path)[0], strict=True):
        np.testing.assert_array_equal(frame.image, image[::2])


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("seats-decoder")]


def test_nothing_is_left_when_nobody_wants_more(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead_room, "MOST_RESULTS", 1)
    path = film(tmp_path / "a.mp4", gop=10)
    for n_taken in (0, 1, 7):
        with at_most(3), closing(open_clip(path, MediaOptions()).frames()) as frames:
            for _ in range(n_taken):
                next(frames)
            assert bool(decoders()) == bool(n_taken)
        assert decoders() == []
        assert open_files(path) == 0


def test_what_shrinking_raises_reaches_the_one_who_waits(tmp_path):
    path = film(tmp_path / "a.mp4", gop=10)

    def fail(image):
        raise RuntimeError("no room")

    with at_most(3), pytest.raises(RuntimeError, match="no room") as caught:
        list(open_clip(path, MediaOptions()).frames(fail))
    assert decoders() == []
    assert open_files(path) == 0
    gc.collect()  # PyAV ties a frame to its own side data
    assert not any(type(one) is av.VideoFrame for one in gc.get_objects())
    assert "in fail" in "".join(caught.value.__notes__)


def test_the_time_limit_holds_in_the_threads(tmp_path):
    path = film(tmp_path / "a.mp4", gop=10)
    clip = open_clip(path, MediaOptions())

    def slow(image):
        time.sleep(0.2)
        return image

    with at_most(2), time_limit(0.5), pytest.raises(TimeLimitError):
        list(clip.frames(slow))
    assert decoders() == []
    assert open_files(path) == 0


def test_a_file_that_goes_away_on_the_way(tmp_path):
    path = film(tmp_path / "a.mp4", gop=10)
    clip = open_clip(path, MediaOptions())
    path.unlink()
    with at_most(3), pytest.raises(MediaError, match="no such file"):
        list(clip.frames())
    assert decoders() == []
