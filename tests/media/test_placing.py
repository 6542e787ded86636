"""Sound laid on a clock: laws and a slow oracle, without any file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seats_cli.media.audio import to_mono
from seats_cli.media.placing import JITTER_SECONDS, Block, place_blocks

RATE = 16_000


def blocks_of(sound, step, rate=RATE, start=0.0, times=None):
    for k, begin in enumerate(range(0, sound.size, step)):
        time = start + begin / rate if times is None else times[k]
        yield Block(sound[begin : begin + step], rate, time)


def ramp(n):
    return ((np.arange(n) + 1) / (2 * n + 2)).astype(np.float32)


def test_consecutive_blocks_come_out_as_they_went_in():
    sound = ramp(50_000)
    waveform, placed = place_blocks(blocks_of(sound, 1024), 0.0, 0.0, None)
    np.testing.assert_array_equal(waveform, sound)
    assert waveform.dtype == np.float32
    assert placed.lines() == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 6000)), min_size=1, max_size=8),
    st.integers(-4000, 4000),
    st.integers(0, 5000),
    st.integers(1, 40_000),
)
def test_sound_lies_where_its_times_say(runs, lead, begin, length):
    """Runs of samples at 16 kHz with gaps of 0 or more than the jitter between them, cut to a part."""
    rng = np.random.default_rng(len(runs))
    canvas, is_sound = np.zeros(100_000, np.float32), np.zeros(100_000, bool)
    zero = 4000  # place of the origin on the canvas
    blocks, clock, silence = [], lead, []
    for k, (n_samples, gap) in enumerate(runs):
        wide = gap if k and gap / RATE > JITTER_SECONDS + 1e-6 else 0
        silence.append((clock, clock + wide))
        clock += wide
        sound = rng.uniform(-1, 1, n_samples).astype(np.float32)
        blocks.append(Block(sound, RATE, 7.0 + clock / RATE))
        canvas[zero + clock : zero + clock + n_samples] = sound
        is_sound[zero + clock : zero + clock + n_samples] = True
        clock += n_samples
    waveform, placed = place_blocks(iter(blocks), 7.0, begin / RATE, (begin + length) / RATE)
    stop = min(clock, begin + length)
    wanted = slice(zero + begin, max(zero + begin, zero + stop))
    expected = canvas[wanted] if is_sound[wanted].any() else canvas[:0]
    np.testing.assert_array_equal(waveform, expected)
    if expected.size:
        within = sum(max(0, min(high, begin + length) - max(low, begin)) for low, high in silence)
        assert placed.gap_seconds == pytest.approx(within / RATE)


@pytest.mark.parametrize("lead_seconds", [0.0, 0.3, 2.5])
def test_what_comes_before_the_origin_is_cut_and_measured(lead_seconds):
    sound = ramp(3 * RATE)
    waveform, placed = place_blocks(blocks_of(sound, 1000, start=5.0), 5.0 + lead_seconds, 0.0, None)
    np.testing.assert_array_equal(waveform, sound[round(lead_seconds * RATE) :])
    assert placed.lead_seconds == pytest.approx(lead_seconds)
    assert len(placed.lines()) == (lead_seconds > 0.1)


def test_jitter_is_not_believed():
    sound = ramp(48_000)
    n_blocks = -(-sound.size // 480)
    noise = np.random.default_rng(3).uniform(-0.02, 0.02, n_blocks)
    noise[0] = 0.0
    times = [k * 480 / RATE + noise[k] for k in range(n_blocks)]
    waveform, placed = place_blocks(blocks_of(sound, 480, times=times), 0.0, 0.0, None)
    np.testing.assert_array_equal(waveform, sound)
    assert placed.gap_seconds == placed.overlap_seconds == 0.0


def test_a_clock_that_runs_faster_is_followed():
    # 1 % fewer samples than time: after 60 s the last block must not be 0.6 s early.
    sound, step = ramp(60 * RATE), 1600
    times = [k * step / RATE * 1.01 for k in range(sound.size // step)]
    waveform, placed = place_blocks(blocks_of(sound, step, times=times), 0.0, 0.0, None)
    assert waveform.size / RATE == pytest.approx(60.6, abs=2 * JITTER_SECONDS)
    assert placed.gap_seconds == pytest.approx(0.6, abs=2 * JITTER_SECONDS)


def test_a_clock_that_runs_slower_is_followed():
    sound, step = ramp(60 * RATE), 1600
    times = [k * step / RATE * 0.99 for k in range(sound.size // step)]
    waveform, placed = place_blocks(blocks_of(sound, step, times=times), 0.0, 0.0, None)
    assert waveform.size / RATE == pytest.approx(59.4, abs=2 * JITTER_SECONDS)
    assert placed.overlap_seconds == pytest.approx(0.6, abs=2 * JITTER_SECONDS)


@pytest.mark.parametrize("jump", [-500.0, 100_000.0])
def test_a_clock_that_jumps_is_not_believed_but_its_gaps_are(jump):
    sound = ramp(4 * RATE)
    times = [0.0, 1.0, 2.0 + jump, 3.5 + jump]
    waveform, placed = place_blocks(blocks_of(sound, RATE, times=times), 0.0, 0.0, None)
    assert placed.n_jumps == 1
    assert placed.gap_seconds == pytest.approx(0.5)
    silence = np.zeros(RATE // 2, np.float32)
    np.testing.assert_array_equal(waveform, np.concatenate([sound[: 3 * RATE], silence, sound[3 * RATE :]]))
    assert any("jumps" in line for line in placed.lines())


def test_blocks_without_times_follow_each_other():
    sound = ramp(5000)
    waveform, _ = place_blocks(blocks_of(sound, 1000, times=[None] * 5), None, 0.0, None)
    np.testing.assert_array_equal(waveform, sound)


def test_nothing_in_nothing_out():
    waveform, placed = place_blocks(iter(()), 0.0, 0.0, None)
    assert waveform.shape == (0,)
    assert waveform.dtype == np.float32
    assert placed.start_seconds is None


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("step", [160, 1024, 100_000])
def test_resampling_keeps_length_level_and_place(rate, step):
    times = np.arange(2 * rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    waveform, _ = place_blocks(blocks_of(tone, step, rate=rate), 0.0, 0.0, None)
    assert waveform.size == 2 * RATE
    ideal = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    # The first and last few milliseconds see the edge of the sound.
    assert np.abs(waveform - ideal)[200:-200].max() < 0.01


def test_a_rate_that_changes_on_the_way():
    parts = [np.full(rate, 0.25, np.float32) for rate in (8000, 48_000, 16_000)]
    blocks = [Block(part, part.size, float(k)) for k, part in enumerate(parts)]
    waveform, placed = place_blocks(iter(blocks), 0.0, 0.0, None)
    assert waveform.size == 3 * RATE
    assert np.median(np.abs(waveform - 0.25)) < 1e-3
    assert placed.gap_seconds == 0.0


def test_a_part_may_begin_hours_into_the_sound():
    sound = ramp(10 * RATE)
    waveform, placed = place_blocks(blocks_of(sound, 1000, start=20_000.0), 0.0, 20_002.0, 20_004.0)
    np.testing.assert_array_equal(waveform, sound[2 * RATE : 4 * RATE])
    assert placed.lines() == []


@pytest.mark.parametrize("offset", [-90_000.0, 90_000.0])
def test_a_track_on_another_clock_is_laid_at_the_start_with_a_warning(offset):
    sound = ramp(2 * RATE)
    waveform, placed = place_blocks(blocks_of(sound, 1000, start=offset), 0.0, 0.0, None)
    np.testing.assert_array_equal(waveform, sound)
    assert placed.n_jumps == 1


def test_reading_stops_where_the_part_ends():
    def endless():
        for k in range(10_000):
            assert k < 40, "read far beyond the end"
            yield Block(np.ones(RATE // 10, np.float32), RATE, k / 10)

    waveform, _ = place_blocks(endless(), 0.0, 1.0, 2.0)
    assert waveform.size == RATE


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 128, 255]], np.uint8), [-1.0, 0.0, 127 / 128]),
        (np.array([[-32768, 0, 16384]], np.int16), [-1.0, 0.0, 0.5]),
        (np.array([[-(2**31), 0, 2**30]], np.int32), [-1.0, 0.0, 0.5]),
        (np.array([[0.25, -0.5]], np.float64), [0.25, -0.5]),
        (np.array([[0.2, 0.4], [0.6, 0.4]], np.float32), [0.4, 0.4]),
    ],
)
def test_samples_of_any_type_become_their_mean(values, expected):
    mono, n_bad = to_mono(values)
    np.testing.assert_allclose(mono, expected, atol=1e-7)
    assert mono.dtype == np.float32
    assert n_bad == 0


def test_what_is_no_number_becomes_silence_and_is_counted():
    values = np.array([[np.nan, 1.0, np.inf], [0.5, 0.5, -1e300]], np.float64)
    mono, n_bad = to_mono(values)
    np.testing.assert_allclose(mono, [0.25, 0.75, 0.0])
    assert n_bad == 3
