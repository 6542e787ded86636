"""Help, version and completion: at once, complete, and true."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from seats_cli import __version__
from seats_cli.cli.app import COMMANDS, EPILOG
from seats_cli.cli.options import KNOWN_MODELS, MethodName
from seats_cli.config import SHIPPED_MODEL
from seats_cli.models import FAMILIES
from seats_cli.selection import METHODS
from tests.cli.conftest import environment

HEAVY = ("torch", "torchvision", "transformers", "av", "soundfile", "numpy", "huggingface_hub", "pydantic")
PROBE = f"""
import sys
sys.argv = ["seats", *sys.argv[1:]]
from seats_cli.cli.app import main
try:
    main()
finally:
    sys.stderr.write("\\nimported: " + " ".join(name for name in {HEAVY!r} if name in sys.modules))
"""
ENVIRONMENT = """
    MODEL REVISION DTYPE DEVICE DEVICE_MAP ATTN OFFLINE FPS MAX_FRAMES MIN_PIXELS MAX_PIXELS AUDIO METHOD TRR
    KV_CACHE MAX_NEW_TOKENS REPORT
"""


def probe(*arguments: str, **more: str) -> tuple[str, str]:
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        env=environment(**more),
        timeout=120,
        check=True,
    )
    return ended.stdout, ended.stderr.rpartition("imported: ")[2]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["ask", "--help"], ["profile", "-h"], ["eval", "-h"], ["plan", "-h"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments):
    out, imported = probe(*arguments)
    assert imported == ""
    assert out


def test_completion_imports_nothing_that_computes():
    out, imported = probe(_SEATS_COMPLETE="complete_bash", COMP_WORDS="seats ask --model ", COMP_CWORD="3")
    assert out.split() == list(KNOWN_MODELS)
    assert not set(imported.split()) & {"torch", "transformers", "av", "numpy"}


def test_version(seats):
    assert seats("--version").out == f"seats {__version__}\n"


def test_no_arguments_is_help_and_a_usage_error(seats):
    ended = seats()
    assert ended.code == 2
    assert ended.out == ""
    assert all(f"\n  {name} " in ended.err for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_the_exit_codes(seats, command):
    ended = seats(command, "--help")
    assert ended.code == 0
    assert EPILOG.split() == ended.out.split()[-len(EPILOG.split()) :]


def test_help_is_in_sections_and_names_values_defaults_and_variables(seats):
    text = seats("ask", "--help").out
    for section in ("Arguments", "Model", "Media", "Token selection", "Answer", "Output", "Options"):
        assert f"\n{section}:\n" in text
    for values in (
        "auto|float32|float16|bfloat16",
        "auto|sdpa|flash_attention_2|eager",
        "auto|on|off",
        "seats|full|random",
        "1|12|123",
        "query|uniform",
        "staged|text",
        "previous|next",
        "none|standard",
        "full|short|none",
    ):
        assert values in text
    assert all(f"SEATS_{name}" in text for name in ENVIRONMENT.split())
    assert "default: Qwen/Qwen2.5-Omni-7B" in " ".join(text.split())


@pytest.mark.parametrize("columns", [40, 60, 200])
@pytest.mark.parametrize("command", ["ask", "plan", "profile", "eval"])
def test_help_fits(seats, monkeypatch, columns, command):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = seats(command, "--help").out
    too_long = [line for line in text.splitlines() if len(line) > columns]
    # A name and its values cannot be broken.
    assert all(line.startswith("  --") and " " not in line.split(None, 1)[1] for line in too_long)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["frob"], "No such command 'frob'"),
        (["--frob"], "No such option"),
        (["ask", "--frob"], "No such option"),
        (["profile", "a", "b"], "Got unexpected extra argument"),
        (["ask"], "Missing argument 'MEDIA... QUESTION'"),
        (["ask", "--model"], "Option '--model' requires an argument"),
    ],
)
def test_what_is_not_known_is_one_line_and_where_to_look(seats, arguments, complaint):
    ended = seats(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.complaint.startswith(complaint)
    known = [name for name in arguments[:1] if name in COMMANDS]
    assert ended.hint == " ".join(["see: seats", *known, "--help"])


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("--method", ["seats", "full", "random"]),
        ("--stages", ["1", "12", "123"]),
        ("--window-budgets", ["query", "uniform"]),
        ("--kv-cache", ["staged", "text"]),
        ("--dtype", ["auto", "float32", "float16", "bfloat16"]),
        ("--audio", ["auto", "on", "off"]),
        ("--attn", ["auto", "sdpa", "flash_attention_2", "eager"]),
        ("--report", ["full", "short", "none"]),
        ("--score-with", ["previous", "next"]),
        ("--score-norm", ["none", "standard"]),
    ],
)
def test_values_of_an_enumeration_are_completed_and_no_others_taken(seats, monkeypatch, option, allowed):
    ended = seats("ask", option, "other", "clip.mp4", "What?")
    assert ended.code == 2
    assert "'other' is not one of" in ended.complaint
    assert all(f"'{value}'" in ended.complaint for value in allowed)
    monkeypatch.setenv("_SEATS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"seats ask {option} ")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert seats().out.split() == allowed


@pytest.mark.parametrize("value", ["abc", "1,5", ""])
@pytest.mark.parametrize("option", ["--trr", "--fps", "--video-trr", "--max-frames", "--seed", "--selection-seed"])
def test_a_number_that_is_none_is_named(seats, option, value):
    ended = seats("ask", option, value, "clip.mp4", "What?")
    assert ended.code == 2
    assert f"{value!r} is not a" in ended.complaint


def test_an_option_is_completed(seats, monkeypatch):
    monkeypatch.setenv("_SEATS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "seats profile --w")
    monkeypatch.setenv("COMP_CWORD", "2")
    words = ["--warmup", "--weights", "--window-budgets", "--window-temperature"]
    assert sorted(seats().out.split()) == words


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o default"), ("zsh", "#compdef seats"), ("fish", "--command seats")]
)
def test_the_completion_script_of_a_shell(seats, monkeypatch, shell, sign):
    monkeypatch.setenv("_SEATS_COMPLETE", "")
    ended = seats("--show-completion", shell)
    assert ended.code == 0
    assert sign in ended.out
    assert "_SEATS_COMPLETE" in ended.out


def test_the_names_on_the_command_line_are_those_there_are():
    assert set(get_args(MethodName)) == set(METHODS)
    assert set(KNOWN_MODELS) == {SHIPPED_MODEL, *(name for family in FAMILIES.values() for name in family.named)}


@pytest.mark.parametrize("command", ["ask", "eval", "plan", "probe", "profile"])
def test_quiet_means_the_same_everywhere(seats, command):
    lines = [" ".join(line.split()) for line in seats(command, "--help").out.splitlines()]
    assert "-q, --quiet Nothing but errors on stderr." in lines
