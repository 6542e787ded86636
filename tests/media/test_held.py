"""A clip held in memory is the clip it was made of, once and again, here and elsewhere."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError
from seats_cli.media import open_clip
from seats_cli.media.held import hold
from seats_cli.media.length import seconds_of
from tests.media.clips import even_times, tone, write_video

FACTS = ("path", "video", "audio", "has_audio_track", "seconds_video", "seconds_audio")


def as_it_is(_):
    return lambda image: image


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    return {
        "both": write_video(folder / "both.mp4", even_times(3, 8), sound=tone(3)),
        "picture": write_video(folder / "picture.mp4", even_times(2, 8)),
        "sound": write_video(folder / "sound.m4a", sound=tone(2), format="mp4"),
        "hurt": write_video(folder / "hurt.mp4", even_times(4, 8), sound=tone(4), damaged=(9, 10, 11, 12)),
    }


@pytest.mark.parametrize("name", ["both", "picture", "sound", "hurt"])
def test_it_is_the_clip_it_was_made_of(clips, name):
    options = MediaOptions(max_frames=8)
    clip = open_clip(clips[name], options)
    before = list(clip.warnings)
    frames = list(clip.frames())
    held = pickle.loads(pickle.dumps(hold(lambda: open_clip(clips[name], options), as_it_is)))
    assert [getattr(held, fact) for fact in FACTS] == [getattr(clip, fact) for fact in FACTS]
    np.testing.assert_array_equal(held.waveform(), clip.waveform())
    if clip.plan is None:
        assert held.plan is None
    else:
        np.testing.assert_array_equal(held.plan.times_seconds, clip.plan.times_seconds)
        assert held.plan.fps == clip.plan.fps
    for _ in range(2):
        again = held.again()
        assert again.warnings == before
        found = list(again.frames())
        # What a clip says on its way through the frames comes then, and once.
        assert again.warnings == clip.warnings
        assert [(frame.index, frame.pts_seconds) for frame in found] == [
            (frame.index, frame.pts_seconds) for frame in frames
        ]
        for one, other in zip(found, frames, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
        list(again.frames())
        assert again.warnings == clip.warnings
    assert held.warnings == before
    assert held.decoding_seconds > 0


def test_a_damaged_clip_has_something_to_say(clips):
    """Else the test above would hold for nothing."""
    held = hold(lambda: open_clip(clips["hurt"], MediaOptions()), as_it_is)
    assert held.late_warnings


def test_frames_are_held_in_the_size_that_is_looked_at(clips):
    def halves(clip):
        clip.warnings.append("noted by who counts")
        return lambda image: image[::2, ::2]

    held = hold(lambda: open_clip(clips["both"], MediaOptions()), halves)
    whole = list(open_clip(clips["both"], MediaOptions()).frames())
    assert [frame.image.shape for frame in held.frames()] == [(32, 32, 3)] * len(whole)
    for one, other in zip(held.frames(), whole, strict=True):
        np.testing.assert_array_equal(one.image, other.image[::2, ::2])
    # Who looks notes that again.
    assert "noted by who counts" not in held.warnings
    assert "noted by who counts" not in held.late_warnings


def test_what_is_noted_about_one_copy_is_not_noted_about_another(clips):
    held = hold(lambda: open_clip(clips["both"], MediaOptions()), as_it_is)
    held.again().warnings.append("odd")
    assert "odd" not in held.warnings
    assert "odd" not in held.again().warnings


def test_what_cannot_be_opened_is_not_held(tmp_path):
    with pytest.raises(MediaError):
        hold(lambda: open_clip(tmp_path / "missing.mp4", MediaOptions()), as_it_is)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(None, None, 3.0), (1.0, None, 2.0), (None, 2.0, 2.0), (1.0, 2.5, 1.5), (5.0, None, 0.0), (None, 9.0, 3.0)],
)
def test_lengths_are_of_the_part_that_is_used(clips, start, end, expected):
    options = MediaOptions(start_seconds=start, end_seconds=end)
    assert seconds_of(str(clips["both"]), options) == pytest.approx(expected, abs=0.1)


def test_what_cannot_be_opened_has_no_length(tmp_path):
    (tmp_path / "text.mp4").write_text("This is no film.")
    for name in ("missing.mp4", "text.mp4"):
        assert seconds_of(str(tmp_path / name), MediaOptions()) == 0.0
