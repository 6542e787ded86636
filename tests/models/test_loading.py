"""From a folder or the Hub's cache to a thinker in memory, and one clear line for everything that can be wrong."""

from __future__ import annotations

import builtins
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging as hf_logging

import seats_cli
from seats_cli.config import ModelOptions
from seats_cli.errors import ModelError, UsageError
from seats_cli.models import FAMILIES, family_of, named_architecture
from seats_cli.models.checkpoint import SMALL_FILES, find, find_config
from seats_cli.models.loading import (
    _read_weights,
    build_random,
    choose_attention,
    choose_device,
    choose_dtype,
    load,
)
from tests import tiny

FAMILY = FAMILIES["qwen2_5_omni"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SPEECH = "model-speech.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of thinker weights, and a third with the talker's alone."""
    folder = tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("hub") / "whole", n_layers=5, dtype=torch.float32)
    index = json.loads((folder / INDEX).read_text())
    speech: dict[str, torch.Tensor] = {}
    for shard in SHARDS:
        weights = load_file(folder / shard)
        mine = {name: value for name, value in weights.items() if name.startswith("thinker.")}
        speech |= {name: value for name, value in weights.items() if name not in mine}
        save_file(mine, folder / shard)
    save_file(speech, folder / SPEECH)
    index["weight_map"] |= dict.fromkeys(speech, SPEECH)
    (folder / INDEX).write_text(json.dumps(index))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(whole, tmp_path / "broken"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache."""
    home = tmp_path / "hub"
    home.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home))
    return home


def put_in_cache(home: Path, source: Path, commit: str, *refs: str, without: tuple[str, ...] = ()) -> Path:
    """As the hub library lays it out, with copies for links."""
    repository = home / "models--org--tiny"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(source, snapshot, ignore=shutil.ignore_patterns(*without))
    (repository / "refs").mkdir(exist_ok=True)
    for ref in refs:
        (repository / "refs" / ref).write_text(commit)
    return snapshot


def options(model: object, **keywords: Any) -> ModelOptions:
    return ModelOptions(model=str(model), **{"device": "cpu", "dtype": "float32", **keywords})


def refused(model: object, match: str, **keywords: Any) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        load(options(model, **keywords))
    assert caught.value.exit_code == 4
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def same_weights(thinker: torch.nn.Module, expected: torch.nn.Module) -> bool:
    found, wanted = tiny.hub_state_dict(thinker), tiny.hub_state_dict(expected)
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


# What is loaded


def test_a_folder(whole: Path) -> None:
    loaded = load(options(whole))
    assert (loaded.model_id, loaded.revision, loaded.weights) == (str(whole), None, "checkpoint")
    assert (loaded.dtype, loaded.device, loaded.attention) == ("float32", "cpu", "sdpa")
    assert same_weights(loaded.model.thinker, tiny.tiny_thinker(n_layers=5))
    assert not loaded.model.thinker.training
    assert loaded.model.stop_ids == (tiny.token_ids()["<|im_end|>"],)
    assert len(loaded.model.layers) == 5
    assert loaded.model.devices == [torch.device("cpu")]


def test_a_single_file(tmp_path: Path) -> None:
    tiny.write_tiny_checkpoint(tmp_path, seed=4, n_layers=5, shards=1, dtype=torch.float32)
    assert find(options(tmp_path)).shards == ("model.safetensors",)
    assert same_weights(load(options(tmp_path)).model.thinker, tiny.tiny_thinker(4, n_layers=5))


@pytest.mark.parametrize("shard_size", ["50GB", "100KB"])
def test_a_thinker_saved_alone(tmp_path: Path, shard_size: str) -> None:
    """As ``save_pretrained`` writes it: keys without the prefix, ``model_type`` of the thinker."""
    thinker = tiny.tiny_thinker(2, n_layers=5)
    thinker.save_pretrained(tmp_path, max_shard_size=shard_size)
    tiny.tiny_processor_files(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2_5_omni_thinker"
    found = find(options(tmp_path))
    assert len(found.shards) == len(list(tmp_path.glob("*.safetensors")))
    assert (len(found.shards) > 1) == (shard_size == "100KB")
    assert same_weights(load(options(tmp_path)).model.thinker, thinker)


def test_tensors_of_the_talker_are_not_read(tmp_path: Path) -> None:
    """Not even from a file that holds both."""
    for shards in (1, 2):
        mixed = tiny.write_tiny_checkpoint(tmp_path / str(shards), n_layers=5, shards=shards)
        wanted = {name.removeprefix("thinker.") for name in tiny.hub_state_dict(tiny.tiny_thinker(n_layers=5))}
        assert set(_read_weights(find(options(mixed)))) == wanted


def test_the_talker_is_not_touched(folder: Path) -> None:
    (folder / SPEECH).unlink()
    assert find(options(folder)).shards == tuple(SHARDS)
    assert same_weights(load(options(folder)).model.thinker, tiny.tiny_thinker(n_layers=5))


@pytest.mark.parametrize(
    ("asked", "given"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_dtype(whole: Path, asked: str, given: torch.dtype) -> None:
    before = torch.get_default_dtype()
    loaded = load(options(whole, dtype=asked))
    assert {value.dtype for value in loaded.model.thinker.parameters()} == {given}
    assert loaded.model.dtype == given
    assert loaded.dtype == str(given).removeprefix("torch.")
    assert torch.get_default_dtype() == before
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_attention(whole: Path, attn: str) -> None:
    loaded = load(options(whole, attn=attn))
    assert loaded.attention == attn
    for part in (loaded.model.thinker, *loaded.model.towers, *loaded.model.layers):
        config = getattr(part, "config", None) or part.self_attn.config
        assert config._attn_implementation == attn


@pytest.mark.parametrize("has_flash", [True, False])
def test_attention_auto(monkeypatch: pytest.MonkeyPatch, has_flash: bool) -> None:
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: has_flash)
    best = "flash_attention_2" if has_flash else "sdpa"
    assert choose_attention("auto", torch.device("cuda")) == best
    assert choose_attention("auto", torch.device("cpu")) == "sdpa"
    if has_flash:
        assert choose_attention("flash_attention_2", torch.device("cuda")) == "flash_attention_2"
    else:
        with pytest.raises(ModelError, match="flash-attn package does not import"):
            choose_attention("flash_attention_2", torch.device("cuda"))


@pytest.mark.parametrize("device_map", ["auto", "balanced", "cpu"])
def test_device_map(whole: Path, device_map: str) -> None:
    """Where there is one device, everything is on it."""
    loaded = load(options(whole, device="auto", device_map=device_map))
    assert loaded.device == device_map
    assert same_weights(loaded.model.thinker.float().cpu(), tiny.tiny_thinker(n_layers=5)) or (
        torch.cuda.is_available() and loaded.dtype == "bfloat16"
    )


@pytest.mark.parametrize("name", ["gpu", "cuda:-1", "cuda:99", "meta", "xpu:0", "mps:7"])
@pytest.mark.parametrize("option", ["device", "device_map"])
def test_unknown_device(whole: Path, name: str, option: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        load(options(whole, **{"device": "auto", option: name}))
    assert str(caught.value).startswith("--" + option.replace("_", "-"))


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda:0")


def test_the_folder_of_the_shipped_model_is_known_whatever_lies_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    loaded = load(options("tiny"))
    assert loaded.model_id == "tiny"
    assert loaded.folder == Path(seats_cli.__file__).parent / "assets" / "tiny"


# From the Hub


def test_cached_model_loads_offline(cache: Path, whole: Path) -> None:
    put_in_cache(cache, whole, COMMIT, "main", without=(SPEECH,))
    loaded = load(options("org/tiny", offline=True))
    assert (loaded.model_id, loaded.revision) == ("org/tiny", COMMIT)
    assert str(loaded.folder).endswith(COMMIT)
    assert same_weights(loaded.model.thinker, tiny.tiny_thinker(n_layers=5))
    # Not asked to be offline, but unreachable: the cache serves as well.
    assert find(options("org/tiny")).revision == COMMIT
    assert find(options("org/tiny", revision=COMMIT)).revision == COMMIT


def test_revision(cache: Path, whole: Path, tmp_path: Path) -> None:
    newer = tiny.write_tiny_checkpoint(tmp_path / "newer", seed=9, n_layers=6, dtype=torch.float32)
    put_in_cache(cache, whole, COMMIT, "main")
    put_in_cache(cache, newer, OTHER, "v2")
    assert find(options("org/tiny")).revision == COMMIT
    for revision in ("v2", OTHER):
        checkpoint = find(options("org/tiny", revision=revision))
        assert checkpoint.revision == OTHER
        assert checkpoint.config["text_config"]["num_hidden_layers"] == 6
    assert find_config(options("org/tiny", revision="v2"))[1]["text_config"]["num_hidden_layers"] == 6
    assert len(load(options("org/tiny", revision="v2")).model.layers) == 6


def test_only_what_is_needed_is_fetched_and_of_one_commit(
    cache: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = put_in_cache(cache, whole, COMMIT, "main")
    calls = []

    def download(repository: str, **keywords: Any) -> str:
        calls.append((repository, keywords))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    find(options("org/tiny", revision="v2"))
    assert calls == [
        ("org/tiny", {"revision": "v2", "allow_patterns": list(SMALL_FILES), "local_files_only": False}),
        ("org/tiny", {"revision": COMMIT, "allow_patterns": SHARDS, "local_files_only": False}),
    ]
    calls.clear()
    find(options("org/tiny", offline=True))
    assert [keywords["local_files_only"] for _, keywords in calls] == [True, True]


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("revision", [None, "v2"])
def test_neither_cached_nor_reachable(cache: Path, offline: bool, revision: str | None) -> None:
    command = "hf download org/tiny" + (" --revision v2" if revision else "")
    why = "is not in the cache and --offline is set" if offline else "is neither cached nor reachable"
    chosen = {"offline": offline, "revision": revision}
    error = refused("org/tiny", f"^org/tiny {why}$", **chosen)
    assert error.hint == f"fetch it with: {command}"
    with pytest.raises(ModelError, match=why) as caught:
        find_config(options("org/tiny", **chosen))
    assert caught.value.hint == f"fetch it with: {command}"


def test_half_cached(cache: Path, whole: Path) -> None:
    put_in_cache(cache, whole, COMMIT, "main", without=(SHARDS[1],))
    assert refused("org/tiny", SHARDS[1], offline=True).hint == "fetch it with: hf download org/tiny"


def test_no_config_in_the_repository(cache: Path, whole: Path) -> None:
    put_in_cache(cache, whole, COMMIT, "main", without=("config.json",))
    assert "hf download org/tiny" in refused("org/tiny", "org/tiny has no config.json").hint


def test_pickled_weights_in_the_repository(cache: Path, whole: Path) -> None:
    snapshot = put_in_cache(cache, whole, COMMIT, "main", without=("*.safetensors", INDEX))
    (snapshot / "pytorch_model.bin.index.json").write_text("{}")
    assert "only safetensors are read" in refused("org/tiny", "pickled weights").hint


@pytest.mark.parametrize(
    ("kind", "match", "hint"),
    [
        ("RepositoryNotFoundError", "neither a folder nor a model on the Hub", "hf auth login"),
        ("HFValidationError", "neither a folder nor a model on the Hub", "check the name"),
        ("RevisionNotFoundError", "no revision 'v2'", "--revision"),
        ("GatedRepoError", "is gated", "hf download org/tiny --revision v2"),
        ("HfHubHTTPError", "neither cached nor reachable", "hf download org/tiny --revision v2"),
    ],
)
def test_what_the_hub_says(monkeypatch: pytest.MonkeyPatch, kind: str, match: str, hint: str) -> None:
    error = getattr(huggingface_hub.errors, kind)
    raised = error.__new__(error)

    def download(*_: object, **__: object) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hint in refused("org/tiny", match, revision="v2").hint


def test_a_full_disk_is_not_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    refused("org/tiny", "No space left on device")


def test_ctrl_c_while_fetching_is_not_an_error_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(KeyboardInterrupt):
        find(options("org/tiny"))


# What can be wrong with a folder


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "~/nowhere-at-all", "a/b/c"])
def test_folder_missing(name: str) -> None:
    refused(name, f"there is no folder {name}")


def break_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def break_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index)
        (folder / INDEX).write_text(json.dumps(index))

    return apply


def break_shard(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / SHARDS[0])
        change(weights)
        save_file(weights, folder / SHARDS[0])

    return apply


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:n_bytes])


def pickle_only(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    torch.save({}, folder / "pytorch_model.bin")


def first_of(weights: dict[str, torch.Tensor]) -> str:
    return next(name for name in weights if "layers.2." in name and name.endswith("proj.weight"))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "config is not json": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    "config is not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "another family": (
        break_config(lambda c: c.update(model_type="llama")),
        "model type 'llama' is not supported",
    ),
    "no model type": (break_config(lambda c: c.pop("model_type")), "model type '' is not supported"),
    "thinker is null": (break_config(lambda c: c.update(thinker_config=None)), "thinker_config"),
    "no text config": (break_config(lambda c: c["thinker_config"].pop("text_config")), "has no 'text_config'"),
    "no hidden size": (
        break_config(lambda c: c["thinker_config"]["text_config"].pop("hidden_size")),
        "has no 'hidden_size'",
    ),
    "hidden size is a word": (
        break_config(lambda c: c["thinker_config"]["text_config"].update(hidden_size="wide")),
        "config is damaged",
    ),
    "sliding window": (
        break_config(lambda c: c["thinker_config"]["text_config"].update(use_sliding_window=True)),
        "sliding-window",
    ),
    "missing shard": (lambda f: (f / SHARDS[1]).unlink(), f"has no {SHARDS[1]}"),
    "index is not json": (lambda f: (f / INDEX).write_text("?"), "cannot be read"),
    "index without a map": (break_index(lambda i: i.pop("weight_map")), "has no weight_map"),
    "map is a list": (break_index(lambda i: i.update(weight_map=[1])), "has no weight_map"),
    "index leads outside": (
        break_index(lambda i: i["weight_map"].update({"thinker.lm_head.weight": "../secret.safetensors"})),
        "outside its folder",
    ),
    "empty shard": (lambda f: cut(f / SHARDS[0], 0), "is damaged"),
    "truncated shard": (lambda f: cut(f / SHARDS[0], 5000), "is damaged"),
    "shard is text": (
        lambda f: (f / SHARDS[0]).write_text("version https://git-lfs.github.com/spec/v1\n"),
        "damaged",
    ),
    "missing weight": (break_shard(lambda w: w.pop(first_of(w))), "lacks 1 weight of the thinker, .*proj.weight"),
    "weight of another shape": (
        break_shard(lambda w: w.update({first_of(w): torch.zeros(3, 5)})),
        "cannot be loaded",
    ),
    "pickled": (pickle_only, "pickled weights"),
    "no weights": (
        lambda f: [path.unlink() for path in [*f.glob("*.safetensors"), f / INDEX]],
        "has no model.safetensors",
    ),
    "no preprocessor": (lambda f: (f / "preprocessor_config.json").unlink(), "tokenizer or processor"),
    "no chat template": (lambda f: (f / "chat_template.json").unlink(), "has no chat template"),
    "tokenizer is not json": (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer or processor"),
    "generation config is not json": (
        lambda f: (f / "generation_config.json").write_text("{"),
        "generation_config.json cannot be read",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folder(folder: Path, name: str) -> None:
    harm, match = BROKEN[name]
    harm(folder)
    refused(folder, match)


def test_no_memory_is_not_a_damaged_checkpoint(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers.Qwen2_5OmniThinkerForConditionalGeneration, "from_pretrained", starve)
    with pytest.raises(torch.OutOfMemoryError):
        load(options(whole))


def test_code_of_a_repository_is_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(builtins, "input", lambda *question: asked.append(question) or "n")
    marker = folder / "ran"
    body = f"open({str(marker)!r}, 'w').close()\nclass Evil:\n    pass\n"
    (folder / "evil.py").write_text(body)
    kinds = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoProcessor", "AutoFeatureExtractor")
    kinds += ("AutoImageProcessor", "AutoVideoProcessor")
    auto_map = {**dict.fromkeys(kinds, "evil.Evil"), "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "auto_map": auto_map}))
    assert load(options(folder)).model.processor.tokenizer is not None
    assert not marker.exists()
    # A class that only the repository has: an error, not a question.
    content = json.loads((folder / "preprocessor_config.json").read_text())
    for key in ("processor_class", "image_processor_type", "feature_extractor_type"):
        content[key] = "Evil"
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    content = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**content, "processor_class": "Evil"}))
    refused(folder, "tokenizer or processor cannot be read")
    assert not marker.exists()
    assert asked == []


# Random weights


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A named architecture that fits a test."""
    config = tiny._config_json(n_layers=5)["thinker_config"]
    monkeypatch.setattr(FAMILY, "named", {**FAMILY.named, "Qwen/Tiny": config})
    return config


def test_random_weights(small: dict[str, Any]) -> None:
    before = json.dumps(small)
    first = load(options("Qwen/Tiny", weights="random", dtype="bfloat16"))
    again = load(options("tiny", weights="random", dtype="bfloat16"))
    assert (first.weights, first.dtype, first.revision) == ("random", "bfloat16", None)
    assert same_weights(first.model.thinker, again.model.thinker)
    assert {value.dtype for value in first.model.thinker.parameters()} == {torch.bfloat16}
    assert not first.model.thinker.training
    assert json.dumps(small) == before, "a named config is shared and must not be written to"
    with pytest.raises(UsageError, match="no tokenizer"):
        first.model.prompt("What?", None, "video")
    assert first.model.mel_filters.shape == (201, 128)
    assert first.model.pixel_norm.mean == pytest.approx(tuple(tiny_mean()))


def tiny_mean() -> list[float]:
    from tests.tiny_processor import CLIP_MEAN

    return CLIP_MEAN


def test_random_weights_on_several_devices(small: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--device-map"):
        load(options("Qwen/Tiny", device="auto", weights="random", device_map="auto"))


def test_unknown_architecture() -> None:
    with pytest.raises(ModelError, match="no architecture is known as 'org/tiny'") as caught:
        load(options("org/tiny", weights="random"))
    assert "Qwen/Qwen2.5-Omni-3B" in caught.value.hint


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-Omni-7B", "qwen2.5-omni-7b", "QWEN/QWEN2.5-OMNI-7B"])
def test_named_architecture(name: str) -> None:
    family, config = named_architecture(name)
    assert family is FAMILY
    assert config is FAMILY.named["Qwen/Qwen2.5-Omni-7B"]


def test_family_of() -> None:
    assert family_of("qwen2_5_omni") is family_of("qwen2_5_omni_thinker") is FAMILY
    with pytest.raises(ModelError, match="'qwen2_5_omni_talker' is not supported"):
        family_of("qwen2_5_omni_talker")


# What stays behind


@pytest.fixture
def talkative() -> Iterator[None]:
    """Settings that no earlier test can have left behind."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_info()
    hf_logging.enable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        yield
    hf_logging.set_verbosity(level)
    if not bars:
        hf_logging.disable_progress_bar()


@pytest.mark.usefixtures("talkative")
def test_nothing_global_is_changed(whole: Path, small: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[object, ...]:
        return (
            hf_logging.get_verbosity(),
            hf_logging.is_progress_bar_enabled(),
            huggingface_hub.utils.are_progress_bars_disabled(),
            torch.get_default_dtype(),
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
        )

    before = state()
    load(options(whole, dtype="bfloat16"))
    assert state() == before
    load(options("Qwen/Tiny", weights="random", dtype="bfloat16"))
    assert state() == before
    with pytest.raises(ModelError):
        build_random(options("x", weights="random"), FAMILY, {"text_config": {}})
    assert state() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("talkative")
def test_state_is_restored_after_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, FAMILY.thinker_class, None)
    before = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    (folder / SHARDS[0]).write_bytes(b"")
    refused(folder, "is damaged")
    assert (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()) == before == (hf_logging.INFO, True)


def test_float32_never_takes_flash_attention(monkeypatch):
    import transformers.utils

    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: True)
    gpu = torch.device("cuda")
    assert choose_attention("auto", gpu, torch.bfloat16) == "flash_attention_2"
    assert choose_attention("auto", gpu, torch.float32) == "sdpa"
    with pytest.raises(UsageError, match="needs float16 or bfloat16"):
        choose_attention("flash_attention_2", gpu, torch.float32)
