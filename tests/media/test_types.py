import numpy as np
import pytest

from seats_cli.media import AudioInfo, Frame, SamplingPlan, VideoInfo

VIDEO = {
    "codec": "h264",
    "width": 64,
    "height": 48,
    "rotation_degrees": 90,
    "average_fps": 25.0,
    "start_seconds": -0.5,
    "duration_seconds": 3.0,
    "n_source_frames": 75,
    "stream_index": 0,
}
AUDIO = {
    "codec": "aac",
    "sample_rate_hz": 44_100,
    "channels": 2,
    "start_seconds": 0.0,
    "duration_seconds": 0.0,
    "stream_index": 1,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"height": -1},
        {"rotation_degrees": 45},
        {"average_fps": 0.0},
        {"average_fps": float("nan")},
        {"start_seconds": float("inf")},
        {"duration_seconds": 0.0},
        {"n_source_frames": 0},
        {"stream_index": -1},
    ],
)
def test_a_video_info_says_what_is_wrong_with_it(wrong):
    VideoInfo(**VIDEO)
    with pytest.raises(ValueError, match="got"):
        VideoInfo(**{**VIDEO, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate_hz": 0},
        {"channels": 0},
        {"duration_seconds": -1.0},
        {"start_seconds": float("nan")},
        {"stream_index": -1},
    ],
)
def test_an_audio_info_says_what_is_wrong_with_it(wrong):
    AudioInfo(**AUDIO)
    with pytest.raises(ValueError, match="got"):
        AudioInfo(**{**AUDIO, **wrong})


@pytest.mark.parametrize(
    ("times", "fps", "n_frames"),
    [
        ([], 2.0, 0),
        ([0.0, 0.0], 2.0, 2),
        ([0.5, 0.0], 2.0, 2),
        ([-0.1, 0.0], 2.0, 2),
        ([0.0, np.nan], 2.0, 2),
        ([0.0], 0.0, 1),
        ([0.0, 0.5], 2.0, 3),
        ([[0.0, 0.5]], 2.0, 2),
    ],
)
def test_a_plan_is_ascending_times_and_their_number(times, fps, n_frames):
    with pytest.raises(ValueError, match="got"):
        SamplingPlan(np.array(times), fps, n_frames)


@pytest.mark.parametrize(("n_frames", "n_grids"), [(1, 1), (2, 1), (3, 2), (8, 4)])
def test_two_frames_make_a_grid(n_frames, n_grids):
    plan = SamplingPlan(np.arange(n_frames) / 2.0, 2.0, n_frames)
    assert plan.n_grids == n_grids
    assert plan.seconds_per_grid == 1.0


def test_a_plan_cannot_be_changed_through_its_times():
    times = np.array([0.0, 0.5])
    plan = SamplingPlan(times, 2.0, 2)
    times[1] = 9.0
    assert plan.times_seconds[1] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        plan.times_seconds[0] = 1.0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint8)[:, ::-1],
    ],
)
def test_a_frame_is_rgb_bytes_in_a_row(image):
    with pytest.raises(ValueError, match="got"):
        Frame(image, 0.0, 0)
