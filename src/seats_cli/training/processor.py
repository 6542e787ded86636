"""Tokenizer and processor files of a small Qwen2.5-Omni checkpoint, in the layout of the published ones.

The tokenizer is byte-level BPE: the 256 byte symbols, merges, then the special tokens, in the published order and
without gaps. Any text can be written with it; words it has merges for are single tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
SYSTEM_PROMPT = "You are a helpful assistant."
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\n" + SYSTEM_PROMPT + "<|im_end|>\\n' -}}"
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

ROLE_MERGES = tuple((word[:end], word[end]) for word in ROLES for end in range(1, len(word)))
"""The merges that build each role from the left: u+s, us+e, use+r, ..."""


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer knows.

    Attributes:
        merges: Pairs of symbols, the most important first.
    """

    merges: tuple[tuple[str, str], ...] = ROLE_MERGES

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Token -> id without the special tokens: byte symbols by code point, then what the merges make."""
        from tokenizers.pre_tokenizers import ByteLevel

        made = [left + right for left, right in self.merges]
        return {
            symbol: index for index, symbol in enumerate(dict.fromkeys([*sorted(ByteLevel.alphabet()), *made]))
        }

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ids of the special tokens and of the chat roles, by text."""
        ids = {token: len(self.symbols) + index for index, token in enumerate(SPECIAL_TOKENS)}
        return ids | {role: self.symbols[role] for role in ROLES}

    @property
    def size(self) -> int:
        """Rows of the embedding: the tokens, rounded up to a multiple of 64, so a few rows have no token."""
        return -(-(len(self.symbols) + len(SPECIAL_TOKENS)) // 64) * 64

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Vocabulary:
        """One that has a token of its own for every word of some texts."""
        from tokenizers import Tokenizer, models, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = _pre_tokenizer()
        trainer = trainers.BpeTrainer(vocab_size=1 << 16, min_frequency=1, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(tuple((left, right) for left, right in merges))


def _pre_tokenizer() -> Any:
    from tokenizers import Regex, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, vocabulary: Vocabulary) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary.symbols, merges=list(vocabulary.merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "vocab.json", vocabulary.symbols)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in vocabulary.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(vocabulary))


def _tokenizer_config(vocabulary: Vocabulary) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    ids = vocabulary.ids
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


def write_processor_files(folder: Path, vocabulary: Vocabulary | None = None) -> None:
    """Write tokenizer, feature extractors, chat template and generation defaults into ``folder``."""
    vocabulary = vocabulary or Vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, vocabulary)
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
    ids = vocabulary.ids
    generation = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    _write_json(folder / "generation_config.json", generation)
