"""Report -> what a terminal shows. Knows rich and the report, and nothing else.

Lines are built for the width at hand: a table that does not fit becomes a list, a list breaks between its
items, and no figure is cut. Text from users, files and models is shown as it is, never as markup.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from seats_cli.errors import counted
from seats_cli.report import MediaInfo, ModelInfo, ProfileReport, Report, SelectionInfo, SettingReport, TokenCounts

BLOCKS = " ▏▎▍▌▋▊▉█"
# For terminals without Unicode; one character for one, so that columns stay where they are.
ASCII = str.maketrans({"·": "|", "±": "~", "→": ">", "▏": " ", "▎": " ", "▍": " "} | dict.fromkeys("▌▋▊▉█", "#"))
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
NOTHING = "-"
STAGES = ("decode", "encode", "select", "prefill", "first_token")


def plain(text: str) -> str:
    """Make what could steer a terminal visible: control characters, direction overrides, lone surrogates."""

    def visible(char: str) -> str:
        harmful = unicodedata.category(char) in {"Cc", "Cs"} or char in BIDI
        return char.encode("unicode_escape").decode("ascii") if harmful else char

    return "".join(map(visible, text))


def human_number(value: float) -> str:
    """Three significant digits and no exponent; digits before the point are never rounded away."""
    if not value or not math.isfinite(value):
        return "0" if value == 0 else NOTHING
    magnitude = math.floor(math.log10(float(f"{abs(value):.2e}")))  # 9.996 counts as 10.0
    return f"{value:.{max(0, 2 - magnitude)}f}"


def human_flops(flops: float) -> str:
    """``12.1 TFLOPs``, with the prefix that leaves one to three digits before the point."""
    return _scaled(flops, 1000.0, ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs", "EFLOPs"))


def human_bytes(n_bytes: float | None) -> str:
    """``17.3 GiB``; ``-`` when unknown."""
    return NOTHING if n_bytes is None else _scaled(n_bytes, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB"))


def _scaled(value: float, step: float, units: Sequence[str]) -> str:
    power = 0
    while power < len(units) - 1 and value / step**power >= step * 0.9995:
        power += 1
    return f"{human_number(value / step**power)} {units[power]}"


def human_seconds(seconds: float | None) -> str:
    """``215 ms``, ``1.23 s``, ``2 min 05 s``, ``1 h 02 min``; ``-`` when unknown."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{human_number(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{human_number(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def human_times(factor: float | None) -> str:
    """``11.6x``; ``-`` when unknown."""
    return NOTHING if factor is None else f"{human_number(factor)}x"


def human_percent(fraction: float | None) -> str:
    """``10.0 %``; ``-`` when unknown."""
    return NOTHING if fraction is None else f"{100 * fraction:.1f} %"


class Page:
    """Lines built for the width they are shown at."""

    def __init__(self, build: Callable[[int], Sequence[Text]]) -> None:
        self._build = build

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in self._build(options.max_width):
            if options.ascii_only:
                line.plain = line.plain.translate(ASCII).encode("ascii", "replace").decode("ascii")
            yield line


def text_line(text: str = "", style: str = "") -> Text:
    """One line, folded where it does not fit."""
    return Text(text, style=style, overflow="fold", no_wrap=False)


def flow(parts: Sequence[str | Text], width: int, indent: str = "") -> list[Text]:
    """Parts joined by dots, broken between parts only; continuation lines are indented."""
    lines = [text_line()]
    for part in parts:
        last = lines[-1]
        if not last.plain.strip():
            last.append(part)
        elif last.cell_len + 3 + cell_len(str(part)) <= width:
            last.append(" · ", style="dim").append(part)
        else:
            lines.append(text_line(indent).append(part))
    return lines


