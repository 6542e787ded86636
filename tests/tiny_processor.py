"""Tokenizer and processor files of a tiny Qwen2.5-Omni checkpoint, in the layout of the published ones.

The tokenizer is byte-level BPE: the 256 byte symbols, the few merges that make the chat roles single tokens
(as in the published vocabulary), then the special tokens, in the published order and without gaps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROLES = ("user", "system", "assistant")
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
)
NAMED_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for item in message['content'] -%}"
    "{%- if item['type'] == 'video' or 'video' in item -%}{{- '<|vision_bos|><|VIDEO|><|vision_eos|>' -}}"
    "{%- elif item['type'] == 'image' or 'image' in item -%}{{- '<|vision_bos|><|IMAGE|><|vision_eos|>' -}}"
    "{%- elif item['type'] == 'audio' or 'audio' in item -%}{{- '<|audio_bos|><|AUDIO|><|audio_eos|>' -}}"
    "{%- elif 'text' in item -%}{{- item['text'] -}}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def _merges() -> list[tuple[str, str]]:
    """The merges that build each role from the left: u+s, us+e, use+r, ..."""
    return [(word[:end], word[end]) for word in ROLES for end in range(1, len(word))]


def byte_vocabulary() -> dict[str, int]:
    """Token -> id without the special tokens: byte symbols by code point, then what the merges make."""
    from tokenizers.pre_tokenizers import ByteLevel

    symbols = sorted(ByteLevel.alphabet()) + [left + right for left, right in _merges()]
    return {symbol: index for index, symbol in enumerate(symbols)}


def token_ids() -> dict[str, int]:
    """Ids of the special tokens and of the chat roles, by text."""
    vocabulary = byte_vocabulary()
    ids = {token: len(vocabulary) + index for index, token in enumerate(SPECIAL_TOKENS)}
    return ids | {role: vocabulary[role] for role in ROLES}


def vocabulary_size() -> int:
    """Rows of the embedding: the tokens, rounded up to a multiple of 64, so a few rows have no token."""
    return -(-(len(byte_vocabulary()) + len(SPECIAL_TOKENS)) // 64) * 64


def printable_ids() -> list[int]:
    """Ids of what can be read: one printable ASCII character, space, line feed; and of the end of a turn."""
    vocabulary = byte_vocabulary()
    readable = [symbol for symbol in vocabulary if len(symbol) == 1 and "!" <= symbol <= "~"] + ["Ġ", "Ċ"]
    return sorted([*(vocabulary[symbol] for symbol in readable), token_ids()["<|im_end|>"]])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    vocabulary, merges = byte_vocabulary(), _merges()
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())


def _tokenizer_config() -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    ids = token_ids()
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(ids[token]): {"content": token, **flags} for token in SPECIAL_TOKENS},
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "extra_special_tokens": NAMED_TOKENS,
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen2_5OmniProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def tiny_processor_files(folder: Path) -> None:
    """Write tokenizer, feature extractors, chat template and generation defaults into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder)
    vision = {
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "max_pixels": 12845056,
        "merge_size": 2,
        "min_pixels": 3136,
        "patch_size": 14,
        "temporal_patch_size": 2,
    }
    audio = {
        "chunk_length": 300,
        "dither": 0.0,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 128,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 4800000,
        "nb_max_frames": 30000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": 16000,
    }
    kinds = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5OmniProcessor"}
    _write_json(folder / "preprocessor_config.json", {**vision, **audio, **kinds})
    _write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    ids = token_ids()
    generation = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    _write_json(folder / "generation_config.json", generation)
