"""Model families. ``FAMILIES`` maps a Hugging Face ``model_type`` to the one class that knows it."""

from __future__ import annotations

from seats_cli.errors import ModelError
from seats_cli.models.base import Config, ModelSpec, OmniModel
from seats_cli.models.qwen2_5_omni import Qwen25Omni
from seats_cli.models.qwen3_omni_moe import Qwen3Omni

FAMILIES: dict[str, type[OmniModel]] = {family.model_type: family for family in (Qwen25Omni, Qwen3Omni)}

__all__ = ["FAMILIES", "Config", "ModelSpec", "OmniModel", "family_of", "named_architecture"]


def family_of(model_type: str) -> type[OmniModel]:
    """The family of a checkpoint.

    Raises:
        ModelError: There is none.
    """
    base = model_type.removesuffix("_thinker")
    if base not in FAMILIES:
        raise ModelError(
            f"model type {model_type!r} is not supported", f"supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[base]


def named_architecture(name: str) -> tuple[type[OmniModel], Config]:
    """Family and true thinker config of a known checkpoint, by Hub id (or its last part), without a download.

    Raises:
        ModelError: The name is not known.
    """
    known = {hub_id: family for family in FAMILIES.values() for hub_id in family.named}
    for hub_id, family in known.items():
        if name.lower() in (hub_id.lower(), hub_id.lower().split("/")[-1]):
            return family, family.named[hub_id]
    raise ModelError(f"no architecture is known as {name!r}", f"known: {', '.join(known)}")