def _bar(fraction: float, width: int) -> str:
    """A bar of eighths of a cell; anything above nothing shows at least one."""
    eighths = min(8 * width, max(round(fraction * width * 8), int(fraction > 0)))
    return "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, fractions: Sequence[float] = ()
) -> list[Text]:
    """Aligned columns, with bars of ``fractions`` where there is room; records where there is none."""
    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    gap = next((gap for gap in (2, 1) if sum(widths) + gap * (len(widths) - 1) <= width), 0)
    if not gap:
        return _records(header, rows, width)
    room = min(32, width - sum(widths) - gap * len(widths))
    lines = []
    for index, (name, *cells) in enumerate((header, *rows)):
        padded = [" " * (size - cell_len(cell)) + cell for cell, size in zip(cells, widths[1:], strict=True)]
        text = (" " * gap).join([name + " " * (widths[0] - cell_len(name)), *padded])
        line = text_line(text, style="" if index else "dim")
        if index and fractions and room >= 6:
            line.append(" " * gap + _bar(fractions[index - 1], room), style="cyan")
        lines.append(line)
    return lines


def _records(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[Text]:
    lines = []
    for row in rows:
        lines.append(text_line(row[0], style="bold"))
        pairs = [f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True)]
        lines += [text_line("  ").append_text(line) for line in flow(pairs, width - 2)]
    return lines


def _layer_blocks(tokens: TokenCounts) -> list[tuple[str, int, int, int]]:
    """Runs of layers with equal counts, as (name, text, video, audio)."""
    blocks = []
    for counts, run in groupby(tokens.per_layer, key=lambda layer: (layer.text, layer.video, layer.audio)):
        first, *more = (layer.layer for layer in run)
        blocks.append((f"layers {first}-{more[-1]}" if more else f"layer {first}", *counts))
    return blocks


def token_lines(tokens: TokenCounts, width: int, layer_flops: Sequence[int] = ()) -> list[Text]:
    """A row per block of layers that process the same tokens; with FLOPs, those of one of its layers beside it."""
    counted = [("prompt", tokens.text, tokens.video, tokens.audio), *_layer_blocks(tokens)]
    rows = [[name, *map(str, counts), str(sum(counts))] for name, *counts in counted]
    fractions = [sum(counts) / max(tokens.total, 1) for _, *counts in counted]
    header = ["tokens", "text", "video", "audio", "total"]
    if layer_flops:
        header.append("GFLOPs a layer")
        cost_of = {layer.total: flops for layer, flops in zip(tokens.per_layer, layer_flops, strict=True)}
        for row in rows:
            flops = cost_of.get(int(row[-1])) if row is not rows[0] else None
            row.append(NOTHING if flops is None else human_number(flops / 1e9))
    return table(header, rows, width, fractions)


def _schedule_lines(profile: ProfileReport, smallest: SettingReport, width: int) -> list[Text]:
    """Where tokens leave, and the ratio that stays in each block, of the setting that keeps the least."""
    schedule, chosen = profile.schedule, smallest.selection
    if not schedule.drop_before_layer:
        return []
    drops = ", ".join(map(str, schedule.drop_before_layer))
    parts = [f"drops before layers {drops} of {schedule.layers}", f"scale {schedule.scale:g}"]
    parts += [] if schedule.temperature is None else [f"window temperature {schedule.temperature:g}"]
    lines = flow(parts, width, "  ")
    for name, info in (("video", chosen.video_levels), ("audio", chosen.audio_levels)):
        if info is not None:
            levels = ", ".join(f"{level:.4f}" for level in info.levels)
            lines += flow(
                [f"levels of {name} at {_setting_name(smallest)}: {levels}", f"delta {info.delta:.4f}"],
                width,
                "  ",
            )
    return lines


def model_parts(model: ModelInfo) -> list[str | Text]:
    """What answered, for ``flow``."""
    parts: list[str | Text] = [Text(plain(model.id), style="bold")]
    parts += [plain(model.revision)] if model.revision else []
    if model.weights == "random":
        parts.append(Text("random weights", style="yellow"))
    elif model.weights == "none":
        return [*parts, "computed, not run"]
    elif model.weights != "checkpoint":
        parts.append(f"weights: {plain(model.weights)}")
    return parts + [plain(part) for part in (model.device, model.dtype, model.quant, model.attention) if part]


def media_parts(media: MediaInfo) -> list[str | Text]:
    """What is seen and heard, for ``flow``."""
    parts: list[str | Text] = [plain(media.path)] if media.path else []
    if media.frames:
        parts.append(f"{human_seconds(media.seconds_video)} seen")
        parts.append(f"{media.frames} frames" + (f" at {human_number(media.fps)} fps" if media.fps else ""))
        parts += [f"{media.width}x{media.height}"] if media.width and media.height else []
    else:
        parts.append("no picture")
    if media.seconds_audio:
        return [*parts, f"{human_seconds(media.seconds_audio)} heard"]
    return [*parts, "sound not heard" if media.audio_track else "no sound"]


