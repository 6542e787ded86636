"""The chart as an image: points in the colour of their curve, boundaries, and a file that is whole or absent."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seats_cli.cli.chart import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_chart
from seats_cli.errors import UsageError
from seats_cli.probing import ProbeReport
from tests.test_probing import outcomes_of, report_of

RISE = outcomes_of(28, [16, 17, 18, 20, 22, 23, 29, 29], always=2)


def drawn(report: ProbeReport, folder: Path) -> np.ndarray:
    """[height, width, 3]."""
    path = folder / "chart.png"
    draw_chart(report, path)
    assert [file.name for file in folder.iterdir()] == ["chart.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (WIDTH, HEIGHT)
        return np.asarray(image.convert("RGB")).astype(int)


def place(report: ProbeReport, layer: int, accuracy: float) -> tuple[int, int]:
    """Row and column, from the margins alone."""
    x = LEFT + (WIDTH - LEFT - RIGHT) * layer / report.layers
    y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - accuracy)
    return round(y), round(x)


def near(pixel: np.ndarray, colour: tuple[int, ...]) -> bool:
    return bool(np.abs(pixel - np.array(colour)).max() < 40)


@pytest.mark.parametrize("n_layers", [1, 8, 28, 60])
def test_every_point_is_there_in_its_colour(tmp_path: Path, n_layers: int) -> None:
    always, at_last = (True,) * (n_layers + 1), (False,) * n_layers + (True,)
    outcomes = [{"video": video, "audio": always, "both": at_last} for video in (at_last, always)]
    report = report_of(outcomes)
    image = drawn(report, tmp_path)
    for name in ("video", "audio", "both"):
        for point in report.curves[name][:-1]:
            assert near(image[place(report, point.layer, point.accuracy)], COLOURS[name]), (name, point)
    assert near(image[place(report, n_layers, 1.0)], COLOURS["both"])


def test_the_boundaries_are_lines_at_their_layers(tmp_path: Path) -> None:
    report = report_of(RISE)
    image = drawn(report, tmp_path)
    bottom, _ = place(report, 0, 0.02)
    top, _ = place(report, 0, 0.18)
    dark = [
        layer
        for layer in range(1, 28)
        if (image[top:bottom, place(report, layer, 0.1)[1]].mean(axis=1) < 200).mean() > 0.4
    ]
    assert tuple(dark) == report.proposal.drop_before_layer


def test_the_band_is_the_interval(tmp_path: Path) -> None:
    report = report_of(RISE)
    image = drawn(report, tmp_path)
    for layer in (3, 8, 13):
        point = report.curves["both"][layer]
        for accuracy, inside in ((point.ci95[0] + 0.02, True), (point.ci95[0] - 0.02, False)):
            pixel = image[place(report, layer, accuracy)]
            assert (pixel.max() - pixel.min() > 20) == inside


def test_text_of_any_kind_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    report = report_of(RISE)
    odd = dataclasses.replace(report.model, id="\udcff模型\n" * 60)
    drawn(dataclasses.replace(report, model=odd), tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        draw_chart(report, tmp_path / "none" / "chart.png")
