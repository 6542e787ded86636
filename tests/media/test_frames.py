"""Which source frames are kept, read back from the pictures themselves."""

import contextlib
import gc
import itertools
import weakref
from fractions import Fraction

import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError, UsageError
from seats_cli.media import frames as frames_room
from seats_cli.media import open_clip
from seats_cli.media.cores import at_most
from seats_cli.media.frames import Losses, pick_frames
from seats_cli.media.timeline import Timeline
from tests.media.clips import (
    coded_image,
    even_times,
    has_encoder,
    open_files,
    read_code,
    write_video,
)

NTSC = Fraction(30_000, 1001)
GRID_CLOCK = Fraction(1, 25)


def kept(clip):
    frames = list(clip.frames())
    assert [frame.index for frame in frames] == list(range(clip.plan.n_frames))
    return [read_code(frame.image) for frame in frames]


def nearest(times, wanted):
    """Frame numbers by the law, in exact arithmetic, for times from the first frame on."""
    shown = [time - times[0] for time in times]
    return [min(range(len(shown)), key=lambda k: (abs(shown[k] - t), k)) for t in wanted]


def halves(seconds, start=Fraction(0)):
    count = next(k for k in itertools.count(1) if Fraction(k, 2) >= seconds - Fraction(1, 10**6))
    return [start + Fraction(k, 2) for k in range(count)]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), NTSC, Fraction(24_000, 1001), Fraction(60)])
def test_constant_rate(tmp_path, fps):
    times = even_times(3.3, fps)
    clip = open_clip(write_video(tmp_path / "a.mp4", times, rate=fps), MediaOptions())
    assert kept(clip) == nearest(times, halves(len(times) / fps))
    assert clip.plan.fps == 2.0
    assert clip.video.n_source_frames == len(times)
    assert clip.video.average_fps == pytest.approx(float(fps), rel=1e-3)
    assert clip.seconds_video == pytest.approx(float(len(times) / fps), abs=1e-4)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("start", [Fraction(0), Fraction(37, 10)])
def test_variable_rate_and_any_start(tmp_path, suffix, start):
    # Gaps of 10 to 900 ms, by whole milliseconds, which every container can say.
    gaps = np.random.default_rng(5).choice([10, 40, 41, 250, 900], size=24)
    times = [start + Fraction(int(ms), 1000) for ms in np.concatenate([[0], np.cumsum(gaps)])]
    clip = open_clip(write_video(tmp_path / f"a.{suffix}", times), MediaOptions())
    wanted = [Fraction(float(t)) for t in clip.plan.times_seconds]
    assert kept(clip) == nearest(times, wanted)
    shown = [frame.pts_seconds for frame in clip.frames()]
    assert shown == pytest.approx([float(times[k] - times[0]) for k in kept(clip)], abs=1e-6)
    assert all(t == k / 2 for k, t in enumerate(clip.plan.times_seconds))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 700), min_size=1, max_size=20), st.integers(1, 5), st.integers(2, 9))
def test_any_timing_and_any_budget(tmp_path, gaps_ms, fps, max_frames):
    times = [Fraction(ms, 1000) for ms in itertools.accumulate([0, *gaps_ms])]
    path = write_video(tmp_path / "a.mkv", times, gop=5)
    clip = open_clip(path, MediaOptions(fps=fps, max_frames=max_frames))
    wanted = [Fraction(float(t)) for t in clip.plan.times_seconds]
    assert kept(clip) == nearest(times, wanted)
    assert clip.plan.n_frames <= max_frames


CODECS = [
    ("libx264", "yuv420p", "mp4"),
    ("libx264", "yuv444p", "mkv"),
    ("libx264", "yuv420p10le", "mp4"),
    ("libx264", "gray", "mp4"),
    ("libx264", "yuv420p", "avi"),
    ("libx265", "yuv420p", "mp4"),
    ("libx265", "yuv420p10le", "mkv"),
    ("libvpx-vp9", "yuv420p", "webm"),
    ("libvpx", "yuv420p", "webm"),
    ("libsvtav1", "yuv420p", "mp4"),
    ("libsvtav1", "yuv420p", "webm"),
    ("mpeg4", "yuv420p", "avi"),
    ("mpeg4", "yuv420p", "mp4"),
    ("mpeg2video", "yuv420p", "ts"),
    ("mjpeg", "yuvj420p", "avi"),
    ("prores_ks", "yuv422p10le", "mov"),
    ("ffv1", "yuv444p", "mkv"),
    ("png", "rgb24", "mov"),
    ("gif", "rgb8", "gif"),
]