def selection_parts(chosen: SelectionInfo) -> list[str | Text]:
    """Method and ratios, for ``flow``."""
    ratios = {"R": chosen.trr, "R_v": chosen.video_trr, "R_a": chosen.audio_trr}
    asked = [f"{name} {ratio:.3g}" for name, ratio in ratios.items() if ratio is not None]
    kept = [] if chosen.achieved_trr is None else [f"kept {human_percent(chosen.achieved_trr)}"]
    return [plain(chosen.method), *_variant(chosen), *asked, *kept, f"cache {plain(chosen.kv_cache)}"]


def _variant(chosen: SelectionInfo) -> list[str]:
    """What sets it apart from the method as published."""
    said = {"stages": chosen.stages, "window budgets": chosen.window_budgets, "seed": chosen.selection_seed}
    usual = (None, "123", "query")
    return [f"{name} {plain(str(value))}" for name, value in said.items() if value not in usual]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _seconds_parts(report: Report) -> list[str | Text]:
    known = {_spaced(stage): getattr(report.seconds, stage) for stage in (*STAGES, "answer")}
    parts = [f"{name} {human_seconds(value)}" for name, value in known.items() if value is not None]
    parts += [] if report.thinking is None else [f"{_counted(report.thinking_tokens)} of reasoning"]
    return [*parts, f"{_counted(report.answer_tokens)}, {plain(report.finish_reason)}"]


def _counted(n_tokens: int) -> str:
    return f"{n_tokens} token" if n_tokens == 1 else f"{n_tokens} tokens"


def warning_lines(warnings: Sequence[str]) -> list[Text]:
    """A line each."""
    return [text_line(f"warning: {plain(warning)}", style="yellow") for warning in warnings]


def _full(report: Report, width: int) -> list[Text]:
    lines = flow(model_parts(report.model), width, "  ")
    lines += flow(media_parts(report.media), width, "  ")
    lines += [*flow(selection_parts(report.selection), width, "  "), text_line()]
    lines += [*token_lines(report.tokens, width), text_line()]
    flops = report.flops
    rows = [
        [name, human_flops(pair.full), human_flops(pair.pruned), human_times(pair.reduction)]
        for name, pair in (("paper", flops.paper), ("executed", flops.executed))
    ]
    lines += table(["prefill", "full", "pruned", "fewer"], rows, width)
    selection, encoders = human_flops(flops.selection_executed), human_flops(flops.encoders_executed)
    lines += [*flow([f"selection takes {selection} of it", f"encoders {encoders} more"], width), text_line()]
    if report.choices:
        shares = [[plain(choice.label), human_percent(choice.probability)] for choice in report.choices]
        bars = [choice.probability or 0.0 for choice in report.choices]
        lines += [*table(["choice", "share"], shares, width, bars), text_line()]
    lines += flow(_seconds_parts(report), width)
    if report.memory_bytes is not None:
        lines.append(text_line(f"peak memory {human_bytes(report.memory_bytes)}"))
    return lines + warning_lines(report.warnings)


def _short(report: Report, width: int) -> list[Text]:
    n_clip = report.tokens.video + report.tokens.audio
    kept = f"kept {human_percent(report.selection.achieved_trr)} of {n_clip}" if n_clip else "no"
    fewer = f"{human_times(report.flops.paper.reduction)} fewer FLOPs (paper)"
    parts: list[str | Text] = [
        f"{kept} AV tokens",
        fewer,
        f"first token {human_seconds(report.seconds.first_token)}",
    ]
    if n := len(report.warnings):
        parts.append(Text(counted(n, "warning"), style="yellow"))
    return flow(parts, width)


def render_report(report: Report, detail: Literal["full", "short"] = "full") -> RenderableType:
    """Lay out one answer's report; the answer itself is not in it.

    Args:
        report: What to show.
        detail: ``full``: all of it; ``short``: one line.
    """
    build = _short if detail == "short" else _full
    return Page(lambda width: build(report, width))


