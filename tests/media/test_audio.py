"""What is heard, and when: clicks found again in real files."""

from fractions import Fraction

import numpy as np
import pytest
import soundfile

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError, UsageError
from seats_cli.media import audio as audio_room
from seats_cli.media import open_clip, probe
from tests.media.clips import click, even_times, has_encoder, loudest_seconds, open_files, tone, write_video

RATE = 16_000
TIMES = even_times(3, 25)
NO_TRACK = "no audio track: the answer is from the picture alone"


def heard(path, **options):
    """The waveform of a clip that obeys the contract."""
    clip = open_clip(path, MediaOptions(**options))
    waveform = clip.waveform()
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert np.isfinite(waveform).all()
    assert (clip.audio is None) == (waveform.size == 0)
    assert clip.seconds_audio == waveform.size / RATE
    np.testing.assert_array_equal(waveform, clip.waveform())
    assert open_files(path) == 0
    return clip, waveform


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize(("picture_start", "sound_start"), [(0, 0.0), (0, 0.7), (0, 0.02), (2, 0.0), (2, 1.3)])
def test_a_click_is_heard_when_it_sounds(tmp_path, suffix, picture_start, sound_start):
    path = write_video(
        tmp_path / f"a.{suffix}",
        [picture_start + time for time in TIMES],
        sound=click(4.0, 2.5),
        sound_start_seconds=sound_start,
    )
    clip, waveform = heard(path)
    expected = sound_start + 2.5 - picture_start
    assert loudest_seconds(waveform) == pytest.approx(expected, abs=1e-3)
    # Sound outlasts the picture and is kept; codecs add a frame of padding at most.
    assert clip.seconds_audio == pytest.approx(sound_start + 4.0 - picture_start, abs=0.07)
    cut = [line for line in clip.warnings if "before the picture" in line]
    assert len(cut) == (picture_start - sound_start > 0.1)


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100, 48_000])
def test_a_click_keeps_its_place_at_any_rate(tmp_path, rate_hz):
    path = write_video(tmp_path / "a.mp4", TIMES, sound=click(3, 1.5, rate_hz), sound_rate_hz=rate_hz)
    clip, waveform = heard(path)
    assert loudest_seconds(waveform) == pytest.approx(1.5, abs=1e-3)
    assert clip.audio.sample_rate_hz == rate_hz
    assert clip.audio.codec == "aac"


