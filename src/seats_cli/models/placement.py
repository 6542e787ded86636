"""Where the weights of a thinker go: one device, or several with CPU memory and disk behind them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seats_cli.config import SPREADING_MAPS, ModelOptions, parse_max_memory
from seats_cli.errors import UsageError, counted

if TYPE_CHECKING:
    import torch

FREE_SHARE = 0.9
"""Of a device's free memory, what weights may take where the user set no limit; the rest is for the work."""

Limits = dict[int | str, int]


def choose_device(name: str, option: str = "--device") -> torch.device:
    """``auto`` is the first GPU, or the CPU.

    Args:
        name: As the user gave it.
        option: Where, for the error.

    Raises:
        UsageError: The device does not exist here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"{option} {name!r} is not a device", "try auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{option} {name}: {counted(torch.cuda.device_count(), 'GPU')} here", "see: seats doctor")
    try:
        holds_data = not torch.empty(1, device=device).is_meta
    except (RuntimeError, AssertionError, NotImplementedError):  # not built for it, or no driver
        holds_data = False
    if not holds_data:
        raise UsageError(f"{option} {name} cannot be used here", "see: seats doctor")
    return device


@dataclass(frozen=True, slots=True)
class Placement:
    """Where weights may go.

    Attributes:
        device: Where inputs go first.
        device_map: As accelerate takes it.
        max_memory: Bytes by GPU and for ``cpu``; None: transformers decides.
        offload_folder: For what fits nowhere else; None: nothing may go there.
    """

    device: torch.device
    device_map: Any
    max_memory: Limits | None = None
    offload_folder: Path | None = None

    @property
    def spreads(self) -> bool:
        """Whether there may be more than one place."""
        return isinstance(self.device_map, str)


def _limits(options: ModelOptions) -> Limits | None:
    """What was asked for, and of the places not named what is free; None: transformers' own choice.

    What is quantised cannot wait in CPU memory for a GPU, so nothing is left there.

    Raises:
        UsageError: A GPU that was named does not exist.
    """
    import torch

    quantised_on_gpu = options.quant != "none" and torch.cuda.is_available()
    if options.max_memory is None and not quantised_on_gpu:
        return None
    asked = {} if options.max_memory is None else parse_max_memory(options.max_memory)
    n_gpus = torch.cuda.device_count()
    absent = [place for place in asked if isinstance(place, int) and place >= n_gpus]
    if absent:
        raise UsageError(f"--max-memory names GPU {absent[0]}: {counted(n_gpus, 'GPU')} here", "see: seats doctor")
    from accelerate.utils import get_max_memory

    free = {place: int(FREE_SHARE * n_bytes) for place, n_bytes in get_max_memory().items()}
    return {**free, **asked, **({"cpu": 0} if quantised_on_gpu else {})}


def place(options: ModelOptions) -> Placement:
    """Where the options want the weights.

    Raises:
        UsageError: A device does not exist here, or the folder cannot be one.
    """
    if options.device_map is None:
        device = choose_device(options.device)
        return Placement(device, {"": device})
    if options.device_map not in SPREADING_MAPS:
        device = choose_device(options.device_map, "--device-map")
        return Placement(device, {"": device})
    folder = None if options.offload_folder is None else Path(options.offload_folder).expanduser()
    return Placement(choose_device("auto"), options.device_map, _limits(options), folder)


@contextmanager
def offload_folder(placement: Placement) -> Iterator[Path | None]:
    """A new folder in the one for offloading, removed if loading fails; whoever loads removes it in the end.

    Runs do not share what they write, and nothing is left behind.

    Raises:
        UsageError: It cannot be written to.
    """
    if placement.offload_folder is None:
        yield None
        return
    try:
        placement.offload_folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="seats-", dir=placement.offload_folder))
    except OSError as error:
        raise cannot_write(placement.offload_folder, error) from error
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def cannot_write(folder: Path, error: Exception) -> UsageError:
    """Say that weights cannot be written to the folder for offloading."""
    why = getattr(error, "strerror", None) or str(error)
    return UsageError(f"--offload-folder {folder} cannot be written to: {why}", "name a folder with room for it")


def where(thinker: Any, placement: Placement) -> str:
    """Where the weights went, in words: ``cuda:0``, or ``auto (cuda:0, cpu, disk)``."""
    if not placement.spreads:
        return str(placement.device)
    found = dict.fromkeys(getattr(thinker, "hf_device_map", {}).values())
    if len(found) < 2 and "disk" not in found:
        return str(placement.device_map)
    places = [f"cuda:{one}" if isinstance(one, int) else str(one) for one in found]
    return f"{placement.device_map} ({', '.join(places)})"


def uses_disk(thinker: Any) -> bool:
    """Whether some of its weights lie on disk."""
    return "disk" in getattr(thinker, "hf_device_map", {}).values()
