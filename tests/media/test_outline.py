"""What packets tell of a clip, against the clip itself: decoded."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import soundfile

from seats_cli.config import MediaOptions
from seats_cli.errors import SeatsError
from seats_cli.media import audio as audio_room
from seats_cli.media import decoding_rate, open_clip, outline_clip, with_less
from tests.media.clips import click, even_times, open_files, tone, write_video

FEW = even_times(3, 25)
# A packet of AAC at 16 kHz is 64 ms; what pads the last one shows in its duration only where a container says so.
PADDING_SAMPLES = 1100
PARTS = [
    {},
    {"start_seconds": 1.0},
    {"start_seconds": 0.5, "end_seconds": 2.2},
    {"end_seconds": 1.5, "fps": 4.0},
    {"max_frames": 4},
    {"audio": "off"},
    {"end_seconds": 99.0},
]


def same(path, *, padding=PADDING_SAMPLES, **chosen):
    """Both ways of looking at a file, held against each other."""
    options = MediaOptions(**chosen)
    outline, clip = outline_clip(path, options), open_clip(path, options)
    assert outline.video == clip.video
    assert (outline.plan is None) == (clip.plan is None)
    if outline.plan is not None:
        np.testing.assert_array_equal(outline.plan.times_seconds, clip.plan.times_seconds)
        assert (outline.plan.fps, outline.plan.n_grids) == (clip.plan.fps, clip.plan.n_grids)
    assert outline.seconds_video == clip.seconds_video
    assert (outline.audio is None) == (clip.audio is None)
    assert outline.has_audio_track == clip.has_audio_track
    assert abs(outline.n_samples - len(clip.waveform())) <= padding
    assert open_files(path) == 0
    return outline, clip


@pytest.fixture(scope="module", params=["mp4", "mov", "mkv", "ts"])
def film(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / f"a.{request.param}"
    return write_video(path, FEW, sound=tone(3))


@pytest.mark.parametrize("chosen", PARTS, ids=str)
def test_an_outline_is_the_clip_without_its_pixels(film, chosen):
    outline, clip = same(film, **chosen)
    assert outline.warnings == clip.warnings


@pytest.mark.parametrize(("rate_hz", "sound_start"), [(44_100, 0.0), (48_000, 0.7), (16_000, 1.3)])
def test_sound_that_begins_later_and_at_other_rates(tmp_path, rate_hz, sound_start):
    path = write_video(
        tmp_path / "a.mp4", FEW, sound=tone(2, rate_hz), sound_rate_hz=rate_hz, sound_start_seconds=sound_start
    )
    same(path)
    same(path, start_seconds=0.5)
    same(path, start_seconds=1.5, end_seconds=2.5)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_files_that_state_their_samples_are_exact(tmp_path, suffix):
    soundfile.write(tmp_path / f"a.{suffix}", tone(2.345), 16_000)
    outline, _ = same(tmp_path / f"a.{suffix}", padding=0)
    assert outline.video is None
    same(tmp_path / f"a.{suffix}", padding=0, start_seconds=0.7, end_seconds=1.9)


def test_sound_alone_in_a_container(tmp_path):
    same(write_video(tmp_path / "a.m4a", sound=tone(3), format="mp4"))
    soundfile.write(tmp_path / "a.mp3", click(2, 1.25), 16_000)
    same(tmp_path / "a.mp3", padding=2 * 1152)


def test_a_silent_film_and_one_whose_sound_ends_early(tmp_path):
    silent = write_video(tmp_path / "a.mp4", FEW)
    outline, clip = same(silent)
    assert outline.warnings == clip.warnings
    short = write_video(tmp_path / "b.mp4", FEW, sound=tone(1))
    outline, clip = same(short, start_seconds=2.0)
    assert outline.warnings == clip.warnings
    assert outline.n_samples == 0


def test_sound_that_outlasts_the_picture(tmp_path):
    path = write_video(tmp_path / "a.mp4", even_times(1, 25), sound=tone(3))
    outline, clip = same(path, start_seconds=2.0)
    assert outline.plan is None
    assert outline.warnings == clip.warnings


def test_slow_and_uneven_pictures(tmp_path):
    times = [Fraction(k, 3) + Fraction(k % 2, 50) for k in range(9)]
    same(write_video(tmp_path / "a.mkv", times, rate=3), fps=5.0)


@pytest.mark.parametrize("chosen", [{"require_audio": True}, {"start_seconds": 9.0}, {"end_seconds": 0.0}])
def test_what_cannot_be_is_refused_in_the_same_words(tmp_path, chosen):
    path = write_video(tmp_path / "a.mp4", FEW)
    told = []
    for look in (open_clip, outline_clip):
        with pytest.raises(SeatsError) as error:
            look(path, MediaOptions(**chosen))
        told.append((type(error.value), str(error.value), error.value.hint))
    assert told[0] == told[1]


def test_files_that_are_no_media(tmp_path):
    (tmp_path / "a.mp4").write_text("This is no film. " * 50)
    for path in (tmp_path / "a.mp4", tmp_path / "none.mp4", tmp_path):
        with pytest.raises(SeatsError) as one:
            outline_clip(path, MediaOptions())
        with pytest.raises(SeatsError) as other:
            open_clip(path, MediaOptions())
        assert str(one.value) == str(other.value)


def test_the_sound_is_not_decoded_for_it(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", FEW, sound=tone(3))

    def never(*_):
        raise AssertionError("the sound was decoded")

    monkeypatch.setattr(audio_room, "frame_block", never)
    assert outline_clip(path, MediaOptions()).n_samples == pytest.approx(48_000, abs=PADDING_SAMPLES)


def test_what_decoding_takes_is_counted_from_the_keyframe_before(tmp_path):
    path = write_video(tmp_path / "a.mp4", FEW, gop=10)
    whole = outline_clip(path, MediaOptions())
    # The last frame looked at is shown at 2.5 s: on a tie the 62nd, counted from 0.
    assert whole.picture.n_decoded == 63
    assert whole.decoded_pixels == 63 * 64 * 64
    late = outline_clip(path, MediaOptions(start_seconds=2.0))
    assert late.picture.n_decoded == 63 - 50
    assert decoding_rate(whole, 10.0) > 0
    assert decoding_rate(late, 0.0) > 0


def test_a_rate_needs_a_picture(tmp_path):
    path = write_video(tmp_path / "a.m4a", sound=tone(3), format="mp4")
    outline = outline_clip(path, MediaOptions())
    assert outline.decoded_pixels == 0
    assert decoding_rate(outline, 1.0) is None


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_less_of_a_clip_is_what_the_options_would_make_of_it(tmp_path, share):
    path = write_video(tmp_path / "a.mp4", FEW, sound=tone(3))
    whole = outline_clip(path, MediaOptions())
    less = with_less(whole, 2.0, max_frames=4, share=share)
    asked = outline_clip(path, MediaOptions(max_frames=4, end_seconds=None if share == 1 else 3 * share))
    np.testing.assert_allclose(less.plan.times_seconds, asked.plan.times_seconds)
    assert abs(less.n_samples - asked.n_samples) <= PADDING_SAMPLES
    assert less.seconds_video == pytest.approx(asked.seconds_video)
