"""Set-up for every test: no network, one thread (tiny tensors are slower on several)."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
GPU_PROMISED = os.environ.get("SEATS_GPU") == "1"
"""Whoever runs ``tests/gpu`` says that there is one: without it they fail, and are not skipped."""
for name in [name for name in os.environ if name.startswith("SEATS_") and name != "SEATS_GPU"]:
    del os.environ[name]
# No configuration of whoever runs the tests, and none of the folder they are run in.
os.environ["SEATS_CONFIG"] = ""

import torch

torch.set_num_threads(1)
