"""How weights are moved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_MUON_FACTOR = 4.0


class Optimizer:
    """Muon for the matrices of the deep layers, AdamW for everything else.

    With AdamW alone, names found what they meant as fast, but answers came several times later.

    Args:
        deep: Modules whose matrices Muon moves.
        modules: Everything that is trained; the deep ones may be among them.
        state: Of an earlier optimizer.
    """

    def __init__(
        self, deep: Iterable[nn.Module], modules: Iterable[nn.Module], state: dict[str, Any] | None = None
    ) -> None:
        matrices = [value for module in deep for value in module.parameters() if value.ndim == 2]
        known = {id(value) for value in matrices}
        others = [value for module in modules for value in module.parameters() if id(value) not in known]
        self.parameters = [*others, *matrices]
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.05)
        self.muon = torch.optim.Muon(matrices, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
        if state is not None:
            self.adamw.load_state_dict(state["adamw"])
            self.muon.load_state_dict(state["muon"])

    def step(self, loss: Tensor, rate: float) -> None:
        """One step down a loss, at a learning rate."""
        for optimizer, factor in ((self.adamw, 1.0), (self.muon, _MUON_FACTOR)):
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adamw.step()
        self.muon.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """To go on from."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}
