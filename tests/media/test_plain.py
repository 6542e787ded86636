"""The plain loop, against qwen-omni-utils' own counting and against frames decoded one by one."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from qwen_omni_utils.v2_5.vision_process import calculate_video_frame_range, smart_nframes

from seats_cli.errors import MediaError
from seats_cli.media import NoiseClip, write_clip
from seats_cli.media.plain import plain_pictures, plain_sound


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """5 s of 64 x 48, 12 frames per second, with sound."""
    path = tmp_path_factory.mktemp("plain") / "clip.mkv"
    noisy = NoiseClip(60, 5.0, 64, 48, fps=12.0, audio_seconds=5.0)
    write_clip(path, (frame.image for frame in noisy.frames()), 12, noisy.waveform(), 16000)
    return str(path)


def every_frame(path: str) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("part", [(None, None), (1.0, None), (None, 3.3), (0.7, 4.1)], ids=str)
@pytest.mark.parametrize(("fps", "most"), [(2.0, 768), (3.7, 768), (0.1, 768), (6.0, 9), (12.0, 768)])
def test_frames_are_those_that_the_package_takes(clip: str, fps: float, most: int, part) -> None:
    named = {"video_start": part[0], "video_end": part[1]}
    first, last, there = calculate_video_frame_range(named, 60, 12.0)
    n = smart_nframes({"fps": fps, "max_frames": most}, total_frames=there, video_fps=12.0)
    wanted = np.linspace(first, last, n).round().astype(int)
    frames, found = every_frame(clip), plain_pictures(clip, fps, most, *part)
    assert len(found) == n
    for image, number in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(image, frames[number])


def test_sound_is_all_of_it_at_16_khz(clip: str) -> None:
    sound = plain_sound(clip)
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(5 * 16000, rel=0.03)
    expected = NoiseClip(60, 5.0, 64, 48, fps=12.0, audio_seconds=5.0).waveform()
    assert np.corrcoef(sound[16000:64000], expected[16000:64000])[0, 1] > 0.9
    np.testing.assert_array_equal(plain_sound(clip, 1.0, 2.5), sound[16000:40000])


def test_too_short_a_part_is_no_clip(clip: str) -> None:
    with pytest.raises(MediaError, match="fewer than 2 frames"):
        plain_pictures(clip, 2.0, 768, 1.0, 1.05)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        plain_pictures(str(tmp_path / "none.mp4"), 2.0, 768)
