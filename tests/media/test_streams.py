"""Which streams of a file are taken."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError, UsageError
from seats_cli.media import open_clip
from tests.media.clips import click, coded_image, even_times, loudest_seconds, read_code, write_video

TIMES = even_times(2, 25)


def write_two_of_each(path: Path) -> None:
    """A small picture first, a larger one second; two sounds; a subtitle."""
    with av.open(str(path), "w") as out:
        videos = [out.add_stream("libx264", rate=25, options={"preset": "ultrafast"}) for _ in range(2)]
        for stream, side in zip(videos, (64, 128), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        sounds = [out.add_stream("aac", rate=16_000, layout="mono") for _ in range(2)]
        for number in range(50):
            for stream in videos:
                offset = 500 if stream is videos[1] else 0
                image = coded_image(number + offset, (stream.width, stream.height))
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in videos:
            out.mux(stream.encode(None))
        for stream in sounds:
            for start in range(0, 32_000, 1024):
                piece = click(2, 1.0)[None, start : start + 1024]
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))


def test_the_best_of_several_streams_is_taken_and_the_others_are_named(tmp_path):
    path = tmp_path / "a.mkv"
    write_two_of_each(path)
    clip = open_clip(path, MediaOptions())
    with av.open(str(path)) as container:
        best = container.streams.best("video").index
        sound = container.streams.best("audio").index
    assert clip.video.stream_index == best
    assert clip.audio.stream_index == sound
    base = 500 * (best == 1)
    assert [read_code(frame.image) - base for frame in clip.frames()] == [0, 12, 25, 37]
    assert loudest_seconds(clip.waveform()) == pytest.approx(1.0, abs=1e-3)
    picture_line = next(line for line in clip.warnings if line.startswith("video stream"))
    assert "64x64" in picture_line
    assert "128x128" in picture_line
    assert any(line.startswith("audio stream") for line in clip.warnings)


def test_a_cover_picture_is_no_picture(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(tmp_path / "plain.mp3", click(2, 1.25), 16_000)
    path.write_bytes(id3_with_cover() + (tmp_path / "plain.mp3").read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    clip = open_clip(path, MediaOptions())
    assert clip.video is None
    assert clip.audio.codec == "mp3"
    assert loudest_seconds(clip.waveform()) == pytest.approx(1.25, abs=1e-3)


def id3_with_cover() -> bytes:
    """An ID3v2.3 tag with an APIC frame that holds a png (id3.org, 4.15)."""
    encoder = av.CodecContext.create("png", "w")
    encoder.width = encoder.height = 32
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
    image = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    body = b"\0image/png\0\x03\0" + image
    frame_bytes = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = len(frame_bytes)
    synchsafe = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + synchsafe + frame_bytes


def test_pixels_that_are_not_square_are_told(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, aspect=Fraction(4, 3))
    clip = open_clip(path, MediaOptions())
    assert (clip.video.width, clip.video.height) == (64, 64)
    assert any("4:3" in line for line in clip.warnings)
    plain = open_clip(write_video(tmp_path / "b.mp4", TIMES, aspect=Fraction(1)), MediaOptions())
    assert not any("square" in line for line in plain.warnings)


def test_paths_of_every_kind(tmp_path):
    path = write_video(tmp_path / "a b'\"ü✓.mp4", TIMES)
    for given in (path, str(path), os.fsencode(path)):
        clip = open_clip(given, MediaOptions())
        assert clip.path == str(path)
        assert len(list(clip.frames())) == 4


def test_tags_in_another_encoding_do_not_matter(tmp_path):
    path = write_video(tmp_path / "a.mkv", TIMES, container_options={"metadata": ""})
    with av.open(str(tmp_path / "tagged.mkv"), "w") as out, av.open(str(path)) as source:
        out.metadata["title"] = "XXXX"
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    tagged = tmp_path / "tagged.mkv"
    tagged.write_bytes(tagged.read_bytes().replace(b"XXXX", b"\xe9\xff\xfe\xe8"))
    assert open_clip(tagged, MediaOptions()).plan.n_frames == 4


def test_a_frame_of_another_size_is_scaled_to_the_first(tmp_path):
    small, large = tmp_path / "small.ts", tmp_path / "large.ts"
    write_video(small, even_times(1, 25), options={"bf": "0"})
    later = [1 + time for time in even_times(1, 25)]
    write_video(large, later, size=(128, 96), options={"bf": "0"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    clip = open_clip(joined, MediaOptions())
    frames = list(clip.frames())
    assert {frame.image.shape for frame in frames} == {(64, 64, 3)}
    assert [read_code(frame.image) for frame in frames] == [0, 12, 0, 12]
    assert any("another size" in line for line in clip.warnings)


def test_importing_the_room_imports_no_decoder():
    import subprocess
    import sys

    code = "import sys, seats_cli.media; print(sorted({'av', 'soundfile', 'torch'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_picture_that_is_not_wanted_leaves_the_sound_where_it_was(tmp_path: Path) -> None:
    """The sound begins later than the picture; without the picture its place in time stays."""
    path = write_video(tmp_path / "a.mp4", even_times(4, 25), sound=click(2, 1.0), sound_start_seconds=1.5)
    both = open_clip(path, MediaOptions(end_seconds=3.0))
    alone = open_clip(path, MediaOptions(end_seconds=3.0, picture="off"))
    assert (alone.video, alone.plan, alone.seconds_video) == (None, None, 0.0)
    assert list(alone.frames()) == []
    np.testing.assert_array_equal(alone.waveform(), both.waveform())
    assert loudest_seconds(alone.waveform()) == pytest.approx(2.5, abs=0.01)
    assert not any("picture" in line or "video" in line for line in alone.warnings)


def test_without_picture_there_must_be_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", TIMES)
    with pytest.raises(MediaError, match="no audio track"):
        open_clip(path, MediaOptions(picture="off"))
    with pytest.raises(UsageError, match="neither"):
        open_clip(path, MediaOptions(picture="off", audio="off"))
