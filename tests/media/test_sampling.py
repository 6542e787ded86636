from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_omni_utils.v2_5 import vision_process as reference

from seats_cli.config import MediaOptions
from seats_cli.errors import UsageError
from seats_cli.media.sampling import choose_pts, make_plan, used_part

milliseconds = st.lists(st.integers(0, 4000), min_size=1, max_size=30, unique=True).map(sorted)


def nearest(pts: list[Fraction], time: Fraction) -> int:
    """The law, in exact arithmetic: least distance, then the earlier."""
    return min(range(len(pts)), key=lambda k: (abs(pts[k] - time), k))


@settings(deadline=None)
@given(milliseconds, st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True).map(sorted))
def test_every_time_gets_the_nearest_frame_and_the_earlier_on_a_tie(pts_ms, halves):
    pts = [Fraction(ms, 1000) for ms in pts_ms]
    times = [Fraction(half, 2) for half in halves]
    chosen = choose_pts(np.array([float(p) for p in pts]), np.array([float(t) for t in times]))
    assert chosen.dtype == np.int64
    assert chosen.tolist() == [nearest(pts, time) for time in times]


@settings(deadline=None)
@given(st.integers(1, 90_000), st.integers(1, 600), st.integers(1, 20))
def test_ties_do_not_depend_on_the_last_bit(numerator, n_frames, k):
    # t lies exactly between frames k-1 and k, whose float times are rounded each its own way.
    gap = Fraction(numerator, 90_000)
    pts = np.array([float(gap * i) for i in range(n_frames + k)])
    assert choose_pts(pts, np.array([float(gap * (2 * k - 1) / 2)])).tolist() == [k - 1]


def test_no_frame_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="no frame"):
        choose_pts(np.zeros(0), np.zeros(1))


@settings(deadline=None)
@given(
    st.fractions(Fraction(1, 100), 600, max_denominator=1001),
    st.sampled_from([1, 2, 3, Fraction(1, 2), 25]),
)
def test_times_lie_on_the_grid_and_before_the_end(duration, fps):
    plan = make_plan(float(duration), float(fps), max_frames=100_000)
    # A grid time within a microsecond of the end counts as the end.
    end = duration - Fraction(1, 10**6)
    assert plan.n_frames == 1 or Fraction(plan.n_frames - 1) / Fraction(fps) < end
    assert Fraction(plan.n_frames) / Fraction(fps) >= end
    assert plan.fps == float(fps)
    np.testing.assert_array_equal(plan.times_seconds, np.arange(plan.n_frames) / float(fps))


@settings(deadline=None)
@given(st.floats(0.01, 5000, allow_nan=False), st.floats(0.1, 30, allow_nan=False), st.integers(2, 40))
def test_max_frames_spreads_an_even_number_evenly(duration, fps, max_frames):
    plan = make_plan(duration, fps, max_frames)
    n_max = max_frames - max_frames % 2
    assert plan.n_frames <= n_max
    if plan.fps != fps:
        assert plan.n_frames == n_max
        assert plan.fps < fps
        np.testing.assert_allclose(np.diff(plan.times_seconds), duration / n_max, rtol=1e-9)
        assert plan.times_seconds[-1] < duration
        assert plan.seconds_per_grid == pytest.approx(2 * duration / n_max)


def test_the_end_is_not_a_grid_time_in_floating_point():
    # Three tenths of a second ten times over is a little more than three seconds in floats.
    duration = sum([0.3] * 10)
    assert make_plan(duration + 4e-7, 2.0, 768).n_frames == 6


def test_defaults_are_those_of_the_reference():
    options = MediaOptions()
    assert options.fps == reference.FPS
    assert options.max_frames == reference.FPS_MAX_FRAMES
    assert make_plan(0.1, 2.0, reference.FRAME_FACTOR).seconds_per_grid * options.fps == reference.FRAME_FACTOR


@settings(deadline=None)
@given(st.integers(2, 500), st.integers(4, 60), st.integers(2, 400))
def test_frame_counts_agree_with_the_reference(half_frames, source_fps, half_max):
    """Where duration x fps is an even number of at least four frames and the source has as many."""
    n_expected, max_frames = 2 * half_frames, 2 * half_max
    duration = Fraction(n_expected, 2)
    total_frames = int(duration * source_fps)
    if max_frames < reference.FPS_MIN_FRAMES:
        return
    theirs = reference.smart_nframes(
        {"fps": 2.0, "max_frames": max_frames},
        total_frames=total_frames,
        video_fps=total_frames / float(duration),
    )
    assert make_plan(float(duration), 2.0, max_frames).n_frames == theirs


def test_a_part_is_cut_to_the_clip_and_says_so():
    part, warnings = used_part(10.0, 2.0, 99.0)
    assert part.length_within(10.0) == 8.0
    assert part.length_within(4.0) == 2.0
    assert part.length_within(1.0) == 0.0
    assert len(warnings) == 1
    assert "99" in warnings[0]
    assert "10.000" in warnings[0]
    assert used_part(10.0, None, 10.0)[1] == []


def test_a_part_that_begins_after_the_end_names_both_values():
    with pytest.raises(UsageError, match=r"12\.5 s .* 10\.000 s"):
        used_part(10.0, 12.5, None)


@pytest.mark.parametrize(("start", "end"), [(3.0, 3.0), (3.0, 2.0), (3.0, 3.0 + 1e-9)])
def test_an_empty_part_is_an_error(start, end):
    with pytest.raises(UsageError, match="not after"):
        used_part(10.0, start, end)
