"""What a terminal shows: no figure lost at any width, no markup from outside, layouts known to the letter."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from seats_cli.cost import Flops
from seats_cli.render import (
    human_bytes,
    human_flops,
    human_number,
    human_percent,
    human_seconds,
    human_times,
    plain,
    render_profile,
    render_report,
)
from seats_cli.report import (
    LayerTokens,
    MediaInfo,
    ProfileReport,
    Report,
    Seconds,
    SelectionInfo,
    Speedup,
    Spread,
)
from tests.test_report import FLOPS, MEDIA, MODEL, PROFILE, REPORT, SELECTION, TOKENS

EVERY_TOKEN = replace(
    TOKENS, per_layer=tuple(LayerTokens(layer=i, text=80, video=1200, audio=400) for i in range(4))
)
PRUNED = replace(
    PROFILE.settings_measured[0],
    seconds=Seconds(decode=5.1, encode=0.42, select=0.0212, prefill=0.0935, first_token=5.7),
    spread={"prefill": Spread(0.091, 0.0971, 0.00112)},
    speedup=Speedup(prefill=10.0, select_and_prefill=8.2, encode_and_prefill=2.6),
)
FULL = replace(
    PRUNED,
    label="full",
    selection=SelectionInfo(
        method="full",
        trr=1.0,
        video_trr=1.0,
        audio_trr=1.0,
        achieved_trr=1.0,
        drop_before_layer=(),
        kv_cache="staged",
    ),
    tokens=EVERY_TOKEN,
    flops=replace(FLOPS, paper=Flops(12_000, 12_000)),
    seconds=Seconds(decode=5.1, encode=0.42, select=0.0, prefill=0.935, first_token=6.5),
    spread={"prefill": Spread(0.9, 0.97, 0.0123)},
    speedup=Speedup(prefill=1.0, select_and_prefill=1.0, encode_and_prefill=1.0),
)
STOCK = replace(FULL, label="stock", selection=replace(FULL.selection, method="stock"))
MEASURED = replace(PROFILE, settings_measured=(FULL, PRUNED, STOCK), note="ran 4 layers: no GPU here")
LARGE = replace(
    REPORT,
    media=replace(MEDIA, path="a folder with spaces/" * 4 + "clip.mp4"),
    tokens=replace(
        TOKENS,
        video=1_234_567,
        audio=345_678,
        per_layer=tuple(LayerTokens(layer=i, text=1180, video=123_456 - i, audio=34_567) for i in range(3)),
    ),
    warnings=("the file says 3600.5 s and holds 3540.25 s of picture", "2 frames are damaged"),
)


def shown(renderable: RenderableType, width: int = 80, *, colour: bool = False, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        _environ={},
    )
    console.print(renderable)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def test_full_report_to_the_letter() -> None:
    expected = dedent("""\
        Qwen/Qwen2.5-Omni-7B · ae9e1690 · cuda:0 · bfloat16 · sdpa
        clip.mp4 · 10.0 s seen · 20 frames at 2.00 fps · 504x280 · 10.0 s heard
        seats · R 0.1 · R_v 0.06 · R_a 0.35 · kept 4.6 % · cache staged

        tokens      text  video  audio  total
        prompt        80   1200    400   1680  ████████████████████████████████
        layers 0-1    80     72     56    208  ████
        layer 2       80     21     17    118  ██▎
        layer 3       80      0      0     80  █▌

        prefill          full       pruned  fewer
        paper     12.0 kFLOPs  1.00 kFLOPs  12.0x
        executed  24.0 kFLOPs  2.50 kFLOPs  9.60x
        selection takes 500 FLOPs of it · encoders 9.00 kFLOPs more

        choice   share
        A       75.0 %  ████████████████████████
        B       25.0 %  ████████

        decode 1.00 s · encode 500 ms · select 100 ms · prefill 250 ms
        first token 1.90 s · answer 2.50 s · 1 token, choice
        peak memory 17.0 GiB
        warning: the audio track ends 2 s early
        """)
    assert shown(render_report(REPORT)) == expected


def test_short_report_is_one_line() -> None:
    calm = replace(REPORT, warnings=())
    expected = "kept 4.6 % of 1600 AV tokens · 12.0x fewer FLOPs (paper) · first token 1.90 s\n"
    assert shown(render_report(calm, "short")) == expected
    assert shown(render_report(REPORT, "short"), 100) == expected.replace("\n", " · 1 warning\n")


def test_short_report_without_picture_and_sound() -> None:
    text = replace(
        REPORT,
        tokens=replace(TOKENS, video=0, audio=0),
        selection=replace(SELECTION, achieved_trr=None),
        warnings=(),
    )
    assert shown(render_report(text, "short")).startswith("no AV tokens · ")


def test_profile_to_the_letter() -> None:
    expected = dedent("""\
        seats profile · Qwen/Qwen2.5-Omni-7B · ae9e1690 · cuda:0 · bfloat16 · sdpa
        clip.mp4 · 10.0 s seen · 20 frames at 2.00 fps · 504x280 · 10.0 s heard
        clip · 20 frames · 10.0 s · 120 tokens per grid · 80 text · 1200 video
          400 audio tokens

        R        R_v/R_a     tokens  TFLOPs  fewer   prefill ms  faster    memory
        full   1.00/1.00  1680→1680    93.2  1.00x   935 ± 12.3   1.00x  17.0 GiB
        0.10   0.06/0.35     208→80    7.69  12.1x  93.5 ± 1.12   10.0x  17.0 GiB
        stock  1.00/1.00  1680→1680    93.2  1.00x   935 ± 12.3   1.00x  17.0 GiB

        ms    decode encode select prefill first token select+prefill encode+prefill
        full    5100    420      0     935        6500          1.00x          1.00x
        0.10    5100    420   21.2    93.5        5700          8.20x          2.60x
        stock   5100    420      0     935        6500          1.00x          1.00x

        layer by layer at 0.10
        tokens      text  video  audio  total  GFLOPs a layer
        prompt        80   1200    400   1680               -  █████████████████████████
        layers 0-1    80     72     56    208             620  ███▏
        layer 2       80     21     17    118             350  █▊
        layer 3       80      0      0     80             236  █▎

        drops before layers 2, 3 of 4 · scale 1.4 · window temperature 0.1
        levels of video at 0.10: 0.0840, 0.0781, 0.0621, 0.0185, 0.0000 · delta 0.0059
        levels of audio at 0.10: 0.4900, 0.4556, 0.3622, 0.1081, 0.0000 · delta 0.0344

        TFLOPs: the paper's, one per multiply-add, decoder and lm_head
        median ± interquartile range of 3 runs in turn, 1 to warm up
        note: ran 4 layers: no GPU here
        warning: a warning
        """)
    assert shown(render_profile(realistic())) == expected


def realistic() -> ProfileReport:
    """The profile with FLOPs of the size a real model has."""
    full, pruned = Flops(93_200 * 10**9, 93_200 * 10**9), Flops(93_200 * 10**9, 7_690 * 10**9)
    per_layer = (620 * 10**9, 620 * 10**9, 350 * 10**9, 236 * 10**9)
    least = replace(FLOPS, paper=pruned, paper_per_layer=per_layer)
    flops = {"full": replace(FLOPS, paper=full), "seats R=0.1": least}
    settings = [replace(one, flops=flops.get(one.label, flops["full"])) for one in MEASURED.settings_measured]
    return replace(MEASURED, settings_measured=tuple(settings))


def test_analytic_profile_has_no_columns_of_nothing() -> None:
    settings = [
        replace(one, seconds=Seconds(), spread={}, memory_bytes=None, speedup=Speedup())
        for one in realistic().settings_measured
    ]
    analytic = replace(realistic(), media=None, settings_measured=tuple(settings))
    text = shown(render_profile(analytic))
    assert "R        R_v/R_a     tokens  TFLOPs  fewer\n" in text
    assert "0.10   0.06/0.35     208→80    7.69  12.1x\n" in text
    assert not re.search(r"ms|memory|median|faster", text)


@pytest.mark.parametrize("width", [20, 32, 40, 80, 120])
@pytest.mark.parametrize(
    "renderable",
    [
        render_report(REPORT),
        render_report(REPORT, "short"),
        render_report(LARGE),
        render_report(LARGE, "short"),
        render_profile(MEASURED),
        render_profile(realistic()),
    ],
    ids=["full", "short", "large", "large-short", "profile", "realistic"],
)
def test_no_figure_is_lost_and_no_line_too_long(renderable: RenderableType, width: int) -> None:
    wide, narrow = shown(renderable, 200), shown(renderable, width)
    assert all(cell_len(line) <= width for line in narrow.splitlines())
    assert "…" not in narrow
    figure = r"[\d./]*\d"
    if width >= 32:
        assert set(re.findall(figure, wide)) <= set(re.findall(figure, narrow))
    letters = [sorted(re.sub(r"[^\w./]", "", text)) for text in (wide, narrow)]
    assert set(letters[0]) == set(letters[1])


def test_reasoning_is_counted_apart_from_the_answer() -> None:
    reasoned = replace(REPORT, thinking="Hm.", thinking_tokens=340, answer_tokens=12, finish_reason="stop")
    text = " ".join(shown(render_report(reasoned)).split())
    assert "answer 2.50 s · 340 tokens of reasoning" in text
    assert "12 tokens, stop" in text
    assert "of reasoning" not in shown(render_report(REPORT))
    assert "1 token of reasoning" in shown(render_report(replace(reasoned, thinking_tokens=1)), width=120)


def test_bars_are_scaled_to_the_whole_prompt() -> None:
    bars = re.findall(r"\d  ([█▏▎▍▌▋▊▉]+)$", shown(render_report(replace(REPORT, choices=()))), re.MULTILINE)
    eighths = [8 * bar.count("█") + (" ▏▎▍▌▋▊▉".find(bar[-1]) if bar[-1] != "█" else 0) for bar in bars]
    assert eighths == [round(256 * total / 1680) for total in (1680, 208, 118, 80)]


@pytest.mark.parametrize("detail", ["full", "short"])
def test_no_colour_without_a_terminal_or_with_no_color(detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(render_report(REPORT, detail))
    assert re.search(r"\x1b\[\d*3\d", shown(render_report(REPORT, detail), colour=True))
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=True, _environ={"NO_COLOR": "1", "TERM": "xterm"}).print(
        render_report(REPORT, detail)
    )
    assert not re.search(r"\x1b\[(\d+;)*[349]\d", stream.getvalue())


def test_warnings_are_yellow() -> None:
    assert "\x1b[33mwarning: the audio track ends 2 s early" in shown(render_report(REPORT), colour=True)


HOSTILE = "[red]x[/red] :smile: \x1b[31m\r\n\t\x9b2J\u202e[link=file:///x]y[/link] \udcff"
SAFE = r"[red]x[/red] :smile: \x1b[31m\r\n\t\x9b2J\u202e[link=file:///x]y[/link] \udcff"


def hostile_report() -> Report:
    return replace(
        REPORT,
        model=replace(MODEL, id=HOSTILE, revision=HOSTILE, device=HOSTILE, weights=HOSTILE),
        media=replace(MEDIA, path=HOSTILE),
        selection=replace(SELECTION, method=HOSTILE, kv_cache=HOSTILE),
        choices=(replace(REPORT.choices[0], label=HOSTILE),),
        finish_reason=HOSTILE,
        warnings=(HOSTILE,),
    )


def test_text_from_outside_is_shown_as_it_is() -> None:
    text = shown(render_report(hostile_report()), 500)
    assert text.count(SAFE) == 10
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udcff]", text)


def test_text_from_outside_is_shown_as_it_is_in_a_profile() -> None:
    hostile = hostile_report()
    setting = replace(STOCK, label=HOSTILE)
    profile = replace(
        MEASURED,
        model=hostile.model,
        media=hostile.media,
        workload=replace(MEASURED.workload, source=HOSTILE),
        note=HOSTILE,
        settings_measured=(setting,),
        warnings=(HOSTILE,),
    )
    text = shown(render_profile(profile), 500)
    assert text.count(SAFE) == 11
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udcff]", text)


@given(st.text(st.characters(exclude_categories=[])))
def test_plain_leaves_no_control_and_is_stable(text: str) -> None:
    safe = plain(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]", safe)
    assert plain(safe) == safe
    assert safe.encode("utf-8").decode("utf-8") == safe


def test_plain_keeps_what_people_write() -> None:
    for text in ("Grüße, 世界", "נסיון עברי", "👩‍👩‍👧 क्षि", "می‌خواهم", "a\\nb"):
        assert plain(text) == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminals_without_unicode(encoding: str) -> None:
    text = shown(render_report(replace(REPORT, warnings=("Grüße, 世界",))), encoding=encoding)
    assert "kept 4.6 % | cache staged" in text
    assert "1680  ################################" in text
    assert "208  ####\n" in text
    assert "935 ~ 12.3" in shown(render_profile(realistic()), encoding=encoding)


def test_media_line_says_what_was_not_seen_or_heard() -> None:
    def line(**changes: object) -> str:
        media: MediaInfo = replace(MEDIA, path=None, **changes)
        return shown(render_report(replace(REPORT, media=media)), 120).splitlines()[1]

    silent = {"seconds_audio": 0.0}
    assert line() == "10.0 s seen · 20 frames at 2.00 fps · 504x280 · 10.0 s heard"
    assert line(frames=0, seconds_video=0.0) == "no picture · 10.0 s heard"
    assert line(frames=0, audio_track=False, **silent) == "no picture · no sound"
    assert line(frames=0, audio_track=True, **silent) == "no picture · sound not heard"
    assert line(fps=None, width=None) == "10.0 s seen · 20 frames · 10.0 s heard"


def test_random_weights_are_named() -> None:
    def title(weights: str) -> str:
        report = replace(REPORT, model=replace(MODEL, weights=weights, revision=None))
        return shown(render_report(report)).splitlines()[0]

    assert title("random") == "Qwen/Qwen2.5-Omni-7B · random weights · cuda:0 · bfloat16 · sdpa"
    assert title("none") == "Qwen/Qwen2.5-Omni-7B · computed, not run"


def test_what_was_not_measured_is_left_out() -> None:
    text = shown(render_report(replace(REPORT, seconds=Seconds(prefill=0.25), memory_bytes=None, warnings=())))
    assert text.endswith("\n\nprefill 250 ms · 1 token, choice\n")


@pytest.mark.parametrize(
    ("shown_text", "expected"),
    [
        (human_number(0.0), "0"),
        (human_number(0.0012345), "0.00123"),
        (human_number(0.9996), "1.00"),
        (human_number(9.996), "10.0"),
        (human_number(99.96), "100"),
        (human_number(12345.6), "12346"),
        (human_number(float("nan")), "-"),
        (human_flops(0), "0 FLOPs"),
        (human_flops(999), "999 FLOPs"),
        (human_flops(999_600), "1.00 MFLOPs"),
        (human_flops(12_130_000_000_000), "12.1 TFLOPs"),
        (human_flops(10**22), "10000 EFLOPs"),
        (human_bytes(None), "-"),
        (human_bytes(1023), "1023 B"),
        (human_bytes(1024), "1.00 KiB"),
        (human_bytes(1023 * 1024), "1023 KiB"),
        (human_bytes(17.3 * 1024**3), "17.3 GiB"),
        (human_seconds(None), "-"),
        (human_seconds(0.0), "0 ms"),
        (human_seconds(0.2154), "215 ms"),
        (human_seconds(0.9996), "1.00 s"),
        (human_seconds(59.94), "59.9 s"),
        (human_seconds(59.96), "1 min 00 s"),
        (human_seconds(125.2), "2 min 05 s"),
        (human_seconds(3599.6), "1 h 00 min"),
        (human_seconds(7384.0), "2 h 03 min"),
        (human_times(None), "-"),
        (human_times(11.62), "11.6x"),
        (human_percent(None), "-"),
        (human_percent(0.09996), "10.0 %"),
    ],
)
def test_human_units(shown_text: str, expected: str) -> None:
    assert shown_text == expected


@given(st.floats(1e-9, 1e15))
def test_human_number_is_within_half_a_percent(value: float) -> None:
    text = human_number(value)
    assert float(text) == pytest.approx(value, rel=0.00501)
    assert "e" not in text
