"""Fewer bits per weight: quantised while loading (``--quant``), or quantised already in the checkpoint.

``--quant`` touches the linear layers of the text decoder and nothing else. Transformers does the work, with
bitsandbytes or torchao; this file says which modules, and puts what can go wrong into one line.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from seats_cli.errors import ModelError, UsageError
from seats_cli.models.base import Config

if TYPE_CHECKING:
    import torch

LIBRARIES = {
    "bnb-4bit": ("bitsandbytes", "bnb"),
    "bnb-8bit": ("bitsandbytes", "bnb"),
    "torchao-int8": ("torchao", "torchao"),
}
"""By value of ``--quant``: the package it needs, and the extra of this one that brings it."""

DECODER = r"model\.(?:language_model\.)?layers\.\d+\."
"""How names of a text decoder's layers begin; transformers 5.18 put them under ``language_model``."""

# Patterns as transformers takes them, for names of modules and of weights: all but the decoder, and its routers.
LEFT_ALONE = (rf"(?!{DECODER}).*$", r".*\.(?:shared_expert_)?gate(?:\.|$)")

_EXPERTS = re.compile(rf"{DECODER}.*\bexperts\.")
_WITHOUT_EXPERTS = 0.5
"""A model with more than this share of its decoder in experts is refused: too little would be gained."""

# What quantised checkpoints need beside transformers.
_NEEDS = {
    "awq": "gptqmodel",
    "gptq": "gptqmodel optimum",
    "bitsandbytes": "'seats-cli[bnb]'",
    "compressed-tensors": "compressed-tensors",
}
_NAMES_LEFT_ALONE = ("modules_to_not_convert", "llm_int8_skip_modules", "ignore", "ignored_layers")
_LOUD = ("accelerate", "bitsandbytes", "torchao", "torch.utils._pytree")


@contextmanager
def hushed() -> Iterator[None]:
    """Keep these libraries from logging notes while they are imported and while they load."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _without_hub_kernels() -> Iterator[None]:
    """Bitsandbytes would fetch compiled code from the Hub when it is imported beside the package ``kernels``."""
    here = "kernels" in sys.modules
    before = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if here:
            sys.modules["kernels"] = before  # type: ignore[assignment]
        else:
            del sys.modules["kernels"]


def import_library(name: str) -> Any:
    """Import bitsandbytes or torchao without their notes on stderr, and without code from the Hub."""
    with hushed(), _without_hub_kernels():
        return importlib.import_module(name)


def check_quant(quant: str, device: torch.device) -> None:
    """See that a value of ``--quant`` other than ``none`` can be had here.

    Raises:
        UsageError: Its package does not import, or cannot use the device.
    """
    package, extra = LIBRARIES[quant]
    try:
        library = import_library(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _does_not_import(quant, error) from error
        raise UsageError(
            f"--quant {quant} needs {package}, which is not installed", f"pip install 'seats-cli[{extra}]'"
        ) from None
    except Exception as error:
        raise _does_not_import(quant, error) from error
    devices = getattr(library, "supported_torch_devices", None) if package == "bitsandbytes" else None
    if devices is not None and device.type not in devices:
        raise UsageError(f"--quant {quant}: bitsandbytes cannot use {device.type}", "try --quant torchao-int8")


def _does_not_import(quant: str, error: Exception) -> UsageError:
    package, extra = LIBRARIES[quant]
    problem = f"--quant {quant}: {package} does not import: {type(error).__name__}: {error}"
    return UsageError(problem, f"pip install -U 'seats-cli[{extra}]'")


def check_reach(quant: str, name: str, weights: Mapping[str, Any]) -> None:
    """Refuse models whose decoder is experts for the most part: transformers holds them in 3-D parameters.

    bitsandbytes and torchao replace linear layers, of which experts have none. They would be left as they are.

    Args:
        quant: Value of the option.
        name: Of the model, for the error.
        weights: Tensors of the checkpoint.

    Raises:
        UsageError: It is such a model.
    """
    decoder = {key: value.numel() for key, value in weights.items() if re.match(DECODER, key)}
    experts = sum(size for key, size in decoder.items() if _EXPERTS.match(key))
    share = experts / max(sum(decoder.values()), 1)
    if share > _WITHOUT_EXPERTS:
        raise UsageError(
            f"--quant {quant} would leave {share:.0%} of the decoder of {name} as it is: its experts"
            " are no linear layers",
            "spread the model with --device-map auto, or take a checkpoint that is quantised",
        )


def quantization_config(quant: str, dtype: torch.dtype) -> Any:
    """What transformers quantises by while it loads."""
    import transformers

    skip = list(LEFT_ALONE)
    if quant == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return transformers.TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=skip)
    if quant == "bnb-8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skip,
    )


def settle(thinker: Any) -> None:
    """Keep bitsandbytes from saying at every layer of every token that its 8-bit product is in half precision."""
    if getattr(thinker, "is_loaded_in_8bit", False):
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


# Checkpoints that are quantised already


def read_quantization(config: Config, thinker: Config) -> Config | None:
    """The quantisation that a checkpoint's config.json names, wherever it does; None if it does not.

    Raises:
        ModelError: It is not an object.
    """
    for part in (thinker, thinker.get("text_config"), config):
        found = part.get("quantization_config") if isinstance(part, Mapping) else None
        if found is not None and not isinstance(found, Mapping):
            raise ModelError("config.json: quantization_config is not a JSON object", "fetch the checkpoint again")
        if found:
            return found
    return None


def _method(config: Config) -> str:
    named = config.get("quant_method")
    bnb = config.get("load_in_4bit") or config.get("load_in_8bit")
    return "bitsandbytes" if bnb else str(named)


def describe(config: Config) -> str:
    """In a word: ``awq-4bit``."""
    method = _method(config)
    if method == "bitsandbytes":
        return "bitsandbytes-4bit" if config.get("load_in_4bit") else "bitsandbytes-8bit"
    return f"{method}-{config['bits']}bit" if isinstance(config.get("bits"), int) else method


def _under_thinker(name: str, prefix: str) -> list[str]:
    """A module's name in the thinker alone, as transformers has it before 5.18 and after."""
    own = name.removeprefix(prefix)
    inner = own.removeprefix("model.")
    if own.startswith("re:"):
        return [own]
    return [own, f"model.{own}"] if inner == own else [own, f"model.language_model.{inner}"]


