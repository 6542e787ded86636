import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.media import NoiseClip, open_clip, write_demo_clip
from seats_cli.media.synthetic import demo_sound
from tests.media.clips import SOUND_RATE_HZ


def test_a_noise_clip_is_a_clip():
    clip = NoiseClip(8, 4.0, 96, 64, seed=1)
    frames = list(clip.frames())
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.pts_seconds for frame in frames] == [k / 2 for k in range(8)]
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}
    assert clip.plan.fps == 2.0
    assert clip.plan.n_grids == 4
    assert (clip.seconds_video, clip.seconds_audio) == (4.0, 4.0)
    waveform = clip.waveform()
    assert waveform.shape == (4 * SOUND_RATE_HZ,)
    assert waveform.dtype == np.float32
    assert 0.05 < np.abs(waveform).max() <= 1.0
    assert clip.warnings == []
    assert (clip.video.width, clip.video.height) == (96, 64)


def test_the_same_arguments_give_the_same_clip_and_another_seed_another():
    def content(seed):
        clip = NoiseClip(3, 1.5, 40, 30, seed=seed)
        return np.stack([frame.image for frame in clip.frames()]), clip.waveform()

    first, again, other = content(5), content(5), content(6)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    assert (first[1] != other[1]).any()


def test_the_picture_is_no_flat_colour_and_changes_slowly():
    images = np.stack([frame.image for frame in NoiseClip(8, 4.0, 96, 64).frames()]).astype(float)
    assert images.std(axis=(1, 2)).min() > 10
    change = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2, 3))
    assert (change > 0.1).all()
    assert (change < images.std()).all()


def test_either_half_can_be_missing():
    silent = NoiseClip(2, 1.0, 32, 32, audio_seconds=0)
    assert silent.audio is None
    assert silent.waveform().shape == (0,)
    dark = NoiseClip(0, 3.0, 32, 32)
    assert dark.video is None
    assert dark.plan is None
    assert list(dark.frames()) == []
    assert dark.seconds_video == 0.0
    assert dark.seconds_audio == 3.0
    longer = NoiseClip(2, 1.0, 32, 32, audio_seconds=2.5)
    assert longer.seconds_audio == 2.5


@pytest.mark.parametrize(("n_frames", "fps"), [(16, 2.0), (8, 1.0), (15, 1.875), (32, 4.0)])
def test_frames_that_do_not_fit_the_rate_are_spread(n_frames, fps):
    plan = NoiseClip(n_frames, 8.0, 32, 32).plan
    assert plan.n_frames == n_frames
    assert plan.fps == pytest.approx(fps) or plan.fps == 2.0
    assert plan.times_seconds[-1] < 8.0


@pytest.mark.parametrize(
    "arguments", [(-1, 1.0, 32, 32), (0, 1.0, 32, 32, 0, 2.0, 0.0), (2, 0.0, 32, 32), (2, 1.0, 0, 32)]
)
def test_an_impossible_noise_clip_is_an_error(arguments):
    with pytest.raises(ValueError):
        NoiseClip(*arguments)


def test_the_demo_clip_is_a_film_with_sound(tmp_path):
    path = tmp_path / "demo.mp4"
    write_demo_clip(path, seconds=4.0, width=160, height=120)
    clip = open_clip(path, MediaOptions())
    assert clip.warnings == []
    assert (clip.video.codec, clip.audio.codec) == ("h264", "aac")
    assert (clip.video.width, clip.video.height, clip.video.average_fps) == (160, 120, 25.0)
    assert clip.seconds_video == pytest.approx(4.0)
    assert clip.seconds_audio == pytest.approx(4.0, abs=0.05)
    assert clip.plan.n_frames == 8
    # A red disc crosses from left to right.
    places = [disc_column(frame.image) for frame in clip.frames()]
    assert places == sorted(places)
    assert places[-1] - places[0] > 60
    # A beep starts with every second.
    loud = np.abs(clip.waveform()) > 0.05
    for second in range(4):
        assert loud[second * SOUND_RATE_HZ :][: SOUND_RATE_HZ // 8].any()
        assert not loud[second * SOUND_RATE_HZ + SOUND_RATE_HZ // 4 :][: SOUND_RATE_HZ // 2].any()


def disc_column(image):
    red, green, blue = (image[..., k].astype(int) for k in range(3))
    return np.nonzero((red > 150) & (green < 100) & (blue < 100))[1].mean()


def test_the_demo_clip_is_the_same_every_time(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_demo_clip(tmp_path / name, seconds=1.0, width=64, height=64)
    first, second = (open_clip(tmp_path / name, MediaOptions()) for name in ("a.mp4", "b.mp4"))
    for one, other in zip(first.frames(), second.frames(), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(first.waveform(), second.waveform())
    assert demo_sound(2.5, 8000).shape == (20_000,)
