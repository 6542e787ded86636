"""Every broken input is one line that names the file, the reason and what to do; nothing else is printed."""

import os
import socket
import struct

import av
import numpy as np
import pytest
import soundfile

from seats_cli.config import MediaOptions
from seats_cli.errors import MediaError
from seats_cli.media import open_clip
from tests.media.clips import even_times, open_files, tone, write_video

TIMES = even_times(2, 25)
KEY = "00112233445566778899aabbccddeeff"
ENCRYPTED = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": KEY, "encryption_kid": KEY}


def complaint(path, **options):
    with pytest.raises(MediaError) as caught:
        open_clip(path, MediaOptions(**options))
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    assert "\n" not in caught.value.hint
    assert caught.value.exit_code == 3
    return line


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd):
    yield
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out == ""


def test_missing(tmp_path):
    assert "no such file" in complaint(tmp_path / "a.mp4")
    assert "no such file" in complaint(tmp_path / "a.mp4" / "b.mp4")


def test_a_directory(tmp_path):
    assert "a directory" in complaint(tmp_path)


@pytest.mark.parametrize("suffix", ["mp4", "wav", "mp3", ""])
def test_an_empty_file(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").touch()
    assert "empty" in complaint(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("url", ["http://example.org/a.mp4", "rtsp://10.0.0.1/x", "file:///etc/hosts"])
def test_a_url(url):
    assert "only local files" in complaint(url)


def test_a_pipe_and_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in complaint(tmp_path / "pipe")
    assert "not a regular file" in complaint("/dev/null")


def test_a_file_nobody_may_read(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", TIMES)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        # The tests may run as a user whom no mode stops.
        patch.setattr(os, "open", refuse)
        line = complaint(path)
    assert "permission denied" in line


def test_a_folder_nobody_may_enter(tmp_path, monkeypatch):
    real = os.stat

    def refuse(path, **kwargs):
        if str(path).endswith("a.mp4"):
            raise PermissionError(13, "Permission denied")
        return real(path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        line = complaint(tmp_path / "a.mp4")
    assert "permission denied" in line


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 5000])
def test_a_name_no_file_can_have(name):
    complaint(name)


@pytest.mark.parametrize("suffix", ["mp4", "txt", "wav", "ans", "mkv"])
def test_text(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text("This is no film. " * 50 + "Grüße")
    assert "text, not media" in complaint(path)


@pytest.mark.parametrize("suffix", ["mp4", "mp3", "bin", "wav"])
def test_noise(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(np.random.default_rng(1).bytes(30_000))
    assert "not media" in complaint(path)


def test_an_mp4_without_its_index(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, size=(128, 128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut short" in complaint(path)


def test_an_mp4_cut_within_its_index(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"stbl")])
    complaint(path)


def test_an_encrypted_picture(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, container_options=ENCRYPTED)
    assert "the picture is encrypted" in complaint(path)


def test_encrypted_sound_beside_a_plain_picture(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES, sound=tone(2))
    data = path.read_bytes()
    # As a packager would mark it: the sample entry renamed, the samples unreadable without a key.
    assert data.count(b"mp4a") == 1
    path.write_bytes(data.replace(b"mp4a", b"enca"))
    clip = open_clip(path, MediaOptions())
    assert clip.audio is None
    assert "the audio track is encrypted: the answer is from the picture alone" in clip.warnings
    assert "encrypted" in complaint(path, audio="on")
    assert "encrypted" in complaint(path, require_audio=True)


def test_an_encrypted_sound_file(tmp_path):
    path = write_video(tmp_path / "a.m4a", sound=tone(2), format="mp4", container_options=ENCRYPTED)
    assert "encrypted" in complaint(path)


def test_an_unknown_codec(tmp_path):
    path = write_video(tmp_path / "a.mp4", TIMES)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    assert "no decoder" in complaint(path)


def test_no_streams(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n\n")
    assert "no video or audio stream" in complaint(path)


def test_nothing_decodes(tmp_path):
    path = write_video(tmp_path / "a.mov", TIMES, codec="png", pix_fmt="rgb24", damaged=range(60))
    assert "not one frame" in complaint(path)


def test_sound_of_no_length(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0, np.float32), 16_000)
    complaint(path)
    complaint(path, audio="on")


def test_a_wav_that_is_only_a_header(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8, 16, 2, 16)
    )
    complaint(path)


def test_a_damaged_mp3_prints_nothing(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(3), 16_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 900] = b"\xa5" * 900
    path.write_bytes(data)
    clip = open_clip(path, MediaOptions())
    assert clip.waveform().size > 16_000


def test_playlists_open_nothing(tmp_path):
    """Neither the file beside them nor a server: no list is ever followed."""
    write_video(tmp_path / "a.ts", TIMES)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n"
        lists = {
            "local.m3u8": f"{head}a.ts\n#EXT-X-ENDLIST\n",
            "remote.m3u8": f"{head}{url}\n#EXT-X-ENDLIST\n",
            "master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nlocal.m3u8\n",
            "disguised.mp4": f"{head}a.ts\n#EXT-X-ENDLIST\n",
            "concat.txt": "ffconcat version 1.0\nfile a.ts\n",
            "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        }
        for name, content in lists.items():
            (tmp_path / name).write_text(content)
            complaint(tmp_path / name)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_image_series_pattern_is_a_name_like_any_other(tmp_path):
    path = write_video(tmp_path / "a%03d.mp4", TIMES)
    assert open_clip(path, MediaOptions()).plan.n_frames == 4


def test_nothing_stays_open_after_an_error(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(1).bytes(30_000))
    complaint(path)
    assert open_files(path) == 0
    path = write_video(tmp_path / "b.mp4", TIMES, container_options=ENCRYPTED)
    complaint(path)
    assert open_files(path) == 0


@pytest.fixture
def loud_ffmpeg():
    """FFmpeg's log turned on for the whole process, as other libraries do when they are imported."""
    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    yield av.logging.ERROR
    av.logging.set_level(before)


def test_ffmpegs_own_log_is_silent_and_left_as_it_was(tmp_path, caplog, loud_ffmpeg):
    path = write_video(tmp_path / "a.mov", TIMES, codec="png", pix_fmt="rgb24", damaged={5, 12, 13})
    caplog.clear()
    clip = open_clip(path, MediaOptions())
    assert av.logging.get_level() == loud_ffmpeg
    first, second = clip.frames(), clip.frames()
    next(first)
    next(second)
    # Not last in, first out.
    first.close()
    assert av.logging.get_level() is None
    list(second)
    assert av.logging.get_level() == loud_ffmpeg
    assert caplog.records == []


def test_closing_early_never_waits_for_a_thread_that_logs(tmp_path, loud_ffmpeg):
    path = write_video(tmp_path / "a.mp4", even_times(6, 25), size=(160, 128), damaged={3, 9, 40})
    clip = open_clip(path, MediaOptions())
    for _ in range(20):
        frames = clip.frames()
        next(frames)
        av.logging.set_level(loud_ffmpeg)
        frames.close()
    assert open_files(path) == 0
