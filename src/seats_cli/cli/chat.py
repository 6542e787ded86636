"""``seats chat MEDIA``: questions about one clip, at a prompt or from a pipe; each knows of those before it."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from seats_cli.cli import bundles
from seats_cli.cli import options as opt
from seats_cli.cli.command import command
from seats_cli.cli.console import notice
from seats_cli.cli.session import Session, Shown, check_stdin, talk
from seats_cli.cli.workload import check_selection
from seats_cli.config import (
    DEFAULT_CACHE_SIZE,
    GenerationOptions,
    MediaOptions,
    ModelOptions,
    SelectionOptions,
    parse_size,
)


@command(
    loading=bundles.model_options,
    media=bundles.media_options,
    selection=bundles.selection_options,
    generation=bundles.generation_options,
)
def chat(
    clip: Annotated[str, typer.Argument(metavar="MEDIA", help="The clip.")],
    loading: ModelOptions,
    media: MediaOptions,
    trr: opt.Trr = 0.1,
    *,
    selection: SelectionOptions,
    generation: GenerationOptions,
    as_json: opt.AsJson = False,
    stats: Annotated[
        bool, opt.option("--stats", panel=opt.OUTPUT, help="What each turn kept and cost, on stderr.")
    ] = False,
    show_thinking: Annotated[
        bool,
        opt.option(
            "--show-thinking", panel=opt.OUTPUT, help="Stream the reasoning before the answer, if any, to stderr."
        ),
    ] = False,
    cache: opt.Cache = None,
    cache_size: opt.CacheSize = DEFAULT_CACHE_SIZE,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Talk about one clip, which is decoded and encoded once.

    Questions come from the terminal, or one a line from stdin; answers go to stdout. /help lists the commands.
    """
    from seats_cli.media.source import check_path

    cache_bytes = parse_size(cache_size, "--cache-size")
    selection = dataclasses.replace(selection, trr=trr)
    # A typing mistake should not cost the time it takes to load a model.
    check_stdin()
    check_path(clip)
    check_selection(loading, selection)
    seats = bundles.seats_of(
        loading,
        selection=selection,
        media=media,
        generation=generation,
        cache=cache,
        cache_bytes=cache_bytes,
    )
    if seats.loaded.note is not None and not quiet:
        notice(seats.loaded.note)
    shown = Shown(as_json=as_json, stats=stats, thinking=show_thinking, quiet=quiet, verbose=verbose)
    return talk(Session(clip, seats.chat(clip), shown))
