"""What a file says of itself bounds nothing: memory, time and what is opened are bounded by us."""

import os
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest

from seats_cli import timelimit
from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError, SeatsError, TimeLimitError
from seats_cli.media import boxes, open_clip, placing, reading, source, timeline
from seats_cli.media.decoding import MAX_PIXELS
from seats_cli.media.placing import Block, place_blocks
from seats_cli.media.timeline import Timeline
from seats_cli.timelimit import time_limit
from tests.hardening.odd import _png, box, counts, full, mp4, raw_audio_entry, raw_video_entry, wav
from tests.media.clips import even_times, open_files, tone, write_video

TIMES = even_times(2, 25)


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd):
    yield
    printed = capfd.readouterr()
    assert (printed.err, printed.out) == ("", "")


def refused(path, **options):
    with pytest.raises(SeatsError) as caught:
        open_clip(path, MediaOptions(**options))
    line = str(caught.value)
    assert type(caught.value) in (MediaError, *MediaError.__subclasses__())
    assert str(path) in line
    assert "\n" not in line
    return line


# Sound


def write_channels(path, layout, codec, levels):
    """A second of sound whose channels are constants."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=16_000, layout=layout)
        convert = av.AudioResampler(format=stream.codec_context.format.name, layout=layout, rate=16_000)
        values = np.tile(np.asarray(levels, np.float32), 16_000)[None]
        frame = av.AudioFrame.from_ndarray(values, format="flt", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 0
        for piece in convert.resample(frame):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("layout", "codec", "n"),
    [
        ("7.1", "aac", 8),
        ("7.1", "flac", 8),
        ("7.1", "pcm_s16le", 8),
        ("hexadecagonal", "aac", 16),
        ("5.1", "aac", 6),
    ],
)
def test_sound_of_many_channels_is_their_mean(tmp_path, layout, codec, n):
    # PyAV reads behind the planes of such frames, and the process dies.
    levels = np.linspace(-0.1, 0.3, n)
    try:
        path = write_channels(tmp_path / "a.mkv", layout, codec, levels)
    except (av.FFmpegError, ValueError):
        pytest.skip(f"{codec} writes no {layout}")
    waveform = open_clip(path, MediaOptions()).waveform()
    assert waveform[4000:12_000].mean() == pytest.approx(levels.mean(), abs=0.01)


@pytest.mark.parametrize("rate_hz", [1, 99, 4_000_001, 2**31 - 1])
@pytest.mark.parametrize("suffix", ["wav", "mkv"])
def test_a_rate_that_cannot_be(tmp_path, rate_hz, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(wav(rate_hz, n_bytes=2**20))
    assert f"{rate_hz:,} samples a second" in refused(path)


@pytest.mark.parametrize("rate_hz", [100, 4_000_000])
def test_the_slowest_and_the_fastest_rate(tmp_path, rate_hz):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(rate_hz, n_bytes=51_200))
    assert open_clip(path, MediaOptions()).waveform().size == round(25_600 * 16_000 / rate_hz)


def test_samples_of_64_bits_are_not_decoded(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(16_000, bits=64))
    assert "cannot be decoded" in refused(path)


def test_the_waveform_has_a_greatest_length(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "MAX_SECONDS", 2.0)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(16_000, n_bytes=3 * 32_000))
    assert "hours of sound" in refused(path)
    assert open_clip(path, MediaOptions(start_seconds=1.5)).waveform().size == 24_000
    assert open_clip(path, MediaOptions(end_seconds=2.0)).waveform().size == 32_000
    path.write_bytes(wav(16_000, n_bytes=2 * 32_000))
    assert open_clip(path, MediaOptions()).waveform().size == 32_000


def test_silence_counts_into_the_greatest_length(monkeypatch):
    monkeypatch.setattr(placing, "MAX_SECONDS", 100.0)
    blocks = [Block(np.ones(16_000, np.float32), 16_000, 60.0 * k) for k in range(5)]
    waveform, placed = place_blocks(blocks[:2], 0.0, 0.0, None)
    assert (waveform.size, placed.too_long) == (61 * 16_000, False)
    waveform, placed = place_blocks(blocks, 0.0, 0.0, None)
    assert (waveform.size, placed.too_long) == (0, True)
    assert place_blocks(blocks, 0.0, 0.0, 100.0)[0].size == 100 * 16_000


@pytest.mark.parametrize("slab", [1, 777, 10**9])
def test_what_is_collected_is_joined_in_order(monkeypatch, slab):
    monkeypatch.setattr(placing, "_SLAB", slab)
    sound = np.arange(50_000, dtype=np.float32)
    blocks = [Block(sound[k : k + 999], 16_000, k / 16_000) for k in range(0, sound.size, 999)]
    np.testing.assert_array_equal(place_blocks(blocks, 0.0, 0.0, None)[0], sound)


# Packets and times


def fragment(n):
    return box(b"moof", full(b"mfhd", 1), box(b"traf", full(b"tfhd", 1), box(b"trun", struct.pack(">II", 0, n))))


def packed(data):
    """The index of an mp4 packed, as QuickTime did."""
    at = data.index(b"moov") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    moov = data[at : at + size]
    cmvd = box(b"cmvd", struct.pack(">I", len(moov)), zlib.compress(moov))
    return data[:at] + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), cmvd)) + data[at + size :]


SAMPLES = mp4(raw_video_entry(), counts(80_000_000, 1, 40))
BOMBS = {
    "samples": SAMPLES,
    "sound": mp4(raw_audio_entry(16_000, codec=b"samr"), counts(80_000_000, 2, 160), b"soun"),
    "picture of values": mp4(raw_video_entry(), counts(80_000_000, 1, 1)),
    "fragment": mp4(raw_video_entry(), counts(1, 1, 1)) + fragment(80_000_000),
    "fragments": mp4(raw_video_entry(), counts(1, 1, 1)) + fragment(4_000_000) * 3,
    "packed": packed(SAMPLES),
}


@pytest.mark.parametrize("name", BOMBS)
def test_packets_that_are_only_stated(tmp_path, monkeypatch, name):
    path = tmp_path / "a.mp4"
    path.write_bytes(BOMBS[name])

    def never(*_, **__):
        raise AssertionError("FFmpeg would make room for them")

    monkeypatch.setattr(av, "open", never)
    assert "more than 10,000,000 packets" in refused(path)


def test_values_of_a_sound_are_no_packets(tmp_path):
    path = tmp_path / "a.mov"
    path.write_bytes(mp4(raw_audio_entry(16_000), counts(80_000_000, 2, 1), b"soun"))
    assert boxes.read_mp4_facts(path).n_packets < 10**6
    assert open_clip(path, MediaOptions()).waveform().size


def test_packets_are_counted_as_they_come(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", TIMES)
    monkeypatch.setattr(timeline, "MAX_PACKETS", len(TIMES))
    assert open_clip(path, MediaOptions()).video.n_source_frames == len(TIMES)
    monkeypatch.setattr(timeline, "MAX_PACKETS", len(TIMES) - 1)
    assert "packets" in refused(path)


def test_boxes_without_end_are_not_looked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes, "_MAX_BOXES", 1000)
    path = tmp_path / "a.mp4"
    path.write_bytes(box(b"ftyp", b"isom") + box(b"free") * 5000 + box(b"moov"))
    assert not boxes.read_mp4_facts(path).has_moov


def test_times_farther_apart_than_a_signed_number():
    ticks = np.array([-(2**63) + 1, 0, 2**63 - 1], np.int64)
    clock = Timeline(ticks, ticks[:1], 1, Fraction(1, 1000))
    np.testing.assert_allclose(clock.pts_seconds, [0.0, 2.0**63 / 1000, 2.0**64 / 1000])
    assert clock.gap_ticks == pytest.approx(2.0**63)
    assert clock.duration_seconds == pytest.approx(2.0**64 / 1000)


def test_a_picture_that_lasts_for_years_is_seen_in_part(tmp_path):
    path = write_video(tmp_path / "a.mkv", [*TIMES, Fraction(10**9)], sound=tone(2))
    assert "spread over" in refused(path)
    clip = open_clip(path, MediaOptions(end_seconds=2.0))
    assert len(list(clip.frames())) == clip.plan.n_frames == 4


# Pictures


@pytest.mark.parametrize("size", [(10_001, 10_000), (100, 1_000_001)])
def test_a_picture_of_absurd_size(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(_png(*size))
    width, height = size
    assert width * height > MAX_PIXELS
    assert f"{width:,} x {height:,} pixels" in refused(path)


def test_a_film_of_absurd_size(tmp_path):
    # FFmpeg forgets a size that is far too large, so that the line cannot name it.
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4(raw_video_entry(16_000, 16_000), counts(2, 100, 100)))
    with pytest.raises(MediaError, match="not one frame") as caught:
        open_clip(path, MediaOptions())
    assert "100,000,000 pixels" in caught.value.hint


def test_of_many_streams_a_few_are_named(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("mpeg4", rate=25) for _ in range(60)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for packet in (*streams[0].encode(av.VideoFrame(64, 48, "yuv420p")), *streams[0].encode(None)):
            out.mux(packet)
    (note,) = [line for line in open_clip(path, MediaOptions()).warnings if "is used, not" in line]
    assert note.endswith(", 51 more")


# Reading


@pytest.fixture
def clock(monkeypatch):
    """A clock that can be set forward."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(timelimit.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.mark.parametrize("n_reads", [0, 1, 2])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_the_time_limit_arrives_as_itself(tmp_path, monkeypatch, clock, suffix, n_reads):
    path = write_video(tmp_path / f"a.{suffix}", TIMES, sound=tone(20), size=(320, 240))
    real, left = os.read, [n_reads]

    def slow(*arguments):
        left[0] -= 1
        clock.now += 100 * (left[0] < 0)
        return real(*arguments)

    monkeypatch.setattr(reading.os, "read", slow)
    with time_limit(30), pytest.raises(TimeLimitError, match="longer than 30 s"):
        open_clip(path, MediaOptions())
    assert open_files(path) == 0


