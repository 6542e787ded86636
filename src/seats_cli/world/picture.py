"""The picture of a scene: things drawn over a still texture with specks that mean nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from seats_cli.world.scene import COLOURS, Scene, Thing

Uint8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

FRAMES_PER_SECOND = 8
_OVERSAMPLING = 3
_COARSE = 5
_N_SPECKS = 6
_STAR_INNER, _STAR_BEND = 0.36, 1.5


def _inside(shape: str, u: Float32, v: Float32) -> npt.NDArray[np.bool_]:
    """Whether points of a square from -1 to 1 lie in a shape; ``v`` points down."""
    distance = np.hypot(u, v)
    if shape == "circle":
        return distance <= 0.95
    if shape == "ring":
        return (distance <= 1.0) & (distance >= 0.56)
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= 0.82
    if shape == "triangle":
        return (v <= 0.8) & (np.abs(u) <= (v + 0.95) * 0.58)
    if shape == "cross":
        return (np.minimum(np.abs(u), np.abs(v)) <= 0.3) & (np.maximum(np.abs(u), np.abs(v)) <= 0.98)
    if shape == "star":
        # The tips point up and around: the outline swings between them and an inner circle.
        phase = (np.arctan2(u, -v) * 5 / (2 * np.pi)) % 1.0
        return distance <= _STAR_INNER + (1.05 - _STAR_INNER) * np.abs(2 * phase - 1) ** _STAR_BEND
    raise ValueError(f"no such shape: {shape}")


def mask_of(thing: Thing, height: int) -> Float32:
    """Opacity of a thing, float32 [side, side] in 0..1, for a frame of that many pixels in height."""
    side = 2 * round(thing.radius * height) + 1
    fine = (np.arange(side * _OVERSAMPLING, dtype=np.float32) + 0.5) / (side * _OVERSAMPLING) * 2 - 1
    x, y = np.meshgrid(fine, fine)
    cos, sin = np.cos(thing.turn), np.sin(thing.turn)
    inside = _inside(thing.shape, x * cos + y * sin, y * cos - x * sin)
    parts = inside.reshape(side, _OVERSAMPLING, side, _OVERSAMPLING)
    opacity: Float32 = parts.mean((1, 3), dtype=np.float32)
    return opacity


def corner_of(thing: Thing, time_seconds: float, width: int, height: int) -> tuple[int, int]:
    """(left, top) pixel of a thing's mask at a time; it may lie outside the frame."""
    x, y = thing.centre(time_seconds)
    half = round(thing.radius * height)
    return round(x * width) - half, round(y * height) - half


def _background(scene: Scene) -> Float32:
    """float32 [height, width, 3]: dull, uneven, grainy, with grey specks."""
    rng = np.random.default_rng([scene.seed, 1])
    height, width = scene.height, scene.width
    coarse = rng.uniform(50, 120, (_COARSE, _COARSE, 1)) + rng.uniform(-9, 9, (_COARSE, _COARSE, 3))
    rows = np.linspace(0, _COARSE - 1, height)
    columns = np.linspace(0, _COARSE - 1, width)
    lines = np.maximum(0, 1 - np.abs(rows[:, None] - np.arange(_COARSE)))
    across = np.maximum(0, 1 - np.abs(columns[:, None] - np.arange(_COARSE)))
    image: Float32 = np.einsum("hr,rcx,wc->hwx", lines, coarse, across).astype(np.float32)
    image += rng.normal(0, 5, (height, width, 1)).astype(np.float32)
    for _ in range(int(rng.integers(_N_SPECKS + 1))):
        side = int(rng.integers(3, 9))
        top, left = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
        image[top : top + side, left : left + side] = rng.uniform(20, 190)
    return image


def draw(image: Uint8, thing: Thing, mask: Float32, time_seconds: float) -> None:
    """Draw a thing into uint8 [height, width, 3], in place."""
    height, width = image.shape[:2]
    left, top = corner_of(thing, time_seconds, width, height)
    side = mask.shape[0]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        return
    opacity = mask[y0 - top : y1 - top, x0 - left : x1 - left, None]
    below = image[y0:y1, x0:x1].astype(np.float32)
    colour = np.array(COLOURS[thing.colour], dtype=np.float32)
    image[y0:y1, x0:x1] = (below + opacity * (colour - below) + 0.5).astype(np.uint8)


def frames(scene: Scene, frames_per_second: int = FRAMES_PER_SECOND) -> Iterator[Uint8]:
    """Yield the frames of a scene, uint8 [height, width, 3]."""
    background = np.clip(_background(scene), 0, 255).astype(np.uint8)
    masks = [mask_of(thing, scene.height) for thing in scene.things]
    for index in range(scene.seconds * frames_per_second):
        time_seconds = index / frames_per_second
        image = background.copy()
        for thing, mask in zip(scene.things, masks, strict=True):
            if thing.start_seconds <= time_seconds < thing.end_seconds:
                draw(image, thing, mask, time_seconds)
        yield image
