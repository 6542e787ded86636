"""``seats.toml`` takes the place of what is published, options take its place, and it may hold nothing else."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from seats_cli.cli.workload import spec_without_weights
from seats_cli.config import MediaOptions, ModelOptions, SelectionOptions
from seats_cli.engine.pipeline import Settings, answer
from seats_cli.engine.prepare import clip_shape
from seats_cli.errors import ModelError
from seats_cli.models import ModelSpec
from seats_cli.models.checkpoint import find, find_config
from seats_cli.models.loading import load
from seats_cli.models.settings import SETTINGS_FILE, ModelSettings, read_settings
from seats_cli.report import Seconds
from seats_cli.selection.schedule import make_plan
from tests.array_clip import random_clip
from tests.models.test_loading import COMMIT, OTHER, put_in_cache
from tests.tiny import write_tiny_checkpoint

N_LAYERS = 8
WHOLE = """
[schedule]
drop_before_layer = [2, 3, 5, 7]
temperature = 0.4
scale = 1.3
layers = 8

[media]
min_pixels = 3136
max_pixels = 9408

[ratios]
rows = [[0.3, 0.2, 0.6], [0.1, 0.05, 0.4]]
"""


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("plain"), n_layers=N_LAYERS, dtype=torch.float32)


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "model"))


def options(model: object, **more: Any) -> ModelOptions:
    return ModelOptions(model=str(model), device="cpu", dtype="float32", **more)


def both_specs(folder: Path) -> list[ModelSpec]:
    """Of the model in memory, and of its config alone."""
    return [load(options(folder)).model.spec, spec_without_weights(options(folder))[1]]


def test_all_of_it_takes_the_place_of_what_is_published(folder: Path) -> None:
    published = both_specs(folder)[0]
    (folder / SETTINGS_FILE).write_text(WHOLE)
    for spec in both_specs(folder):
        preset = spec.preset
        assert preset.drop_before_layer == (2, 3, 5, 7)
        assert (preset.temperature, preset.scale) == (0.4, 1.3)
        assert preset.ratios == ((0.3, 0.2, 0.6), (0.1, 0.05, 0.4))
        assert (spec.min_pixels, spec.max_pixels) == (3136, 9408)
        rest = dataclasses.replace(spec, preset=published.preset, min_pixels=None, max_pixels=None)
        assert rest == published


@pytest.mark.parametrize("text", ["", "# nothing\n", "[media]\n", "[schedule]\ndrop_before_layer=[3,5,6,7]"])
def test_what_it_does_not_say_stays_published(folder: Path, text: str) -> None:
    published = both_specs(folder)[0]
    (folder / SETTINGS_FILE).write_text(text)
    for spec in both_specs(folder):
        assert spec.preset.temperature == published.preset.temperature
        assert spec.preset.ratios == published.preset.ratios
        if "schedule" in text:
            assert spec.preset.drop_before_layer == (3, 5, 6, 7)
        else:
            assert spec == published


def test_saying_what_is_so_anyway_changes_nothing(folder: Path) -> None:
    """A law: with the default values written down every result is the same."""
    clip, media = random_clip(6, 3, 4, 3.0, seed=5)
    default = dataclasses.replace(media, min_pixels=None, max_pixels=None)

    def result() -> object:
        loaded = load(options(folder))
        report = answer(loaded, lambda: clip, "What?", Settings(media=default))
        return loaded.model.spec.preset, dataclasses.replace(report, seconds=Seconds(), memory_bytes=None)

    before = result()
    preset, factor = before[0], 28 * 28
    rows = [list(row) for row in preset.ratios]
    (folder / SETTINGS_FILE).write_text(
        f"[schedule]\ndrop_before_layer = {list(preset.drop_before_layer)}\ntemperature = {preset.temperature}\n"
        "scale = 1.4\n"
        f"[media]\nmin_pixels = {128 * factor}\nmax_pixels = {144 * factor}\n[ratios]\nrows = {rows}\n"
    )
    assert result() == before


def test_an_option_goes_before_it(folder: Path) -> None:
    (folder / SETTINGS_FILE).write_text(WHOLE)
    spec = both_specs(folder)[1]
    given = SelectionOptions(trr=0.2, drop_before_layer=(3, 4, 5, 6))
    assert make_plan(given, spec.preset, N_LAYERS, [100], [50]).drop_before_layer == (3, 4, 5, 6)
    assert make_plan(SelectionOptions(trr=0.2), spec.preset, N_LAYERS, [100], [50]).drop_before_layer == (
        2,
        3,
        5,
        7,
    )


def tokens(spec: ModelSpec, height: int, width: int, n_frames: int = 4, **limits: int) -> tuple[int, list[str]]:
    """Merged tokens per grid of a clip of that size, and what the clip warns of."""
    clip, _ = random_clip(2, 1, 1, 0.0)
    clip.video = dataclasses.replace(clip.video, height=height, width=width)
    clip.plan = dataclasses.replace(clip.plan, n_frames=n_frames, times_seconds=[i / 2 for i in range(n_frames)])
    family = load_family()
    shape = clip_shape(clip, 0, family, spec, MediaOptions(**limits))
    return shape.video.tokens_per_grid, clip.warnings


def load_family() -> Any:
    from seats_cli.models import family_of

    return family_of("qwen2_5_omni")


def test_the_pixel_budget_of_a_model(folder: Path) -> None:
    area = 28 * 28
    default = both_specs(folder)[1]
    assert 128 <= tokens(default, 480, 480)[0] <= 144
    (folder / SETTINGS_FILE).write_text(f"[media]\nmin_pixels = {12 * area}\nmax_pixels = {16 * area}\n")
    own = both_specs(folder)[1]
    assert tokens(own, 480, 480) == (16, [])
    # A shape of which no multiple fits is nothing to warn of.
    assert tokens(own, 480, 1100)[1] == []
    # The user's limit goes before the model's, also where they contradict each other.
    assert tokens(own, 480, 480, min_pixels=100 * area)[0] >= 100
    assert tokens(own, 480, 480, max_pixels=4 * area)[0] <= 4
    assert tokens(own, 480, 480, max_pixels=14 * area)[0] <= 14
    assert tokens(own, 480, 480, min_pixels=25 * area, max_pixels=36 * area)[0] in range(25, 37)


def test_frames_that_share_the_budget_are_warned_of_as_before(folder: Path) -> None:
    assert any("share" in line for line in tokens(both_specs(folder)[1], 480, 480, n_frames=768)[1])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[schedule]\n", "no drop_before_layer"),
        ("[schedule]\ndrop_before_layer = [1, 2]", "[1, 2]"),
        ("[schedule]\ndrop_before_layer = [2, 3, 5, 7]\nheat = 1", "heat"),
        ("[schedule]\ndrop_before_layer = [2, 3, 5, 7]\ntemperature = '1'", "'1'"),
        ("[schedule]\ndrop_before_layer = [5, 3, 2, 7]", "5, 3, 2, 7 of 8"),
        ("[schedule]\ndrop_before_layer = [16, 18, 20, 23]", "16, 18, 20, 23 of 8"),
        ("[schedule]\ndrop_before_layer = [2, 3, 5, 7]\nlayers = 12", "12 layers"),
        ("schedule = 3", "schedule is 3"),
        ("drop_before_layer = [2, 3, 5, 7]", "drop_before_layer is not known"),
        ("[pixels]\nmin = 3", "pixels"),
        ("[media]\nfps = 2", "fps"),
        ("[media]\nmin_pixels = 2.5", "2.5"),
        ("[media]\nmax_pixels = 0", "max_pixels is 0"),
        ("[media]\nmax_pixels = true", "True"),
        ("[media]\nmin_pixels = 10\nmax_pixels = 9", "min_pixels 10"),
        ("[ratios]\n", "rows is None"),
        ("[ratios]\nrow = [[0.1, 0.1, 0.1]]", "row,"),
        ("[ratios]\nrows = [[0.1, 0.1]]", "[0.1, 0.1]"),
        ("[ratios]\nrows = [0.1, 0.1, 0.1]", "0.1"),
        ("[ratios]\nrows = [[0.1, 0.1, 1.5]]", "1.5"),
        ("[ratios]\nrows = [[0.1, 0.0, 0.5]]", "0.0"),
        ("[ratios]\nrows = [[1.0, 0.5, 0.5]]", "1.0"),
        ("[ratios]\nrows = [[0.1, 0.1, 0.1], [0.1, 0.1, 0.2]]", "two rows"),
        ("[schedule", "not a TOML file"),
    ],
)
def test_what_it_cannot_hold_is_an_error_of_the_model(folder: Path, text: str, named: str) -> None:
    (folder / SETTINGS_FILE).write_text(text)
    for reader in (load, spec_without_weights):
        with pytest.raises(ModelError) as caught:
            reader(options(folder))
        assert SETTINGS_FILE in str(caught.value)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.hint


def test_what_is_not_known_is_told_what_is(folder: Path) -> None:
    (folder / SETTINGS_FILE).write_text("remark = 'birds'\n")
    with pytest.raises(ModelError) as caught:
        read_settings(folder)
    assert caught.value.hint == "known: note, and the tables schedule, media, ratios"


def test_the_sample_in_the_docs_holds_all_there_is(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "usage.md").read_text(encoding="utf-8")
    sample = next(part for part in page.split("```") if part.startswith("toml\n") and "[media]" in part)
    (folder / SETTINGS_FILE).write_text(sample.removeprefix("toml\n"))
    said = read_settings(folder)
    assert None not in dataclasses.astuple(said)
    assert said.note == "knows birds only"


def test_a_folder_without_one(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == ModelSettings()


# From the Hub


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "hub"
    home.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home))
    return home


def test_from_the_hubs_cache(cache: Path, plain: Path, folder: Path) -> None:
    (folder / SETTINGS_FILE).write_text(WHOLE)
    put_in_cache(cache, plain, COMMIT, "main")
    put_in_cache(cache, folder, OTHER, "v2")
    assert find(options("org/tiny", offline=True)).settings == ModelSettings()
    assert find_config(options("org/tiny", offline=True))[2] == ModelSettings()
    said = read_settings(folder)
    assert said.max_pixels == 9408
    assert find(options("org/tiny", offline=True, revision="v2")).settings == said
    assert find_config(options("org/tiny", offline=True, revision="v2"))[2] == said
    assert load(options("org/tiny", offline=True, revision="v2")).model.spec.max_pixels == 9408


def test_it_is_fetched_where_there_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(_: str, name: str, **__: object) -> str:
        asked.append(name)
        if not (folder / name).exists():
            raise huggingface_hub.errors.EntryNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert find_config(options("org/tiny"))[2] == ModelSettings()
    (folder / SETTINGS_FILE).write_text(WHOLE)
    assert find_config(options("org/tiny"))[2].min_pixels == 3136
    assert set(asked) == {"config.json", SETTINGS_FILE}


def test_a_hub_that_breaks_off_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: str, name: str, **__: object) -> str:
        if name == SETTINGS_FILE:
            raise ConnectionError("gone")
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ModelError, match="neither cached nor reachable"):
        find_config(options("org/tiny"))