@pytest.mark.parametrize(("codec", "pix_fmt", "suffix"), CODECS)
def test_codecs_and_containers(tmp_path, codec, pix_fmt, suffix):
    if not has_encoder(codec):
        # Not every build of FFmpeg encodes everything; what it cannot write, it is not asked to read here.
        return
    times = even_times(2.2, 25)
    clock = Fraction(1, 100) if codec == "gif" else GRID_CLOCK
    path = write_video(tmp_path / f"a.{suffix}", times, codec=codec, pix_fmt=pix_fmt, time_base=clock)
    clip = open_clip(path, MediaOptions())
    assert kept(clip) == nearest(times, halves(Fraction(22, 10)))
    assert clip.video.duration_seconds == pytest.approx(2.2, abs=0.011)
    frame = next(iter(clip.frames()))
    assert frame.image.shape == (64, 64, 3)
    assert frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous


def test_colours_survive(tmp_path):
    colours = [(200, 30, 40), (20, 180, 60), (30, 50, 210), (128, 128, 128)]

    def picture(number):
        return np.full((64, 64, 3), colours[number], np.uint8)

    times = even_times(2, 2)
    path = write_video(tmp_path / "a.mp4", times, rate=2, picture=picture, pix_fmt="yuv444p")
    for frame, colour in zip(open_clip(path, MediaOptions()).frames(), colours, strict=True):
        assert np.abs(frame.image.reshape(-1, 3).mean(0) - colour).max() < 6


@pytest.mark.parametrize("size", [(67, 53), (3, 64), (131, 16)])
def test_odd_sizes(tmp_path, size):
    times = even_times(1, 10)
    path = write_video(tmp_path / "a.mkv", times, size=size, codec="ffv1", pix_fmt="bgr0")
    clip = open_clip(path, MediaOptions())
    assert (clip.video.width, clip.video.height) == size
    for frame, number in zip(clip.frames(), nearest(times, halves(1)), strict=True):
        np.testing.assert_array_equal(frame.image, coded_image(number, size))


