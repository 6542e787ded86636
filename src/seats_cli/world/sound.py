"""The sound of a scene: beeps, sweeps, noise and a buzz over a faint hiss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seats_cli.world.scene import PIP_GAP_SECONDS, PIP_SECONDS, Scene, Sound

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

RATE_HZ = 44_100
_RAMP_SECONDS = 0.01
_HIGH_HZ, _LOW_HZ, _BUZZ_HZ = 1600.0, 320.0, 110.0
_SWEEP_HZ = (400.0, 2400.0)


def _envelope(n: int) -> Float64:
    """Full, with short ramps that keep the ends from clicking."""
    ramp = _RAMP_SECONDS * RATE_HZ
    distance = np.minimum(np.arange(n), np.arange(n)[::-1])
    return np.minimum(1.0, distance / ramp)


def _tone(frequency_hz: float, n: int) -> Float64:
    return np.sin(2 * np.pi * frequency_hz * np.arange(n) / RATE_HZ) * _envelope(n)


def _beeps(frequency_hz: float, count: int) -> Float64:
    pip = _tone(frequency_hz, round(PIP_SECONDS * RATE_HZ))
    gap = np.zeros(round(PIP_GAP_SECONDS * RATE_HZ))
    return np.concatenate([pip, *[part for _ in range(count - 1) for part in (gap, pip)]])


def _sweep(start_hz: float, end_hz: float, n: int) -> Float64:
    frequency = np.geomspace(start_hz, end_hz, n)
    return np.sin(2 * np.pi * np.cumsum(frequency) / RATE_HZ) * _envelope(n)


def voice(sound: Sound, rng: np.random.Generator) -> Float64:
    """The samples of one sound at 44.1 kHz, float64 [n] in -1..1."""
    n = round((sound.end_seconds - sound.start_seconds) * RATE_HZ)
    low, high = (f * sound.detune for f in _SWEEP_HZ)
    if sound.kind == "high beep":
        return _beeps(_HIGH_HZ * sound.detune, sound.count)
    if sound.kind == "low beep":
        return _beeps(_LOW_HZ * sound.detune, sound.count)
    if sound.kind == "rising tone":
        return _sweep(low, high, n)
    if sound.kind == "falling tone":
        return _sweep(high, low, n)
    if sound.kind == "noise":
        return np.clip(rng.normal(0, 0.35, n), -1, 1) * _envelope(n)
    if sound.kind == "buzz":
        return np.sign(np.sin(2 * np.pi * _BUZZ_HZ * sound.detune * np.arange(n) / RATE_HZ)) * 0.6 * _envelope(n)
    raise ValueError(f"no such sound: {sound.kind}")


def waveform(scene: Scene) -> Float32:
    """The sound of a scene, mono at 44.1 kHz: float32 [n]."""
    rng = np.random.default_rng([scene.seed, 2])
    samples = rng.normal(0, 0.002, scene.seconds * RATE_HZ)
    for sound in scene.sounds:
        part = voice(sound, rng) * rng.uniform(0.35, 0.6)
        start = round(sound.start_seconds * RATE_HZ)
        samples[start : start + len(part)] += part[: len(samples) - start]
    return samples.astype(np.float32)
