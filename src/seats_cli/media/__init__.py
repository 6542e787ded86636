"""A file on disk as frames and a waveform with times. The only importer of av, soundfile and torchcodec."""

from seats_cli.media.clip import FileClip, open_clip
from seats_cli.media.codecs import can_decode
from seats_cli.media.outline import ClipOutline, decoding_rate, outline_clip, with_less
from seats_cli.media.sampling import choose_pts, make_plan
from seats_cli.media.synthetic import NoiseClip, write_camera_clip, write_demo_clip
from seats_cli.media.types import SAMPLE_RATE_HZ, AudioInfo, Clip, Frame, Outline, SamplingPlan, VideoInfo
from seats_cli.media.writing import write_clip

__all__ = [
    "SAMPLE_RATE_HZ",
    "AudioInfo",
    "Clip",
    "ClipOutline",
    "FileClip",
    "Frame",
    "NoiseClip",
    "Outline",
    "SamplingPlan",
    "VideoInfo",
    "can_decode",
    "choose_pts",
    "decoding_rate",
    "make_plan",
    "open_clip",
    "outline_clip",
    "with_less",
    "write_camera_clip",
    "write_clip",
    "write_demo_clip",
]
