"""What a checkpoint's config fixes, without its weights: from a folder, the cache or the Hub."""

from __future__ import annotations

from seats_cli.config import ModelOptions
from seats_cli.models import family_of
from seats_cli.models.base import ModelSpec, OmniModel
from seats_cli.models.checkpoint import find_config
from seats_cli.models.settings import with_settings


def spec_of_checkpoint(options: ModelOptions) -> tuple[type[OmniModel], ModelSpec]:
    """The family of a checkpoint and its dimensions, with its own settings.

    Raises:
        ModelError: It is missing, unreachable or of an unknown kind.
    """
    model_type, config, settings = find_config(options)
    family = family_of(model_type)
    return family, with_settings(family.spec_of(options.model, config), settings)
