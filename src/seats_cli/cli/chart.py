"""A probe -> a chart as a PNG file, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seats_cli.errors import counted
from seats_cli.outputs import cannot_write, whole
from seats_cli.probing import CURVES, DECISIVE
from seats_cli.render import plain

if TYPE_CHECKING:
    from seats_cli.probing import Point, ProbeReport

WIDTH, HEIGHT = 1200, 700
LEFT, RIGHT, TOP, BOTTOM = 90, 40, 110, 80
"""Margins around the axes, pixels."""
FINER = 2
"""Drawn this many times as large and brought down, so that slanted lines are smooth."""
COLOURS = {"video": (0, 114, 178), "audio": (230, 159, 0), "both": (192, 40, 60)}
INK, FAINT, PALE = (30, 30, 30), (225, 225, 225), (120, 120, 120)
TICK_PIXELS = 34
"""Least distance of two layer numbers."""


class _Canvas:
    """Axes: a layer and an accuracy become a place.

    Args:
        n_layers: L; the last point is at L.
    """

    def __init__(self, n_layers: int) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.image = Image.new("RGB", (FINER * WIDTH, FINER * HEIGHT), "white")
        self._draw = ImageDraw.Draw(self.image, "RGBA")
        self._font = ImageFont.load_default
        self._n_layers = n_layers

    def place(self, layer: float, accuracy: float) -> tuple[float, float]:
        """In pixels of the finished chart."""
        across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + across * layer / self._n_layers, TOP + down * (1 - accuracy)

    @staticmethod
    def _finer(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(FINER * x, FINER * y) for x, y in points]

    def line(self, points: Sequence[tuple[float, float]], colour: tuple[int, ...], width: int) -> None:
        """Straight from point to point."""
        self._draw.line(self._finer(points), fill=colour, width=FINER * width, joint="curve")

    def area(self, points: Sequence[tuple[float, float]], colour: tuple[int, ...]) -> None:
        """What the points go round, lightly."""
        self._draw.polygon(self._finer(points), fill=(*colour, 40))

    def dot(self, point: tuple[float, float], colour: tuple[int, ...], radius: float) -> None:
        """A filled circle."""
        (x, y), r = self._finer([point])[0], FINER * radius
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def text(self, at: tuple[float, float], text: str, *, size: int, anchor: str, colour: Any = INK) -> None:
        """``anchor`` as Pillow has it: ``mm`` is the middle."""
        self._draw.text(self._finer([at])[0], text, fill=colour, font=self._font(FINER * size), anchor=anchor)

    def save(self, path: Path) -> None:
        """Write it; it appears whole or not at all."""
        from PIL import Image

        with whole(path) as part:
            self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(part, format="PNG")


def _axes(canvas: _Canvas, n_layers: int) -> None:
    for percent in range(0, 101, 20):
        left, right = canvas.place(0, percent / 100), canvas.place(n_layers, percent / 100)
        canvas.line([left, right], FAINT, 1)
        canvas.text((left[0] - 12, left[1]), f"{percent} %", size=18, anchor="rm")
    apart = (WIDTH - LEFT - RIGHT) / n_layers
    every = next(n for n in (1, 2, 4, 5, 10, 20, 50, 1000) if n * apart >= TICK_PIXELS)
    shown = [layer for layer in range(0, n_layers, every) if n_layers - layer >= every]
    for layer in (*shown, n_layers):
        x, y = canvas.place(layer, 0)
        canvas.line([(x, y), (x, y + 6)], INK, 1)
        canvas.text((x, y + 12), str(layer), size=18, anchor="mt")
    canvas.line([canvas.place(0, 1), canvas.place(0, 0), canvas.place(n_layers, 0)], INK, 1)
    middle = (LEFT + WIDTH - RIGHT) / 2
    below = "removed before layer (the last point: nothing removed)"
    canvas.text((middle, HEIGHT - 22), below, size=18, anchor="mm")


def _boundaries(canvas: _Canvas, drops: Sequence[int]) -> None:
    dash, gap = 8, 6
    for place, layer in enumerate(drops, start=1):
        x, top = canvas.place(layer, 1)
        bottom = canvas.place(layer, 0)[1]
        y = top
        while y < bottom:
            canvas.line([(x, y), (x, min(y + dash, bottom))], PALE, 1)
            y += dash + gap
        canvas.text((x, top - 6), f"b{place}", size=18, anchor="mb", colour=PALE)


def _curve(canvas: _Canvas, points: Sequence[Point], colour: tuple[int, int, int], *, interval: bool) -> None:
    if interval:
        low = [canvas.place(point.layer, point.ci95[0]) for point in points]
        high = [canvas.place(point.layer, point.ci95[1]) for point in points]
        canvas.area([*low, *reversed(high)], colour)
    places = [canvas.place(point.layer, point.accuracy) for point in points]
    canvas.line(places, colour, 3)
    for place in places:
        canvas.dot(place, colour, 4.5)


def _head(canvas: _Canvas, report: ProbeReport) -> None:
    """Title and legend, above the axes."""
    title = f"Accuracy without video, audio, or both: {plain(report.model.id)}"
    canvas.text((LEFT, 30), title if len(title) <= 100 else f"{title[:97]}...", size=22, anchor="lm")
    x = float(LEFT)
    for name in CURVES:
        canvas.line([(x, 64), (x + 34, 64)], COLOURS[name], 3)
        canvas.dot((x + 17, 64), COLOURS[name], 4.5)
        canvas.text((x + 42, 64), name, size=18, anchor="lm")
        x += 130
    about = f"{counted(report.n, 'question')}; the band: 95 % interval of {DECISIVE}"
    canvas.text((WIDTH - RIGHT, 64), about, size=18, anchor="rm", colour=PALE)


def draw_chart(report: ProbeReport, path: Path) -> None:
    """Draw the curves and the proposed boundaries.

    Args:
        report: What to show.
        path: Of the PNG file.

    Raises:
        UsageError: It cannot be written.
    """
    canvas = _Canvas(report.layers)
    _axes(canvas, report.layers)
    _boundaries(canvas, report.proposal.drop_before_layer)
    for name in CURVES:
        _curve(canvas, report.curves[name], COLOURS[name], interval=name == DECISIVE)
    _head(canvas, report)
    try:
        canvas.save(path)
    except OSError as error:
        raise cannot_write(path, "--chart", error) from None
