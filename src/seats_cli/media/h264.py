"""Numbers of H.264 pictures, read from their headers: do they tell of a reference that is missing?

Where one is, decoders make up pictures, and what they make up depends on everything that they have decoded.
Sections and names are those of ITU-T H.264.
"""

from __future__ import annotations

from collections.abc import Iterator

# Of a slice's header only what lies before frame_num is read, of a parameter set what lies before its width.
_HEADER_BYTES = 32
_SLICE, _IDR, _SPS = 1, 5, 7
_LEAST_SPS_BYTES = 5
_MOST_BITS = 16
# Profiles whose parameter sets describe their colours: 7.3.2.1.1.
_HIGH_PROFILES = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))


class UnknownHeaderError(Exception):
    """A header that cannot be read."""


class _Bits:
    """Reads a header bit by bit."""

    def __init__(self, data: bytes) -> None:
        # 7.4.1: a byte of 3 keeps zeros from looking like a start code.
        plain = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(plain), 8 * len(plain)

    def read(self, n: int) -> int:
        self._left -= n
        if self._left < 0:
            raise UnknownHeaderError
        return self._value >> self._left & ((1 << n) - 1)

    def golomb(self) -> int:
        """An unsigned number in Exp-Golomb code: 9.1."""
        n_zeros = 0
        while not self.read(1):
            n_zeros += 1
        return (1 << n_zeros) - 1 + self.read(n_zeros)


class FrameNumbers:
    """Follows ``frame_num`` from packet to packet of a stream without fields.

    Args:
        extradata: Of the stream: an ``avcC`` box, or parameter sets behind start codes.

    Raises:
        UnknownHeaderError: There is no parameter set in it that can be read.
    """

    def __init__(self, extradata: bytes | None) -> None:
        data = extradata or b""
        # ISO/IEC 14496-15, 5.3.3.1.
        self._length_bytes = (data[4] & 3) + 1 if len(data) > 6 and data[0] == 1 else 0
        self._n_bits = 0
        self._colour_planes = False
        self._last_reference: int | None = None
        if self._length_bytes:
            length = int.from_bytes(data[6:8])
            self._learn(data[8 : 8 + length])
        else:
            for unit in self._units(data):
                if unit[0] & 31 == _SPS:
                    self._learn(unit)
        if not self._n_bits:
            raise UnknownHeaderError

    def begin(self) -> None:
        """Forget what was last: another place in the stream."""
        self._last_reference = None

    def follows(self, packet: bytes | memoryview) -> bool:
        """Whether no reference is missing between the last packet and this one.

        Raises:
            UnknownHeaderError: It has no header that can be read.
        """
        for unit in self._units(packet):
            kind = unit[0] & 31
            if kind == _SPS:
                self._learn(unit)
            elif kind in (_SLICE, _IDR):
                return self._slice_follows(unit, kind)
        raise UnknownHeaderError

    def _slice_follows(self, unit: bytes, kind: int) -> bool:
        """7.3.3 and 7.4.3."""
        bits = _Bits(unit[1:])
        for _ in ("first_mb_in_slice", "slice_type", "pic_parameter_set_id"):
            bits.golomb()
        if self._colour_planes:
            bits.read(2)
        number, last = bits.read(self._n_bits), self._last_reference
        if unit[0] >> 5 & 3:
            self._last_reference = number
        return kind == _IDR or last is None or number == (last + 1) % (1 << self._n_bits)

    def _learn(self, unit: bytes) -> None:
        """7.3.2.1.1."""
        if len(unit) < _LEAST_SPS_BYTES:
            raise UnknownHeaderError
        profile, bits = unit[1], _Bits(unit[4:])
        bits.golomb()
        self._colour_planes = False
        if profile in _HIGH_PROFILES:
            if bits.golomb() == 3:
                self._colour_planes = bool(bits.read(1))
            bits.golomb(), bits.golomb(), bits.read(1)
            if bits.read(1):
                # Scaling lists, which nearly nobody uses.
                raise UnknownHeaderError
        n_bits = bits.golomb() + 4
        if n_bits > _MOST_BITS:
            raise UnknownHeaderError
        self._n_bits = n_bits

    def _units(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The first bytes of each unit."""
        place = 0
        if self._length_bytes:
            while place + self._length_bytes < len(data):
                length = int.from_bytes(data[place : place + self._length_bytes])
                place += self._length_bytes
                yield bytes(data[place : place + min(length, _HEADER_BYTES)]) or b"\0"
                place += length
            return
        # Annex B.
        whole = bytes(data)
        while (place := whole.find(b"\0\0\1", place) + 3) > 2:
            yield whole[place : place + _HEADER_BYTES] or b"\0"