def test_odd_sizes_of_lossy_codecs(tmp_path):
    times = even_times(1, 10)
    path = write_video(tmp_path / "a.webm", times, size=(67, 53), codec="libvpx-vp9")
    clip = open_clip(path, MediaOptions())
    assert kept(clip) == nearest(times, halves(1))
    assert next(iter(clip.frames())).image.shape == (53, 67, 3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_one_frame(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", [Fraction(0)], time_base=GRID_CLOCK)
    clip = open_clip(path, MediaOptions())
    assert kept(clip) == [0]
    assert clip.plan.n_grids == 1
    assert clip.seconds_video == pytest.approx(0.04)


def test_a_slow_source_serves_several_times(tmp_path):
    clip = open_clip(write_video(tmp_path / "a.mp4", even_times(6, 1), rate=1), MediaOptions())
    # 0.5 is as far from 0 as from 1: the earlier.
    assert kept(clip) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert clip.plan.fps == 2.0


def test_files_without_frame_counts_and_durations(tmp_path):
    times = even_times(3, 25)
    path = write_video(tmp_path / "a.mkv", times, container_options={"live": "1"})
    assert kept(open_clip(path, MediaOptions())) == nearest(times, halves(3))


def test_a_stream_without_any_times_is_read_at_its_nominal_rate_with_a_warning(tmp_path):
    times = even_times(3, 25)
    clip = open_clip(write_video(tmp_path / "a.h264", times, format="h264"), MediaOptions())
    assert kept(clip) == nearest(times, halves(3))
    assert any("25 frames per second are assumed" in line for line in clip.warnings)


@pytest.mark.parametrize(("max_frames", "n_frames"), [(2, 2), (4, 4), (5, 4), (7, 6), (8, 8), (9, 8)])
def test_max_frames_spreads_frames_and_tells_the_true_rate(tmp_path, max_frames, n_frames):
    times = even_times(6, 25)
    clip = open_clip(write_video(tmp_path / "a.mp4", times), MediaOptions(max_frames=max_frames))
    assert kept(clip) == nearest(times, [Fraction(6 * k, n_frames) for k in range(n_frames)])
    assert clip.plan.fps == pytest.approx(n_frames / 6)
    assert clip.plan.seconds_per_grid == pytest.approx(12 / n_frames)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_part_is_found_behind_many_keyframes(tmp_path, suffix):
    times = even_times(16, 25)
    path = write_video(tmp_path / f"a.{suffix}", times, time_base=GRID_CLOCK)
    clip = open_clip(path, MediaOptions(start_seconds=11.3, end_seconds=13.6))
    wanted = halves(Fraction(23, 10), start=Fraction(113, 10))
    assert kept(clip) == nearest(times, wanted)
    assert clip.seconds_video == pytest.approx(2.3)
    for frame, time in zip(clip.frames(), wanted, strict=True):
        assert abs(frame.pts_seconds + 11.3 - float(time)) <= 0.02 + 1e-6


def test_every_start_is_as_exact_as_the_first(tmp_path):
    times = even_times(8, NTSC)
    path = write_video(tmp_path / "a.mp4", times, rate=NTSC, gop=7)
    for tenths in range(0, 78, 7):
        clip = open_clip(path, MediaOptions(start_seconds=tenths / 10, end_seconds=tenths / 10 + 0.2))
        assert kept(clip) == nearest(times, [Fraction(tenths, 10)])


def test_a_part_within_max_frames(tmp_path):
    times = even_times(6, 25)
    path = write_video(tmp_path / "a.mp4", times)
    clip = open_clip(path, MediaOptions(start_seconds=1.0, end_seconds=5.0, max_frames=4))
    assert kept(clip) == nearest(times, [Fraction(k) for k in (1, 2, 3, 4)])
    assert clip.plan.fps == 1.0


def test_parts_outside_the_clip(tmp_path):
    path = write_video(tmp_path / "a.mp4", even_times(3, 25))
    with pytest.raises(UsageError, match=r"4\.5 s .* 3\.000 s"):
        open_clip(path, MediaOptions(start_seconds=4.5))
    clip = open_clip(path, MediaOptions(end_seconds=9.0))
    assert clip.seconds_video == pytest.approx(3.0)
    assert any("--end 9 s" in line for line in clip.warnings)


def test_frames_can_be_asked_for_again(tmp_path):
    clip = open_clip(write_video(tmp_path / "a.mp4", even_times(3, 25)), MediaOptions())
    first, second = list(clip.frames()), list(clip.frames())
    assert [frame.pts_seconds for frame in first] == [frame.pts_seconds for frame in second]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    interleaved = list(zip(clip.frames(), clip.frames(), strict=True))
    assert all(np.array_equal(a.image, b.image) for a, b in interleaved)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_frames_are_not_hoarded(tmp_path, n_threads):
    path = write_video(tmp_path / "a.mp4", even_times(240, 5), rate=5, size=(32, 32), gop=50)
    clip = open_clip(path, MediaOptions())
    alive: list[weakref.ref] = []
    most_images = most_decoded = n_frames = 0
    for frame in taken_by(n_threads, clip):
        n_frames += 1
        alive = [ref for ref in alive if ref() is not None] + [weakref.ref(frame.image)]
        most_images = max(most_images, len(alive))
        if n_frames % 40 == 0:
            gc.collect()
            decoded = sum(
                type(thing) is VideoFrame and getattr(thing.format, "name", "rgb24") != "rgb24"
                for thing in gc.get_objects()
            )
            most_decoded = max(most_decoded, decoded)
    assert n_frames == 480
    assert most_images <= 3
    assert 0 < most_decoded <= 8 * n_threads


def taken_by(n_threads, clip):
    with at_most(n_threads):
        yield from clip.frames()


def test_the_file_is_closed_after_the_last_frame_or_when_nobody_wants_more(tmp_path):
    path = write_video(tmp_path / "a.mp4", even_times(3, 25))
    clip = open_clip(path, MediaOptions())
    assert open_files(path) == 0
    frames = clip.frames()
    next(frames)
    assert open_files(path) >= 1
    frames.close()
    assert open_files(path) == 0
    kept(clip)
    assert open_files(path) == 0
    with contextlib.suppress(RuntimeError):
        fail_over(clip)
    assert open_files(path) == 0


def fail_over(clip):
    for _ in clip.frames():
        raise RuntimeError("consumer")


def test_a_file_that_goes_away_is_an_error_of_its_own(tmp_path):
    path = write_video(tmp_path / "a.mp4", even_times(1, 25))
    clip = open_clip(path, MediaOptions())
    path.unlink()
    with pytest.raises(MediaError, match="no such file"):
        kept(clip)


def test_frames_that_cannot_be_decoded_are_replaced_and_counted(tmp_path):
    times = even_times(3, 10)
    # Kept are 0, 5, 10, 15, 20, 25; two of them and one other are broken.
    path = write_video(tmp_path / "a.mov", times, codec="png", pix_fmt="rgb24", rate=10, damaged={10, 11, 25})
    clip = open_clip(path, MediaOptions())
    assert clip.warnings == ["no audio track: the answer is from the picture alone"]
    assert kept(clip) == [0, 5, 9, 15, 20, 24]
    count = [line for line in clip.warnings if "could not be decoded" in line]
    assert len(count) == 1
    assert count[0].endswith(": 2")
    kept(clip)
    assert len(clip.warnings) == 2


def test_the_first_good_frame_stands_in_for_a_broken_start(tmp_path):
    path = write_video(
        tmp_path / "a.mov", even_times(2, 10), codec="png", pix_fmt="rgb24", rate=10, damaged=range(4)
    )
    assert kept(open_clip(path, MediaOptions())) == [4, 5, 10, 15]


def test_a_part_in_which_nothing_decodes_is_an_error(tmp_path):
    times = even_times(6, 10)
    path = write_video(
        tmp_path / "a.mov", times, codec="png", pix_fmt="rgb24", rate=10, gop=1, damaged=range(30, 60)
    )
    clip = open_clip(path, MediaOptions(start_seconds=4.0))
    with pytest.raises(MediaError, match="no frame of the part"):
        kept(clip)


def test_a_cut_off_mp4_gives_what_is_there_and_says_so(tmp_path):
    times = even_times(6, 25)
    path = write_video(tmp_path / "a.mp4", times, size=(128, 128), container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clip = open_clip(path, MediaOptions())
    codes = kept(clip)
    assert 2 <= len(codes) < 12
    assert codes[:-1] == nearest(times, halves(6))[: len(codes) - 1]
    assert any("cut short" in line for line in clip.warnings)


def test_a_cut_off_mkv_gives_what_is_there_and_says_so(tmp_path):
    times = even_times(8, 25)
    path = write_video(tmp_path / "a.mkv", times, size=(128, 128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = open_clip(path, MediaOptions())
    assert 2 <= clip.plan.n_frames < 16
    assert any("states 8.00 s" in line for line in clip.warnings)


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path):
    # Written for the decoder only: presented before the film begins.
    times = [time - Fraction(1, 2) for time in even_times(3, 25)]
    path = write_video(tmp_path / "a.mp4", times, container_options={"avoid_negative_ts": "disabled"})
    clip = open_clip(path, MediaOptions())
    first = next(k for k, time in enumerate(times) if time >= 0)
    assert kept(clip) == [first + k for k in nearest(times[first:], halves(len(times[first:]) / Fraction(25)))]
    assert clip.video.n_source_frames == len(times) - first


def test_lost_packets_do_not_shift_the_frames_of_an_avi(tmp_path):
    path = write_video(
        tmp_path / "a.avi",
        even_times(3, 10),
        codec="png",
        pix_fmt="rgb24",
        rate=10,
        time_base=Fraction(1, 10),
        damaged={3, 7},
    )
    assert kept(open_clip(path, MediaOptions())) == [0, 5, 10, 15, 20, 25]


@settings(deadline=None)
@given(st.data())
def test_picking_by_the_law(data):
    """Against a loop over all shown frames: the very one, else the nearest in reach, else the last good one."""
    n_frames = data.draw(st.integers(2, 30))
    ticks = np.arange(n_frames) * 10
    wanted = sorted(data.draw(st.lists(st.integers(0, n_frames - 1), min_size=1, max_size=12)))
    shown = {}
    for tick in ticks.tolist():
        fate = data.draw(st.sampled_from(["shown", "shown", "shown", "lost", "shifted"]))
        if fate != "lost":
            shown[tick + (data.draw(st.integers(-4, 4)) if fate == "shifted" else 0)] = tick
    timeline = Timeline(ticks, ticks[:1], 10, Fraction(1, 100))
    losses = Losses()
    stream = iter(sorted(shown.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_room, "_timed_from", lambda *_: (pair for pair in stream))
        try:
            picked = [tick for tick, _ in pick_frames("", 0, timeline, ticks[wanted], losses)]
        except MediaError:
            assert all(tick < ticks[wanted[0]] - 100 or tick > ticks[wanted[-1]] + 100 for tick in shown)
            return
    usable = sorted(tick for tick in shown if tick >= ticks[wanted[0]] - 100)
    stood_in = 0
    for tick, place in zip(picked, wanted, strict=True):
        due = int(ticks[place])
        best = min(usable, key=lambda t: (abs(t - due), t))
        if abs(best - due) > 5:
            stood_in += 1
            best = max((t for t in usable if t < due), default=usable[0])
        assert tick == best
    assert losses.stood_in == stood_in
