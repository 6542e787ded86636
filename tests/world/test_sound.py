"""The sound of a scene: the right pitch at the right time, silence elsewhere, also after aac."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.media import open_clip
from seats_cli.world.clips import write_scene
from seats_cli.world.scene import SOUNDS, Scene, Sound
from seats_cli.world.sound import RATE_HZ, voice, waveform
from tests.world.drawn import scenes
from tests.world.watcher import listen, loudest_hz

LOW, HIGH = 0.94, 1.06


def sound(kind: str, count: int = 1, start: float = 1.2, detune: float = 1.0) -> Sound:
    length = 0.14 * (2 * count - 1) if "beep" in kind else 0.8
    return Sound(kind, count, start, start + length, detune)


def scene_with(*sounds: Sound) -> Scene:
    return Scene(9, 4, 6, 6, (), sounds)


def level(samples: np.ndarray) -> float:
    return float(np.sqrt((samples.astype(float) ** 2).mean()))


def test_a_waveform_is_as_long_as_the_clip_and_the_same_again():
    for scene in scenes(10):
        samples = waveform(scene)
        assert samples.dtype == np.float32
        assert samples.shape == (scene.seconds * RATE_HZ,)
        assert np.abs(samples).max() <= 1.0
        np.testing.assert_array_equal(samples, waveform(scene))


def test_it_is_loud_while_a_sound_is_heard_and_silent_elsewhere():
    for scene in scenes(25):
        samples = waveform(scene)
        busy = np.zeros(len(samples), dtype=bool)
        for one in scene.sounds:
            first, last = round(one.start_seconds * RATE_HZ), round(one.end_seconds * RATE_HZ)
            busy[first : last + 1] = True
            assert level(samples[first:last]) > 0.08
        assert level(samples[~busy]) < 0.003


@pytest.mark.parametrize("detune", [LOW, 1.0, HIGH])
@pytest.mark.parametrize(("kind", "hz"), [("high beep", 1600), ("low beep", 320), ("buzz", 110)])
def test_a_steady_sound_has_its_pitch(kind, hz, detune):
    samples = voice(sound(kind, detune=detune), np.random.default_rng(0))
    assert loudest_hz(samples, RATE_HZ) == pytest.approx(hz * detune, abs=8)


def test_kinds_of_beeps_are_apart_whatever_their_detuning():
    assert 320 * HIGH < 0.25 * 1600 * LOW


@pytest.mark.parametrize(("kind", "first", "last"), [("rising tone", 400, 2400), ("falling tone", 2400, 400)])
def test_a_sweep_goes_from_one_pitch_to_the_other(kind, first, last):
    samples = voice(sound(kind), np.random.default_rng(0))
    n = RATE_HZ // 25
    assert loudest_hz(samples[:n], RATE_HZ) == pytest.approx(first, rel=0.15)
    assert loudest_hz(samples[-n:], RATE_HZ) == pytest.approx(last, rel=0.15)
    # In equal times the pitch changes by equal factors.
    middle = samples[len(samples) // 2 - n // 2 :][:n]
    assert loudest_hz(middle, RATE_HZ) == pytest.approx((400 * 2400) ** 0.5, rel=0.1)


def test_noise_has_every_pitch():
    samples = voice(sound("noise"), np.random.default_rng(0))
    power = np.abs(np.fft.rfft(samples)) ** 2
    bands = power[: len(power) // 10 * 10].reshape(10, -1).mean(1)
    assert bands.max() < 1.5 * bands.min()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["high beep", "low beep"])
def test_beeps_can_be_counted(kind, count):
    samples = np.abs(voice(sound(kind, count), np.random.default_rng(0)))
    assert len(samples) == pytest.approx((2 * count - 1) * 0.14 * RATE_HZ, abs=8)
    loud = samples.reshape(-1)[: len(samples) // 441 * 441].reshape(-1, 441).max(1) > 0.1
    assert np.count_nonzero(np.diff(np.concatenate([[0], loud.astype(int)])) == 1) == count


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_sound_begins_and_ends_without_a_click(kind):
    samples = np.abs(voice(sound(kind), np.random.default_rng(0)))
    assert max(samples[:20].max(), samples[-20:].max()) < 0.06


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="gong"):
        voice(replace(sound("buzz"), kind="gong"), np.random.default_rng(0))


@pytest.mark.parametrize("kind", SOUNDS)
def test_after_aac_a_sound_is_still_itself_and_in_its_place(tmp_path, kind):
    one = sound(kind, 3 if "beep" in kind else 1, start=2.35, detune=0.97)
    write_scene(tmp_path / "clip.mp4", scene_with(one))
    samples = open_clip(tmp_path / "clip.mp4", MediaOptions()).waveform()
    assert len(samples) == pytest.approx(4 * 16_000, abs=1600)
    (heard,) = listen(samples, 16_000)
    assert (heard.kind, heard.count) == (kind, one.count)
    assert heard.start == pytest.approx(one.start_seconds, abs=0.03)
    assert heard.end == pytest.approx(one.end_seconds, abs=0.03)
    assert level(samples[: round(2.3 * 16_000)]) < 0.005
