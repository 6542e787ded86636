"""Fewer bits per weight: the right modules and no others, what comes of it, and one line for what cannot be."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.quantizers.quantizers_utils import should_convert_module

from seats_cli.config import SHIPPED_MODEL, ModelOptions
from seats_cli.errors import ModelError, SeatsError, UsageError
from seats_cli.models.checkpoint import find
from seats_cli.models.loading import LoadedModel, load
from seats_cli.models.quantisation import (
    LEFT_ALONE,
    LIBRARIES,
    check_reach,
    describe,
    for_thinker,
    import_library,
)
from tests import tiny

QUANTS = sorted(LIBRARIES)
PROJECTIONS = {
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
}


def options(model: object, **keywords: Any) -> ModelOptions:
    return ModelOptions(model=str(model), **{"device": "cpu", "dtype": "float32", **keywords})


def refused(kind: type[SeatsError], line: str, model: object, **keywords: Any) -> SeatsError:
    with pytest.raises(kind, match=line) as caught:
        load(options(model, **keywords))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tiny_checkpoint(tmp_path_factory.mktemp("quant"), n_layers=3, dtype=torch.float32)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """To be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def needs(quant: str) -> None:
    pytest.importorskip(LIBRARIES[quant][0], reason="an optional package")


@pytest.fixture(params=QUANTS)
def quant(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return str(request.param)


# Which modules


NAMES = {
    "model.layers.0.self_attn.q_proj": True,
    "model.layers.11.mlp.gate_proj": True,
    "model.language_model.layers.3.mlp.gate_proj": True,
    "model.language_model.layers.3.mlp.shared_expert.down_proj": True,
    "model.layers.0.mlp.gate": False,
    "model.language_model.layers.0.mlp.gate": False,
    "model.language_model.layers.0.mlp.shared_expert_gate": False,
    "lm_head": False,
    "model.embed_tokens": False,
    "visual.blocks.0.attn.q": False,
    "model.visual.merger.mlp.0": False,
    "audio_tower.layers.0.fc1": False,
    "model.audio_tower.layers.0.self_attn.q_proj": False,
}


@pytest.mark.parametrize("suffix", ["", ".weight"])
@pytest.mark.parametrize("name", NAMES)
def test_patterns_as_transformers_reads_them(name: str, suffix: str) -> None:
    assert should_convert_module(name + suffix, list(LEFT_ALONE)) == NAMES[name]


def is_quantised(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and type(weight) is not torch.nn.Parameter


def test_the_decoders_linear_layers_and_no_others(folder: Path, quant: str) -> None:
    loaded = load(options(folder, quant=quant))
    assert loaded.quant == quant
    assert (loaded.dtype, loaded.model.dtype) == ("float32", torch.float32)
    wanted = {id(layer.get_submodule(name)) for layer in loaded.model.layers for name in PROJECTIONS}
    found = {id(module) for module in loaded.model.thinker.modules() if is_quantised(module)}
    assert found == wanted
    assert len(found) == 3 * len(PROJECTIONS)


def test_not_asked_for(folder: Path) -> None:
    loaded = load(options(folder))
    assert loaded.quant is None
    assert not any(map(is_quantised, loaded.model.thinker.modules()))


# What comes of it


def dequantised(module: torch.nn.Module) -> torch.Tensor:
    weight: Any = module.weight
    if type(weight).__name__ == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state).float()
    if type(weight).__name__ == "Int8Params":
        scale = weight.SCB if weight.SCB is not None else module.state.SCB
        return weight.data.float() * scale[:, None] / 127
    return weight.dequantize().float()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().float().flatten(), b.detach().float().flatten()
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@torch.inference_mode()
def logits(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    model = loaded.model
    hidden = model.embed(ids)[None]
    rope = model.rope(hidden, torch.arange(len(ids)).expand(3, -1))
    from seats_cli.engine.cache import RaggedCache

    cache = RaggedCache(len(model.layers))
    for index in range(len(model.layers)):
        hidden = model.run_layer(index, hidden, rope, None, cache)
    return model.last_logits(hidden)


CLOSE = {"bnb-4bit": 0.99, "bnb-8bit": 0.9999, "torchao-int8": 0.9999}
"""Of a weight to what it was: 4 bits are coarse."""


def test_weights_are_what_they_were(folder: Path, quant: str) -> None:
    here, there = load(options(folder)).model, load(options(folder, quant=quant)).model
    for layer, other in zip(here.layers, there.layers, strict=True):
        for name in PROJECTIONS:
            weight = dequantised(other.get_submodule(name))
            assert cosine(layer.get_submodule(name).weight, weight) > CLOSE[quant]


def test_logits_are_those_of_the_weights_it_has(folder: Path, quant: str) -> None:
    """A float model with the same rounded weights says the same."""
    quantised, plain = load(options(folder, quant=quant)), load(options(folder))
    assert (quantised.model.is_quantised, plain.model.is_quantised) == (True, False)
    with torch.no_grad():
        for layer, other in zip(plain.model.layers, quantised.model.layers, strict=True):
            for name in PROJECTIONS:
                layer.get_submodule(name).weight.copy_(dequantised(other.get_submodule(name)))
    ids = torch.arange(40, 70)
    # Products of bitsandbytes' 8 bits round what goes in, too.
    assert cosine(logits(quantised, ids), logits(plain, ids)) > (0.99 if quant == "bnb-8bit" else 0.9999)
    hidden = torch.randn(1, 7, 64, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(7).expand(3, -1)
    with torch.inference_mode():
        rows = [
            one.model.query_attention(1, hidden, one.model.rope(hidden, positions)) for one in (quantised, plain)
        ]
    assert cosine(*rows) > 0.99


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_of_a_trained_model_stay_close(quant: str, dtype: str) -> None:
    plain = load(options(SHIPPED_MODEL))
    quantised = load(options(SHIPPED_MODEL, quant=quant, dtype=dtype))
    assert quantised.dtype == dtype
    ids = torch.tensor(plain.model.tokenizer("What shape is the red thing?")["input_ids"])
    assert cosine(logits(plain, ids), logits(quantised, ids)) > (0.9 if quant == "bnb-4bit" else 0.99)


def test_nothing_is_said(folder: Path, quant: str, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load(options(folder, quant=quant))
    logits(loaded, torch.arange(40, 50))
    assert capfd.readouterr() == ("", "")


def test_half_precision_and_thinkers_saved_alone(tmp_path: Path, quant: str) -> None:
    tiny.tiny_thinker(2, n_layers=3).save_pretrained(tmp_path)
    tiny.tiny_processor_files(tmp_path)
    loaded = load(options(tmp_path, quant=quant, dtype="bfloat16"))
    assert sum(map(is_quantised, loaded.model.thinker.modules())) == 3 * len(PROJECTIONS)
    assert logits(loaded, torch.arange(40, 50)).dtype == torch.bfloat16


# What cannot be


@pytest.mark.parametrize("name", QUANTS)
def test_package_missing(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, extra = LIBRARIES[name]

    def absent(wanted: str) -> None:
        raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)

    monkeypatch.setattr("seats_cli.models.quantisation.import_library", absent)
    line = f"^--quant {name} needs {package}, which is not installed$"
    assert refused(UsageError, line, folder, quant=name).hint == f"pip install 'seats-cli[{extra}]'"
    # Nothing was sought for it.
    refused(UsageError, line, "org/model-that-is-not-here", quant=name)


@pytest.mark.parametrize(
    "error", [OSError("libcuda.so is\nmissing"), ModuleNotFoundError("No triton", name="triton")]
)
def test_package_broken(folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise error

    monkeypatch.setattr("seats_cli.models.quantisation.import_library", broken)
    line = f"^--quant bnb-4bit: bitsandbytes does not import: {type(error).__name__}: "
    assert "-U" in refused(UsageError, line, folder, quant="bnb-4bit").hint


def test_extras_are_those_of_the_distribution() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "seats-cli"
    for package, extra in LIBRARIES.values():
        assert [need.split(">")[0] for need in project["optional-dependencies"][extra]] == [package]


def test_device_that_cannot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        supported_torch_devices = frozenset({"cuda"})

    monkeypatch.setattr("seats_cli.models.quantisation.import_library", lambda _: Library)
    refused(UsageError, "^--quant bnb-8bit: bitsandbytes cannot use cpu$", folder, quant="bnb-8bit")


def test_what_does_not_fit_is_not_parked(folder: Path, tmp_path: Path, quant: str) -> None:
    limits = {"device": "auto", "device_map": "auto", "max_memory": "cpu=1MB", "offload_folder": str(tmp_path)}
    refused(UsageError, "does not fit within --max-memory cpu=1MB, and --quant", folder, quant=quant, **limits)
    assert list(tmp_path.iterdir()) == []
    loaded = load(options(folder, quant=quant, **{**limits, "max_memory": "cpu=1GB"}))
    assert (loaded.quant, loaded.device) == (quant, "auto")


def test_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--quant bnb-4bit quantises the weights of a checkpoint"):
        load(options("Qwen/Qwen2.5-Omni-3B", weights="random", quant="bnb-4bit"))


def experts(n_experts: int) -> dict[str, torch.Tensor]:
    layer = "model.layers.0."
    size = torch.empty(8, 8)
    names = [
        f"{layer}mlp.experts.{i}.{name}_proj.weight" for i in range(n_experts) for name in ("gate", "up", "down")
    ]
    names += [
        f"{layer}self_attn.q_proj.weight",
        "model.embed_tokens.weight",
        "visual.blocks.0.mlp.experts.0.weight",
    ]
    return dict.fromkeys(names, size)


def test_experts_are_out_of_reach() -> None:
    """As published, and as transformers stacks them."""
    stacked = {
        "model.language_model.layers.0.mlp.experts.gate_up_proj": torch.empty(9, 8, 8),
        "model.language_model.layers.0.self_attn.q_proj.weight": torch.empty(8, 8),
    }
    for weights in (experts(3), stacked):
        with pytest.raises(UsageError, match="would leave 90% of the decoder of moe as it is") as caught:
            check_reach("bnb-4bit", "moe", weights)
        assert "--device-map auto" in caught.value.hint
    check_reach("bnb-4bit", "dense", experts(0))
    check_reach("bnb-4bit", "nothing", {})


@pytest.mark.parametrize("name", QUANTS)
def test_transformers_leaves_experts_alone(name: str) -> None:
    """What ``check_reach`` refuses: experts in 3-D parameters stay as they are, in any transformers we take."""
    needs(name)
    import transformers

    from seats_cli.models.quantisation import quantization_config

    family = transformers.Qwen3OmniMoeThinkerForConditionalGeneration
    text = {"vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 64, "moe_intermediate_size": 64}
    text |= {"num_experts": 2, "num_experts_per_tok": 1}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"deepstack_visual_indexes": [], "num_position_embeddings": 4}
    audio = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    audio |= {"output_dim": 64, "downsample_hidden_size": 8, "num_hidden_layers": 1}
    config = family.config_class(text_config=text, vision_config=vision, audio_config=audio)
    weights = {key: torch.zeros_like(value) for key, value in family(config).state_dict().items()}
    thinker = family.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        device_map={"": torch.device("cpu")},
        dtype=torch.float32,
        quantization_config=quantization_config(name, torch.float32),
    )
    changed = {key for key, module in thinker.named_modules() if is_quantised(module)}
    assert {key.rpartition(".")[2] for key in changed} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    stacked = [value for key, value in thinker.named_parameters() if ".experts." in key]
    assert [value.ndim for value in stacked] == [3, 3]
    assert all(type(value) is torch.nn.Parameter and value.dtype == torch.float32 for value in stacked)


# Checkpoints that are quantised


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 8, "group_size": 128, "desc_act": False, "sym": True}
PLACES = {
    "top": lambda config: config,
    "thinker": lambda config: config["thinker_config"],
    "text": lambda config: config["thinker_config"]["text_config"],
}


def say_quantised(folder: Path, place: str, quantization: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    PLACES[place](config)["quantization_config"] = quantization
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("config", "package"), [(AWQ, "gptqmodel"), (GPTQ, "gptqmodel and optimum")])
def test_package_of_a_quantised_checkpoint_missing(
    copy: Path, place: str, config: dict[str, Any], package: str
) -> None:
    if importlib.util.find_spec("gptqmodel"):
        pytest.skip("gptqmodel is installed")
    say_quantised(copy, place, config)
    method = config["quant_method"]
    error = refused(ModelError, f"^{copy} is quantised with {method}, which needs {package}$", copy)
    assert error.hint == f"pip install -U {package.replace(' and ', ' ')}"
    assert find(options(copy)).quantization == config


def test_a_quantised_checkpoint_takes_no_quant(copy: Path) -> None:
    needs("bnb-4bit")
    say_quantised(copy, "top", AWQ)
    refused(UsageError, r"^--quant bnb-4bit: .* is quantised already \(awq-4bit\)$", copy, quant="bnb-4bit")


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"quant_method": "abacus"}, "is quantised with 'abacus', which transformers [0-9.]+ does not know"),
        ({"bits": 4}, "is quantised with 'None', which transformers"),
        ({"quant_method": "torchao", "quant_type": {}}, "is quantised with torchao, whose files cannot be read"),
        ({**GPTQ, "bits": 5}, "is quantised with gptq and cannot be loaded: "),
        ([4], "quantization_config is not a JSON object"),
    ],
)
def test_quantisation_that_cannot_be(copy: Path, config: object, line: str) -> None:
    say_quantised(copy, "thinker", config)
    refused(ModelError, line, copy)


