"""Display matrices, patched into an mp4 byte by byte, against the arithmetic of the standard."""

import struct

import numpy as np
import pytest

from seats_cli.config import MediaOptions
from seats_cli.media import open_clip
from tests.media.clips import coded_image, even_times, read_code, write_video

SIZE = (96, 64)
# Offset of the matrix behind the name of a version 0 tkhd box: ISO/IEC 14496-12, 8.3.2.
MATRIX_OFFSET = 4 + 40
ONE = 1 << 16

# (a, b, c, d) with displayed (x, y) = (a x + c y, b x + d y), and the clockwise turn it is reported as.
EIGHT = {
    "upright": ((1, 0, 0, 1), 0),
    "clockwise": ((0, 1, -1, 0), 90),
    "upside down": ((-1, 0, 0, -1), 180),
    "counter-clockwise": ((0, -1, 1, 0), 270),
    "mirrored": ((-1, 0, 0, 1), 0),
    "mirrored, clockwise": ((0, -1, -1, 0), 90),
    "mirrored, upside down": ((1, 0, 0, -1), 180),
    "mirrored, counter-clockwise": ((0, 1, 1, 0), 270),
}


def patch_matrix(path, matrix):
    a, b, c, d = matrix
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + MATRIX_OFFSET
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def displayed(image, matrix):
    """Every stored pixel sent where the matrix sends it."""
    a, b, c, d = matrix
    height, width = image.shape[:2]
    at = {(a * x + c * y, b * x + d * y): image[y, x] for y in range(height) for x in range(width)}
    left, top = min(x for x, _ in at), min(y for _, y in at)
    right, bottom = max(x for x, _ in at), max(y for _, y in at)
    shown = np.zeros((bottom - top + 1, right - left + 1, 3), np.uint8)
    for (x, y), pixel in at.items():
        shown[y - top, x - left] = pixel
    return shown


@pytest.mark.parametrize("name", EIGHT)
def test_every_orientation_is_applied(tmp_path, name):
    matrix, degrees = EIGHT[name]
    path = write_video(tmp_path / "a.mp4", even_times(1, 10), size=SIZE, rate=10)
    stored = [frame.image for frame in open_clip(path, MediaOptions()).frames()]
    patch_matrix(path, tuple(ONE * value for value in matrix))
    clip = open_clip(path, MediaOptions())
    assert clip.video.rotation_degrees == degrees
    assert (clip.video.width, clip.video.height) == (SIZE if degrees in (0, 180) else SIZE[::-1])
    for frame, image in zip(clip.frames(), stored, strict=True):
        np.testing.assert_array_equal(frame.image, displayed(image, matrix))
        assert frame.image.flags.c_contiguous


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_phone_held_sideways_gives_an_upright_picture(tmp_path, turns):
    # The sensor stores the scene turned; the matrix turns it back.
    def picture(number):
        return np.ascontiguousarray(np.rot90(coded_image(number, (64, 64)), turns))

    path = write_video(tmp_path / "a.mp4", even_times(2, 25), picture=picture)
    back = [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)][turns - 1]
    assert [read_code(f.image) for f in open_clip(path, MediaOptions()).frames()] != [0, 12, 25, 37]
    patch_matrix(path, tuple(ONE * value for value in back))
    assert [read_code(f.image) for f in open_clip(path, MediaOptions()).frames()] == [0, 12, 25, 37]


def test_a_crooked_matrix_is_rounded_with_a_warning(tmp_path):
    path = write_video(tmp_path / "a.mp4", even_times(1, 10), size=SIZE, rate=10)
    cosine, sine = round(ONE * np.cos(np.radians(70))), round(ONE * np.sin(np.radians(70)))
    patch_matrix(path, (cosine, sine, -sine, cosine))
    clip = open_clip(path, MediaOptions())
    assert clip.video.rotation_degrees == 90
    assert any("70 degrees" in line for line in clip.warnings)