def test_the_time_limit_ends_frames_and_leaves_nothing_open(tmp_path, clock):
    path = write_video(tmp_path / "a.mp4", TIMES)
    with time_limit(30):
        clip = open_clip(path, MediaOptions(fps=25))
        frames = clip.frames()
        next(frames)
        clock.now += 31
        with pytest.raises(TimeLimitError):
            list(frames)
    assert open_files(path) == 0
    assert len(list(clip.frames())) == clip.plan.n_frames


def test_sound_read_by_libsndfile_is_limited_too(tmp_path, clock, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(16_000, n_bytes=320_000))
    real = placing._Placer.add

    def slow(self, block):
        clock.now += 20
        real(self, block)

    monkeypatch.setattr(placing._Placer, "add", slow)
    with time_limit(30), pytest.raises(TimeLimitError):
        open_clip(path, MediaOptions())


def test_ctrl_c_while_ffmpeg_reads_is_not_lost(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", TIMES, size=(320, 240))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reading.os, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_clip(path, MediaOptions())
    clip = open_clip(path, MediaOptions())
    frames = clip.frames()
    next(frames)
    monkeypatch.setattr(reading.os, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(clip.frames())


def test_a_disk_that_fails(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", TIMES, size=(320, 240))

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reading.os, "read", fail)
    assert "reading failed: Input/output error" in refused(path)


def test_a_file_that_is_taken_away_between_two_looks(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", TIMES)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("seats_cli.media.probe.read_mp4_facts", refuse)
    assert "permission denied" in refused(path)


def test_no_place_is_too_far_to_be_asked_for(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES)
    with reading.LocalFile(str(path)) as file:
        assert file.seek(-1, os.SEEK_SET) < 0
        assert file.seek(5, os.SEEK_SET) == 5
        assert len(file.read(10)) == 10
        assert file.tell() == 15
        assert file.seek(0, os.SEEK_END) == path.stat().st_size


def test_lists_are_not_even_begun():
    formats = set(source._formats().split(","))
    assert {"mov", "mp4", "matroska", "webm", "wav", "mpegts", "avi"} <= formats
    assert not {"hls", "dash", "concat", "sdp", "rtsp", "vobsub", "imf"} & formats


def test_streams_that_appear_on_the_way(tmp_path):
    """PyAV looks for these among those it knows when the file ends."""
    alone = write_video(tmp_path / "alone.ts", even_times(8, 25), size=(320, 240)).read_bytes()
    both = write_video(tmp_path / "both.ts", TIMES, sound=tone(2)).read_bytes()
    path = tmp_path / "a.ts"
    path.write_bytes(alone + both)
    clip = open_clip(path, MediaOptions())
    assert clip.seconds_video >= 8
    assert len(list(clip.frames())) == clip.plan.n_frames


@pytest.mark.parametrize("suffix", ["mp3", "flac", "h264"])
def test_what_is_searched_in_vain_is_not_remembered_without_end(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(reading, "MAX_SEARCH_BYTES", 1 << 23)
    path = tmp_path / f"a.{suffix}"
    with path.open("wb") as file:
        file.write(b"fLaC")
        file.truncate(1 << 25)
    read: list[int] = []
    real = os.read

    def counted(descriptor, n_bytes):
        read.append(n_bytes)
        return real(descriptor, n_bytes)

    monkeypatch.setattr(reading.os, "read", counted)
    refused(path)
    assert sum(read) < 3 << 23