def test_described() -> None:
    assert describe(AWQ) == "awq-4bit"
    assert describe({"quant_method": "fp8"}) == "fp8"
    assert describe({"load_in_8bit": True, "quant_method": "bitsandbytes"}) == "bitsandbytes-8bit"


def test_names_are_those_of_the_thinker() -> None:
    config = {
        "modules_to_not_convert": ["thinker.visual", "thinker.model.layers.0.mlp.gate", "lm_head"],
        "ignore": ["re:.*lm_head"],
        "block_name_to_quantize": "thinker.model.layers",
        "llm_int8_skip_modules": None,
        "bits": 4,
    }
    before = json.dumps(config)
    made = for_thinker(config, "thinker.")
    assert {"visual", "model.visual", "lm_head"} <= set(made["modules_to_not_convert"])
    assert {"model.layers.0.mlp.gate", "model.language_model.layers.0.mlp.gate"} <= set(
        made["modules_to_not_convert"]
    )
    assert made["ignore"] == ["re:.*lm_head"]
    assert (made["block_name_to_quantize"], made["llm_int8_skip_modules"], made["bits"]) == (
        "model.layers",
        None,
        4,
    )
    assert json.dumps(config) == before


@pytest.mark.parametrize("quant", ["bnb-4bit", "bnb-8bit"])
@pytest.mark.parametrize("place", PLACES)
def test_a_quantised_checkpoint(folder: Path, tmp_path: Path, quant: str, place: str) -> None:
    """As bitsandbytes writes it, under the names of the whole model."""
    needs(quant)
    made = load(options(folder, quant=quant))
    copy, saved = Path(shutil.copytree(folder, tmp_path / "copy")), tmp_path / "saved"
    made.model.thinker.save_pretrained(saved)
    weights = {f"thinker.{name}": value for name, value in load_file(saved / "model.safetensors").items()}
    for path in copy.glob("model*"):
        path.unlink()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((saved / "config.json").read_text())["quantization_config"]
    config["llm_int8_skip_modules"] = ["thinker.visual", "thinker.audio_tower", "thinker.lm_head"]
    say_quantised(copy, place, config)
    loaded = load(options(copy))
    assert loaded.quant == f"bitsandbytes-{quant.removeprefix('bnb-')}"
    assert sum(map(is_quantised, loaded.model.thinker.modules())) == 3 * len(PROJECTIONS)
    ids = torch.arange(40, 60)
    assert torch.equal(logits(loaded, ids), logits(made, ids))


# The libraries themselves


def test_no_code_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bitsandbytes fetches kernels when it is imported beside the package of that name."""
    (tmp_path / "greedy.py").write_text(
        "try:\n    import kernels\nexcept ImportError:\n    kernels = None\n"
        "import logging\nlogging.getLogger('bitsandbytes.inner').warning('loud')\n"
    )
    (tmp_path / "kernels.py").write_text("")
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    monkeypatch.delitem(sys.modules, "greedy", raising=False)
    assert import_library("greedy").kernels is None
    assert "kernels" not in sys.modules
    assert importlib.import_module("kernels").__file__ == os.fspath(tmp_path / "kernels.py")
    mine = sys.modules["kernels"]
    monkeypatch.delitem(sys.modules, "greedy")
    import_library("greedy")
    assert sys.modules["kernels"] is mine
    del sys.modules["kernels"]


def test_loggers_are_as_they_were() -> None:
    before = logging.getLogger("accelerate").level
    import_library("json")
    assert logging.getLogger("accelerate").level == before
