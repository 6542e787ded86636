"""The keys and types of docs/report.md, as a JSON reader sees them."""

from __future__ import annotations

from numbers import Number
from typing import Any

NUMBER = (int, float)
MAYBE = (int, float, type(None))

MODEL = {
    "id": str,
    "revision": (str, type(None)),
    "weights": str,
    "dtype": str,
    "device": str,
    "attention": str,
    "quant": (str, type(None)),
}
MEDIA = {
    "path": (str, type(None)),
    "seconds_video": NUMBER,
    "seconds_audio": NUMBER,
    "frames": int,
    "fps": MAYBE,
    "audio_track": bool,
    "width": (int, type(None)),
    "height": (int, type(None)),
    "grids": int,
    "windows": int,
    "cached": bool,
}
SELECTION = {
    "method": str,
    "trr": MAYBE,
    "video_trr": MAYBE,
    "audio_trr": MAYBE,
    "achieved_trr": MAYBE,
    "drop_before_layer": [int],
    "kv_cache": str,
    "stage_one": {"video": int, "audio": int},
    "stages": (str, type(None)),
    "window_budgets": (str, type(None)),
    "selection_seed": (int, type(None)),
}
TOKENS = {
    "text": int,
    "video": int,
    "audio": int,
    "per_layer": [{"layer": int, "text": int, "video": int, "audio": int}],
}
PAIR = {"full": int, "pruned": int, "reduction": NUMBER}
FLOPS = {"paper": PAIR, "executed": PAIR, "encoders_executed": int, "selection_executed": int}
STAGES = ("decode", "encode", "select", "prefill", "first_token")
VERSIONS = {"seats": str, "torch": (str, type(None)), "transformers": (str, type(None))}

ASK = {
    "schema_version": int,
    "command": str,
    "question": str,
    "answer": str,
    "finish_reason": str,
    "answer_tokens": int,
    "thinking": (str, type(None)),
    "thinking_tokens": int,
    "decode_path": (str, type(None)),
    "choices": [{"label": str, "probability": NUMBER}],
    "model": MODEL,
    "media": MEDIA,
    "selection": SELECTION,
    "tokens": TOKENS,
    "flops": FLOPS,
    "seconds": {**dict.fromkeys(STAGES, NUMBER), "answer": NUMBER},
    "memory_bytes": (int, type(None)),
    "versions": VERSIONS,
    "warnings": [str],
}
FAILED = {
    "schema_version": int,
    "command": str,
    "question": str,
    "media": {"path": str},
    "error": {"message": str, "hint": str, "kind": str, "exit_code": int},
}
PROFILE = {
    "schema_version": int,
    "command": str,
    "model": MODEL,
    "workload": {
        "source": str,
        "frames": int,
        "seconds": NUMBER,
        "grids": int,
        "tokens_per_grid": int,
        "text_tokens": int,
        "video_tokens": int,
        "audio_tokens": int,
    },
    "schedule": {"layers": int, "drop_before_layer": [int], "scale": NUMBER, "temperature": MAYBE},
    "runs": int,
    "warmup": int,
    "note": str,
    "settings_measured": [
        {
            "label": str,
            "selection": SELECTION,
            "tokens": TOKENS,
            "flops": FLOPS,
            "seconds": dict.fromkeys(STAGES, MAYBE),
            "spread": dict,
            "memory_bytes": (int, type(None)),
            "speedup": dict.fromkeys(("prefill", "select_and_prefill", "encode_and_prefill"), MAYBE),
        }
    ],
    "versions": VERSIONS,
    "warnings": [str],
}

PLANNED_BYTES = (
    *("weights", "weights_decoder", "weights_encoders", "embeddings", "kv_cache", "answer_room", "libraries"),
    *("least", "expected"),
)
PLAN = {
    "schema_version": int,
    "command": str,
    "model": MODEL,
    "media": MEDIA,
    "selection": SELECTION,
    "tokens": TOKENS,
    "text_counted": str,
    "flops": FLOPS,
    "max_new_tokens": int,
    "memory": {
        **dict.fromkeys(PLANNED_BYTES, int),
        "peak_stage": str,
        "available": (int, type(None)),
        "fits": (bool, type(None)),
    },
    "seconds": (dict, type(None)),
    "rates": (dict, type(None)),
    "versions": VERSIONS,
    "warnings": [str],
}
PLAN_TOTAL = {
    "schema_version": int,
    "command": str,
    **dict.fromkeys(("clips", "failed", "frames", "tokens", "tokens_into_llm", "paper_full", "paper_pruned"), int),
    **dict.fromkeys(("encoders_executed", "do_not_fit", "warnings"), int),
    **dict.fromkeys(("least_bytes", "expected_bytes"), (int, type(None))),
    **dict.fromkeys(("seconds_first_token", "seconds_answer"), MAYBE),
}


def check(value: Any, shape: Any, place: str = "") -> None:
    """Every key is there and of its type; keys that the contract does not name may be there too."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), place
        for key, inside in shape.items():
            assert key in value, f"{place}.{key}"
            check(value[key], inside, f"{place}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), place
        for index, item in enumerate(value):
            check(item, shape[0], f"{place}[{index}]")
    else:
        assert isinstance(value, shape), f"{place}: {value!r}"
        # JSON's true is not a number.
        may_be = shape if isinstance(shape, tuple) else (shape,)
        assert bool in may_be or not (isinstance(value, bool) and issubclass(bool, Number)), place