def test_sound_with_pictures_in_a_webm(tmp_path):
    path = write_video(
        tmp_path / "a.webm",
        TIMES,
        codec="libvpx-vp9",
        sound=click(3, 1.5, 48_000),
        sound_rate_hz=48_000,
        sound_codec="libopus",
    )
    assert loudest_seconds(heard(path)[1]) == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_gaps_become_silence_and_are_told(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", TIMES, sound=click(2, 1.5), sound_holes=[(1.0, 0.5)])
    clip, waveform = heard(path)
    assert loudest_seconds(waveform) == pytest.approx(2.0, abs=1e-3)
    assert any(line.startswith("0.50 s of gaps in the sound") for line in clip.warnings)


def test_sound_is_never_cut_at_300_seconds(tmp_path):
    seconds, rate_hz = 304, 8000
    sound = click(seconds, 302.5, rate_hz)
    soundfile.write(tmp_path / "a.wav", sound, rate_hz, subtype="PCM_16")
    _, waveform = heard(tmp_path / "a.wav")
    assert waveform.size == seconds * RATE
    assert loudest_seconds(waveform) == pytest.approx(302.5, abs=1e-3)
    path = write_video(tmp_path / "a.mkv", TIMES, sound=sound, sound_rate_hz=rate_hz, sound_codec="pcm_s16le")
    clip, waveform = heard(path)
    assert waveform.size == seconds * RATE
    assert loudest_seconds(waveform) == pytest.approx(302.5, abs=1e-3)
    assert clip.seconds_video == pytest.approx(3.0)


NATIVE = [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("ogg", "VORBIS")]
NATIVE += [("mp3", "MPEG_LAYER_III"), ("aiff", "PCM_16"), ("ogg", "OPUS")]


@pytest.mark.parametrize(("suffix", "subtype"), NATIVE)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sound_files(tmp_path, suffix, subtype, channels):
    if suffix == "mp3" and channels > 2:
        channels = 2
    path = tmp_path / f"a.{suffix}"
    sound = click(2, 1.25, 48_000)
    soundfile.write(path, np.repeat(sound[:, None], channels, 1), 48_000, subtype=subtype)
    clip, waveform = heard(path)
    assert waveform.size == pytest.approx(2 * RATE, abs=16)
    assert loudest_seconds(waveform) == pytest.approx(1.25, abs=1e-3)
    # Equal channels are as loud as one of them.
    assert np.abs(waveform).max() == pytest.approx(0.8, abs=0.06)
    assert clip.video is None
    assert clip.plan is None
    assert list(clip.frames()) == []
    assert clip.warnings == []
    assert (clip.audio.sample_rate_hz, clip.audio.channels) == (48_000, channels)


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_16")])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_ffmpeg_hears_what_libsndfile_hears(tmp_path, monkeypatch, suffix, subtype, channels):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(1).uniform(-0.9, 0.9, (30_000, channels))
    soundfile.write(path, noise, 22_050, subtype=subtype)
    _, by_libsndfile = heard(path)
    monkeypatch.setattr(probe, "open_soundfile_track", lambda _: None)
    _, by_ffmpeg = heard(path)
    np.testing.assert_allclose(by_ffmpeg, by_libsndfile, atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "codec", "rate_hz"),
    [("m4a", "aac", 44_100), ("mka", "flac", 16_000), ("webm", "libopus", 48_000), ("ts", "mp2", 48_000)],
)
def test_sound_files_for_ffmpeg_alone(tmp_path, suffix, codec, rate_hz):
    fmt = "ipod" if suffix == "m4a" else None
    fmt = "matroska" if suffix == "mka" else fmt
    path = write_video(
        tmp_path / f"a.{suffix}",
        sound=click(2, 1.25, rate_hz),
        sound_rate_hz=rate_hz,
        sound_codec=codec,
        format=fmt,
    )
    clip, waveform = heard(path)
    # mp2 states no encoder delay, 481 samples of it.
    assert loudest_seconds(waveform) == pytest.approx(1.25 + (codec == "mp2") * 481 / 48_000, abs=1e-3)
    assert clip.seconds_audio == pytest.approx(2.0, abs=0.06)
    assert clip.warnings == []


def test_opus_and_m4a_files_by_name(tmp_path):
    path = write_video(
        tmp_path / "a.opus",
        sound=click(2, 1.25, 48_000),
        sound_rate_hz=48_000,
        sound_codec="libopus",
        format="ogg",
    )
    assert loudest_seconds(heard(path)[1]) == pytest.approx(1.25, abs=1e-3)


@pytest.mark.parametrize("suffix", ["wav", "mkv"])
def test_a_part_of_a_sound_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    sound = click(20, 13.5, 44_100)
    if suffix == "wav":
        soundfile.write(path, sound, 44_100)
    else:
        write_video(path, sound=sound, sound_rate_hz=44_100, sound_codec="flac")
    clip, waveform = heard(path, start_seconds=12.0, end_seconds=14.0)
    assert waveform.size == 2 * RATE
    assert loudest_seconds(waveform) == pytest.approx(1.5, abs=1e-3)
    with pytest.raises(UsageError, match=r"25 s .* 20\.0"):
        open_clip(path, MediaOptions(start_seconds=25.0))
    clip, waveform = heard(path, start_seconds=19.0, end_seconds=30.0)
    assert clip.seconds_audio == pytest.approx(1.0, abs=1e-3)
    assert any("--end 30 s" in line for line in clip.warnings)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("start", [1.0, 25.0])
