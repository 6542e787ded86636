"""What can be decoded here, for ``seats doctor``."""

from __future__ import annotations


def can_decode(codec: str) -> bool:
    """Whether the FFmpeg inside PyAV decodes ``codec``, by FFmpeg's name."""
    import av

    try:
        av.CodecContext.create(codec, "r")
    except (av.FFmpegError, ValueError):
        return False
    return True