def for_thinker(config: Config, prefix: str) -> dict[str, Any]:
    """The same, with names of modules as the thinker alone has them.

    Args:
        config: ``quantization_config`` of a config.json.
        prefix: Of the thinker in names.
    """
    made = dict(config)
    for key, value in config.items():
        if isinstance(value, str) and value.startswith(prefix):
            made[key] = value.removeprefix(prefix)
        elif key in _NAMES_LEFT_ALONE and isinstance(value, list):
            made[key] = [one for name in value for one in _under_thinker(str(name), prefix)]
    return made


def check_known(config: Config, name: str) -> None:
    """See that transformers knows the quantisation of a checkpoint; without it, it would pass over it.

    Raises:
        ModelError: It does not, or its files cannot be read by what reads ours.
    """
    import transformers
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    method = _method(config)
    if method == "torchao":
        raise ModelError(
            f"{name} is quantised with torchao, whose files cannot be read",
            "take the model it was made of, with --quant torchao-int8",
        )
    if method == "bitsandbytes":
        with suppress(Exception):  # transformers says what is missing
            import_library("bitsandbytes")
    elif method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        problem = (
            f"{name} is quantised with {method!r}, which transformers {transformers.__version__} does not know"
        )
        raise ModelError(problem, "take the model it was made of")


def cannot_load(config: Config, name: str, error: Exception) -> ModelError:
    """Say why a checkpoint that is quantised already did not load."""
    method = _method(config)
    if isinstance(error, ImportError) and method in _NEEDS:
        needs = _NEEDS[method].strip("'").replace("seats-cli[bnb]", "bitsandbytes").replace(" ", " and ")
        return ModelError(
            f"{name} is quantised with {method}, which needs {needs}", f"pip install -U {_NEEDS[method]}"
        )
    kind = "" if isinstance(error, ImportError | RuntimeError | ValueError) else f"{type(error).__name__}: "
    return ModelError(
        f"{name} is quantised with {method} and cannot be loaded: {kind}{error}",
        "see what that quantisation needs, or take the model it was made of",
    )