def test_a_part_of_the_sound_beside_the_picture(tmp_path, suffix, start):
    codec, clock = ("mpeg4", Fraction(1, 25)) if suffix == "avi" else ("libx264", Fraction(1, 90_000))
    path = write_video(
        tmp_path / f"a.{suffix}",
        even_times(30, 25),
        codec=codec,
        time_base=clock,
        sound=click(32, start + 1.5),
        sound_codec="pcm_s16le" if suffix == "avi" else "aac",
    )
    clip, waveform = heard(path, start_seconds=start, end_seconds=start + 3.0)
    assert waveform.size == 3 * RATE
    assert loudest_seconds(waveform) == pytest.approx(1.5, abs=1e-3)
    assert clip.warnings == []


def test_sound_is_sought_and_not_read_from_the_start(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", even_times(30, 25), sound=tone(30))
    read: list[float] = []
    original = audio_room.frame_block

    def spy(*given):
        block = original(*given)
        read.append(block.start_seconds)
        return block

    monkeypatch.setattr(audio_room, "frame_block", spy)
    heard(path, start_seconds=25.0, end_seconds=26.0)
    assert 22.0 < read[0] <= 25.0
    assert read[-1] < 27.5


def test_where_seeking_fails_everything_is_read(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", even_times(30, 25), sound=click(30, 26.5))
    monkeypatch.setattr(audio_room, "seek", lambda *_: False)
    _, waveform = heard(path, start_seconds=25.0, end_seconds=28.0)
    assert loudest_seconds(waveform) == pytest.approx(1.5, abs=1e-3)


def test_where_seeking_goes_too_far_everything_is_read(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", even_times(30, 25), sound=click(30, 26.5))
    original = audio_room.seek

    def overshoot(container, stream_index, ticks):
        return original(container, stream_index, ticks + 4 * RATE)

    monkeypatch.setattr(audio_room, "seek", overshoot)
    _, waveform = heard(path, start_seconds=25.0, end_seconds=28.0)
    assert loudest_seconds(waveform) == pytest.approx(1.5, abs=1e-3)


def test_no_track_is_told_once_and_can_be_an_error(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES)
    assert heard(path)[0].warnings == [NO_TRACK]
    assert heard(path, audio="on")[0].warnings == [NO_TRACK]
    assert heard(path, audio="off")[0].warnings == []
    with pytest.raises(MediaError, match="no audio track"):
        open_clip(path, MediaOptions(require_audio=True))


def test_sound_can_be_left_out(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, sound=tone(3))
    clip, _ = heard(path, audio="off")
    assert clip.audio is None
    assert clip.warnings == []
    soundfile.write(tmp_path / "a.wav", tone(1), RATE)
    with pytest.raises(UsageError, match="no picture"):
        open_clip(tmp_path / "a.wav", MediaOptions(audio="off"))


def test_a_track_damaged_throughout(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, sound=tone(3), sound_damaged=range(100))
    clip, _ = heard(path)
    assert clip.warnings == ["the audio track cannot be decoded: the answer is from the picture alone"]
    for options in (MediaOptions(audio="on"), MediaOptions(require_audio=True)):
        with pytest.raises(MediaError, match="cannot be decoded"):
            open_clip(path, options)


def test_a_track_damaged_in_places_is_heard_around_them(tmp_path):
    path = write_video(tmp_path / "a.mkv", TIMES, sound=click(3, 2.5), sound_damaged=range(10, 15))
    clip, waveform = heard(path)
    assert loudest_seconds(waveform) == pytest.approx(2.5, abs=1e-3)
    assert any("cannot be decoded: 5" in line for line in clip.warnings)
    assert any("filled with silence" in line for line in clip.warnings)
    with pytest.raises(MediaError, match="cannot be decoded: 5"):
        open_clip(path, MediaOptions(audio="on"))


def test_a_part_without_sound(tmp_path):
    path = write_video(tmp_path / "a.mkv", even_times(6, 25), sound=tone(2))
    clip, _ = heard(path, start_seconds=4.0)
    assert clip.warnings == ["there is no sound in the part used: the answer is from the picture alone"]
    assert heard(path, start_seconds=4.0, audio="on")[0].audio is None
    with pytest.raises(MediaError, match="no sound in the part"):
        open_clip(path, MediaOptions(start_seconds=4.0, require_audio=True))


def test_a_part_behind_the_picture(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, sound=click(9, 6.5))
    clip, waveform = heard(path, start_seconds=5.0, end_seconds=8.0)
    assert clip.video is None
    assert clip.plan is None
    assert clip.seconds_video == 0.0
    assert loudest_seconds(waveform) == pytest.approx(1.5, abs=1e-3)
    assert any("picture ends after 3.00 s" in line for line in clip.warnings)
    with pytest.raises(UsageError, match="beyond the end"):
        open_clip(path, MediaOptions(start_seconds=5.0, audio="off"))


def test_samples_that_are_no_numbers(tmp_path):
    sound = tone(1)
    sound[1000:1010] = np.nan
    sound[2000] = np.inf
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    clip, waveform = heard(tmp_path / "a.wav")
    assert (waveform[1000:1010] == 0).all()
    assert any(line.startswith("11 sound samples were not numbers") for line in clip.warnings)
    path = write_video(tmp_path / "a.mkv", TIMES, sound=sound, sound_codec="pcm_f32le")
    clip, waveform = heard(path)
    assert (waveform[1000:1010] == 0).all()
    assert any(line.startswith("11 sound samples were not numbers") for line in clip.warnings)


def test_a_sound_file_with_nothing_in_it(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0, np.float32), RATE)
    with pytest.raises(MediaError, match="empty"):
        open_clip(path, MediaOptions())


@pytest.mark.parametrize(("suffix", "says"), [("wav", "cut short"), ("flac", "breaks off early")])
def test_a_sound_file_that_was_cut_off_says_so(tmp_path, suffix, says):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 10 * RATE)
    soundfile.write(path, noise, RATE, subtype="PCM_16")
    assert heard(path)[0].warnings == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip, waveform = heard(path)
    assert 3 * RATE < waveform.size < 6 * RATE
    np.testing.assert_allclose(waveform, noise[: waveform.size], atol=1e-4)
    assert any(says in line for line in clip.warnings)


def test_encoders_of_this_room_are_there():
    # Without these the tests above would say little.
    assert all(has_encoder(codec) for codec in ("libx264", "aac", "libopus", "libvpx-vp9"))


@pytest.mark.parametrize(
    ("suffix", "codec", "rate_hz"),
    [
        *(("mp4", "aac", 44_100), ("mov", "pcm_s16le", 48_000), ("mp4", "libmp3lame", 44_100)),
        *(
            ("mkv", "ac3", 48_000),
            ("mkv", "flac", 22_050),
            ("webm", "libopus", 48_000),
            ("mkv", "libvorbis", 44_100),
        ),
        *(("mp4", "alac", 44_100), ("mkv", "aac", 48_000)),
    ],
)
def test_nothing_is_decoded_in_vain_to_hear_what_is_beside_a_picture(
    tmp_path, monkeypatch, suffix, codec, rate_hz
):
    if not has_encoder(codec):
        return
    video = "libvpx-vp9" if suffix == "webm" else "libx264"
    sound = {"sound": tone(3, rate_hz, 700), "sound_rate_hz": rate_hz, "sound_codec": codec}
    path = write_video(tmp_path / f"a.{suffix}", even_times(3, 25), codec=video, sound_start_seconds=0.5, **sound)
    quick = open_clip(path, MediaOptions())
    monkeypatch.setattr("seats_cli.media.probe.header_tells_streams", lambda container: False)
    plain = open_clip(path, MediaOptions())
    np.testing.assert_array_equal(quick.waveform(), plain.waveform())
    assert (quick.audio, quick.warnings) == (plain.audio, plain.warnings)
    assert abs(quick.waveform().size - 3.5 * 16_000) < 0.1 * 16_000
