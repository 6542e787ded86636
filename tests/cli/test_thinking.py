"""Models that reason, through the command line: the answer alone on stdout, the reasoning where it is wanted.

The models are random ones with one row of the head changed: where they would write a certain character they write
a mark. So what they say is their own, and where the reasoning ends is known.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seats_cli import GenerationOptions, Report, Seats
from seats_cli.engine.thinking import SKIPPED
from tests.cli.contract import ASK, check
from tests.tiny import write_tiny_checkpoint
from tests.tiny_processor import printable_ids, thinking_ids

QUESTION = "What?"
N_TOKENS = 24
EARLIEST = 4
HEAD = "thinker.lm_head.weight"


def write_checkpoint(folder: Path, kind: str) -> Path:
    return write_tiny_checkpoint(
        folder, n_layers=6, shards=1, dtype=torch.float32, talker=False, thinking=kind, seed=5
    )


def said(folder: Path, clip: Path) -> Report:
    generation = GenerationOptions(max_new_tokens=N_TOKENS)
    return Seats(folder, device="cpu", generation=generation).ask(clip, QUESTION)


def say_instead(folder: Path, char: str, mark: int) -> None:
    """Write a mark where this character would be the likeliest."""
    weights = load_file(folder / "model.safetensors")
    symbol = next(token for token in printable_ids() if tokenizer_of(folder)[token] == char)
    weights[HEAD][mark] = weights[HEAD][symbol] * 1.0001
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def tokenizer_of(folder: Path) -> dict[int, str]:
    symbols = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return {token: symbol for symbol, token in symbols.items()}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory, clips) -> tuple[Path, str]:
    """A model whose prompt opens reasoning, and what it reasons before it closes it."""
    folder = write_checkpoint(tmp_path_factory.mktemp("thinker"), "opens")
    whole = said(folder, clips / "clip.mp4").thinking or ""
    place = next(i for i in range(EARLIEST, len(whole)) if whole[i] not in whole[:i] and whole[i] != " ")
    say_instead(folder, whole[place], thinking_ids()[1])
    return folder, whole[:place].strip()


@pytest.fixture
def ask(seats, thinker):
    """With the model that reasons."""

    def call(*arguments, n=N_TOKENS, model=thinker[0], **more):
        return seats("ask", *arguments, "-m", model, "--device", "cpu", "--max-new-tokens", n, **more)

    return call


def found_in(ended) -> dict:
    (line,) = ended.out.splitlines()
    found = json.loads(line)
    check(found, ASK)
    return found


def test_the_answer_alone_is_on_stdout(ask, thinker, clips):
    ended = ask(clips / "clip.mp4", QUESTION)
    found = found_in(ask(clips / "clip.mp4", QUESTION, "--json"))
    assert ended.code == 0
    assert found["thinking"] == thinker[1]
    assert found["answer"]
    assert ended.out == found["answer"] + "\n"
    assert found["answer_tokens"] + found["thinking_tokens"] <= N_TOKENS
    assert thinker[1] not in ended.err
    assert f"{found['thinking_tokens']} tokens of reasoning" in ended.err
    assert Report.from_json(json.dumps(found)).thinking == thinker[1]


def test_the_reasoning_on_stderr_if_wanted(ask, thinker, clips, monkeypatch):
    plain = ask(clips / "clip.mp4", QUESTION)
    ended = ask(clips / "clip.mp4", QUESTION, "--show-thinking", "-q")
    assert ended.out == plain.out
    assert ended.err == thinker[1] + "\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    ended = ask(clips / "clip.mp4", QUESTION, "--show-thinking", "-q")
    assert ended.out == plain.out
    assert ended.err.startswith("\x1b[2m")
    assert ended.err.replace("\x1b[2m", "").replace("\x1b[0m", "") == thinker[1] + "\n"


def test_several_clips_have_a_line_each(ask, thinker, clips):
    paths = [clips / "clip.mp4", clips / "silent.mp4"]
    objects = [json.loads(line) for line in ask(*paths, QUESTION, "--json").out.splitlines()]
    ended = ask(*paths, QUESTION, "--show-thinking", "--report", "none")
    answers = [" ".join(one["answer"].split()) for one in objects]
    assert ended.out.splitlines() == [f"{path}\t{text}" for path, text in zip(paths, answers, strict=True)]
    assert objects[0]["thinking"] == thinker[1]
    for path, one in zip(paths, objects, strict=True):
        assert f"{path}\n{one['thinking']}\n" in ended.err


@pytest.mark.parametrize("extra", [[], ["--show-thinking"]])
def test_no_length_is_left_for_the_answer(ask, thinker, clips, extra):
    ended = ask(clips / "clip.mp4", QUESTION, *extra, n=3)
    assert (ended.code, ended.out) == (0, "")
    assert "the reasoning took 3 tokens and was not over: raise --max-new-tokens" in " ".join(ended.err.split())
    assert (thinker[1][:2] in ended.err) == bool(extra)
    found = found_in(ask(clips / "clip.mp4", QUESTION, "--json", n=3))
    assert (found["answer"], found["answer_tokens"], found["finish_reason"]) == ("", 0, "length")
    assert (thinker[1].startswith(found["thinking"]), found["thinking_tokens"]) == (True, 3)


def test_ctrl_c_while_it_reasons(ask, thinker, clips, monkeypatch):
    from seats_cli.engine import decode

    real, steps = decode.StaticSteps.advance, iter(range(3))

    def step(*arguments):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(decode.StaticSteps, "advance", step)
    ended = ask(clips / "clip.mp4", QUESTION, "--json", "-q")
    found = found_in(ended)
    assert ended.code == 130
    assert (found["answer"], found["finish_reason"], found["thinking_tokens"]) == ("", "interrupted", 4)
    assert thinker[1].startswith(found["thinking"])
    assert found["warnings"][-1] == "the reasoning took 4 tokens and was not over"


def test_an_opening_mark_of_its_own(ask, clips, tmp_path):
    """The first token is the mark; the template says nothing of it."""
    folder = write_checkpoint(tmp_path, "neither")
    whole = said(folder, clips / "clip.mp4")
    assert whole.thinking is None
    say_instead(folder, whole.answer[0], thinking_ids()[0])
    found = found_in(ask(clips / "clip.mp4", QUESTION, "--json", model=folder))
    assert (found["answer"], found["answer_tokens"]) == ("", 0)
    assert found["thinking"]
    ended = ask(clips / "clip.mp4", QUESTION, model=folder)
    assert ended.out == ""


def test_labels_are_scored_after_an_empty_block(ask, clips):
    found = found_in(ask(clips / "clip.mp4", "Which?", "--choices", "A,B,C", "--json"))
    assert found["warnings"] == [SKIPPED]
    assert (found["thinking"], found["thinking_tokens"]) == (None, 0)
    ended = ask(clips / "clip.mp4", "Which?", "--choices", "A,B,C")
    assert ended.out == found["answer"] + "\n"
    assert f"warning: {SKIPPED}" in " ".join(ended.err.split())


def test_no_thinking_needs_a_switch(ask, seats, checkpoint, clips, tmp_path):
    for extra in ([], [clips / "silent.mp4"]):
        ended = ask(clips / "clip.mp4", *extra, QUESTION, "--no-thinking")
        assert (ended.code, ended.out) == (2, "")
        assert "--no-thinking: this model's chat template has no such switch" in ended.err.splitlines()[-2]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"media": str(clips / "clip.mp4"), "question": QUESTION, "answer": "x"}) + "\n")
    assert seats("eval", rows, "-m", checkpoint, "--device", "cpu", "--no-thinking").code == 2
    folder = write_checkpoint(tmp_path / "switch", "opens, switch")
    found = found_in(ask(clips / "clip.mp4", QUESTION, "--no-thinking", "--json", model=folder))
    assert found["thinking"] is None
    assert found["answer"]
    ended = seats("eval", rows, "-m", folder, "--device", "cpu", "--no-thinking", "--json", "-q", "--limit", 1)
    assert ended.code == 0
    assert json.loads(ended.out)["generation"]["thinking"] is False


def test_an_evaluation_keeps_the_reasoning_with_the_row(seats, thinker, clips, tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    answer = said(thinker[0], clips / "clip.mp4").answer
    rows.write_text(json.dumps({"media": str(clips / "clip.mp4"), "question": QUESTION, "answer": answer}) + "\n")
    model = ("-m", thinker[0], "--device", "cpu", "--max-new-tokens", N_TOKENS)
    ended = seats("eval", rows, *model, "--json", "-q", "-o", out)
    assert json.loads(ended.out)["accuracy"] == 1
    found = json.loads(out.read_text())
    assert (found["answer"], found["thinking"]) == (answer, thinker[1])