def _setting_name(setting: SettingReport) -> str:
    chosen = setting.selection
    usual = chosen.method == "seats" and not _variant(chosen)
    return f"{chosen.trr:.2f}" if usual and chosen.trr is not None else plain(setting.label)


def _milliseconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else human_number(seconds * 1000)


def without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Leave out the columns in which nothing is known."""
    keep = [i for i in range(len(header)) if i == 0 or any(row[i] != NOTHING for row in rows)]
    return [header[i] for i in keep], [[row[i] for i in keep] for row in rows]


def _setting_rows(settings: Sequence[SettingReport]) -> list[list[str]]:
    rows = []
    for setting in settings:
        chosen, layers, times = setting.selection, setting.tokens.per_layer, setting.spread.get("prefill")
        asked = [NOTHING if ratio is None else f"{ratio:.2f}" for ratio in (chosen.video_trr, chosen.audio_trr)]
        ratios = "/".join(asked) if set(asked) != {NOTHING} else NOTHING
        tokens = f"{layers[0].total}→{layers[-1].total}" if layers else NOTHING
        flops = [human_number(setting.flops.paper.pruned / 1e12), human_times(setting.flops.paper.reduction)]
        prefill = _milliseconds(setting.seconds.prefill) + (f" ± {_milliseconds(times.iqr)}" if times else "")
        gain = [human_times(setting.speedup.prefill), human_bytes(setting.memory_bytes)]
        rows.append([_setting_name(setting), ratios, tokens, *flops, prefill, *gain])
    return rows


def _stage_rows(settings: Sequence[SettingReport]) -> list[list[str]]:
    rows = []
    for setting in settings:
        stages = [_milliseconds(getattr(setting.seconds, stage)) for stage in STAGES]
        gains = (setting.speedup.select_and_prefill, setting.speedup.encode_and_prefill)
        rows.append([_setting_name(setting), *stages, *map(human_times, gains)])
    return rows


def _profile(profile: ProfileReport, width: int) -> list[Text]:
    work, settings = profile.workload, profile.settings_measured
    lines = flow(["seats profile", *model_parts(profile.model)], width, "  ")
    if profile.media is not None:
        lines += flow(media_parts(profile.media), width, "  ")
    counts = [f"{work.text_tokens} text", f"{work.video_tokens} video", f"{work.audio_tokens} audio tokens"]
    parts = [f"{work.frames} frames", human_seconds(work.seconds), f"{work.tokens_per_grid} tokens per grid"]
    lines += [*flow([plain(work.source), *parts, *counts], width, "  "), text_line()]
    header = ["R", "R_v/R_a", "tokens", "TFLOPs", "fewer", "prefill ms", "faster", "memory"]
    lines += [*table(*without_empty(header, _setting_rows(settings)), width), text_line()]
    timed = any(setting.seconds.prefill is not None for setting in settings)
    if timed:
        header = ["ms", *map(_spaced, STAGES), "select+prefill", "encode+prefill"]
        lines += [*table(*without_empty(header, _stage_rows(settings)), width), text_line()]
    pruned = [setting for setting in settings if setting.selection.achieved_trr is not None]
    if pruned:
        smallest = min(pruned, key=lambda setting: setting.selection.achieved_trr or 0.0)
        lines.append(text_line(f"layer by layer at {_setting_name(smallest)}", style="bold"))
        lines += [*token_lines(smallest.tokens, width, smallest.flops.paper_per_layer), text_line()]
        lines += [*_schedule_lines(profile, smallest, width), text_line()]
    lines.append(text_line("TFLOPs: the paper's, one per multiply-add, decoder and lm_head", style="dim"))
    if timed:
        rounds = f"median ± interquartile range of {profile.runs} runs in turn, {profile.warmup} to warm up"
        lines.append(text_line(rounds, style="dim"))
    if profile.note:
        lines.append(text_line(f"note: {plain(profile.note)}", style="yellow"))
    return lines + warning_lines(profile.warnings)


def render_profile(profile: ProfileReport) -> RenderableType:
    """Lay out a profile: a row per setting, stages apart, and the layers of the setting that keeps the least.

    Args:
        profile: What to show.
    """
    return Page(lambda width: _profile(profile, width))
