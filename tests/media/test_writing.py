"""Clips that are written: what ``open_clip`` finds in them is what was given."""

from __future__ import annotations

import av
import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError
from seats_cli.media import open_clip, write_clip
from tests.media.clips import SOUND_RATE_HZ, click, coded_image, loudest_seconds, read_code, tone

FPS, SECONDS = 8, 3


def images(n: int = FPS * SECONDS, size: tuple[int, int] = (64, 96)) -> list[np.ndarray]:
    return [coded_image(number, size) for number in range(n)]


@pytest.mark.parametrize(
    ("ending", "video", "audio"),
    [
        (".mp4", "h264", "aac"),
        (".mkv", "h264", "aac"),
        (".mov", "h264", "aac"),
        (".webm", "vp9", "opus"),
        (".MP4", "h264", "aac"),
    ],
)
def test_a_clip_comes_back(tmp_path, ending, video, audio):
    path = tmp_path / f"clip{ending}"
    write_clip(path, iter(images()), FPS, click(SECONDS, 1.7, 44_100), 44_100)
    clip = open_clip(path, MediaOptions(fps=FPS))
    assert clip.warnings == []
    assert (clip.video.codec, clip.audio.codec) == (video, audio)
    assert (clip.video.width, clip.video.height) == (64, 96)
    assert clip.video.average_fps == pytest.approx(FPS)
    assert clip.seconds_video == pytest.approx(SECONDS)
    assert clip.seconds_audio == pytest.approx(SECONDS, abs=0.1)
    assert clip.audio.channels == 1
    frames = list(clip.frames())
    assert [read_code(frame.image) for frame in frames] == list(range(FPS * SECONDS))
    assert [frame.pts_seconds for frame in frames] == pytest.approx(
        [k / FPS for k in range(len(frames))], abs=2e-3
    )
    # What is heard at a time is heard at that time.
    assert loudest_seconds(clip.waveform()) == pytest.approx(1.7, abs=0.005)


def test_sound_alone(tmp_path):
    sound = tone(2.0, 22_050)
    write_clip(tmp_path / "sound.wav", images(), FPS, sound, 22_050)
    clip = open_clip(tmp_path / "sound.wav", MediaOptions())
    assert clip.video is None
    assert (clip.audio.codec, clip.audio.sample_rate_hz) == ("pcm_s16le", 22_050)
    assert clip.seconds_audio == pytest.approx(2.0, abs=1e-3)
    at_16k = tone(2.0)
    middle = slice(4000, 28_000)
    assert np.abs(clip.waveform()[middle] - at_16k[middle]).max() < 0.01


def test_no_frames_is_a_clip_without_a_picture(tmp_path):
    write_clip(tmp_path / "sound.mp4", [], FPS, tone(1.0), SOUND_RATE_HZ)
    clip = open_clip(tmp_path / "sound.mp4", MediaOptions())
    assert clip.video is None
    assert clip.seconds_audio == pytest.approx(1.0, abs=0.1)


def test_no_samples_is_a_clip_without_a_sound(tmp_path):
    write_clip(tmp_path / "silent.mp4", images(), FPS, np.zeros(0, np.float32), SOUND_RATE_HZ)
    clip = open_clip(tmp_path / "silent.mp4", MediaOptions())
    assert clip.audio is None
    assert clip.seconds_video == pytest.approx(SECONDS)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov", ".webm", ".wav"])
def test_the_same_input_gives_the_same_bytes(tmp_path, ending):
    paths = [tmp_path / f"{name}{ending}" for name in "ab"]
    for path in paths:
        write_clip(path, images(), FPS, tone(SECONDS), SOUND_RATE_HZ)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_lower_quality_is_a_smaller_file(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(8)]
    sizes = []
    for quality in (5, 25, 45):
        path = tmp_path / f"{quality}.mp4"
        write_clip(path, noise, FPS, np.zeros(0, np.float32), SOUND_RATE_HZ, quality=quality)
        sizes.append(path.stat().st_size)
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]


@pytest.mark.parametrize("name", ["clip.avi", "clip", "clip.mp3"])
def test_another_ending_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(MediaError, match="clips are written as"):
        write_clip(tmp_path / name, images(), FPS, tone(1.0), SOUND_RATE_HZ)
    assert not (tmp_path / name).exists()


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_clip(tmp_path / "none" / "clip.mp4", images(), FPS, tone(1.0), SOUND_RATE_HZ)


def test_files_tell_nothing_of_who_wrote_them(tmp_path):
    """No date and no version of the muxer: the same bytes on another day."""
    write_clip(tmp_path / "clip.mp4", images(), FPS, tone(1.0), SOUND_RATE_HZ)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert not {"creation_time", "encoder"} & set(container.metadata)
