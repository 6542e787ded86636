"""Files in place of options: who goes before whom, what cannot be, and ``seats config show``."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from seats_cli.cli import configuration
from seats_cli.cli.app import COMMANDS, app
from seats_cli.cli.options import KNOWN_MODELS
from seats_cli.report import SCHEMA_VERSION

CONFIGURED = [name for name in COMMANDS if name != "doctor"]
SEVEN, THREE, THIRTY, THINKING, TINY = (
    "Qwen/Qwen2.5-Omni-7B",
    "Qwen/Qwen2.5-Omni-3B",
    "Qwen/Qwen3-Omni-30B-A3B-Instruct",
    "Qwen/Qwen3-Omni-30B-A3B-Thinking",
    "tiny",
)


@dataclass(frozen=True)
class Files:
    """The two files; neither is there until it is written."""

    here: Path
    user: Path

    def write(self, here: str | None = None, user: str | None = None) -> None:
        for path, text in ((self.here, here), (self.user, user)):
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text, encoding="utf-8")


@pytest.fixture
def files(monkeypatch, tmp_path) -> Files:
    (tmp_path / "here").mkdir()
    (tmp_path / "xdg" / "seats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "xdg"))
    monkeypatch.delenv("SEATS_CONFIG")
    return Files(tmp_path / "here" / "seats.toml", tmp_path / "xdg" / "seats" / "config.toml")


def shown(seats, *arguments) -> dict[str, tuple[str, str]]:
    """Value and source by option, as a script reads them."""
    ended = seats("config", "show", "-q", *arguments)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert {len(row) for row in rows} == {3}
    return {option: (value, source) for option, value, source in rows}


def profiled(seats, *arguments) -> dict:
    ended = seats("profile", "--analytic", "--json", *arguments)
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def ratios(seats, *arguments) -> list[str]:
    return [setting["label"] for setting in profiled(seats, *arguments)["settings_measured"][1:]]


# Who goes before whom


def test_flag_before_variable_before_folder_before_user_before_default(seats, files, monkeypatch):
    assert profiled(seats)["model"]["id"] == SEVEN
    files.write(user=f'model = "{THREE}"')
    assert profiled(seats)["model"]["id"] == THREE
    files.write(user=f'model = "{THREE}"', here=f'model = "{THIRTY}"')
    assert profiled(seats)["model"]["id"] == THIRTY
    monkeypatch.setenv("SEATS_MODEL", THINKING)
    assert profiled(seats)["model"]["id"] == THINKING
    assert profiled(seats, "-m", TINY)["model"]["id"] == TINY


@pytest.mark.parametrize(
    "there", [set(some) for n in range(1, 5) for some in itertools.combinations((0, 1, 2, 3), n)]
)
def test_the_nearest_line_holds(seats, files, there):
    """From afar: the user's lines for all, and for a command; the folder's for all, and for a command."""
    lines = [f"max-frames = {10 + place}" if place in there else "" for place in range(4)]
    files.write(user=f"{lines[0]}\n[ask]\n{lines[1]}", here=f"{lines[2]}\n[ask]\n{lines[3]}")
    place = str(files.user) if max(there) < 2 else "./seats.toml"
    assert shown(seats)["max-frames"] == (str(10 + max(there)), place)
    # What is for one command is not for another.
    for_all = there & {0, 2}
    other = shown(seats, "probe")["max-frames"]
    assert other[0] == (str(10 + max(for_all)) if for_all else "768")


def test_an_answer_follows_the_files(seats, files, clips, checkpoint, monkeypatch):
    here = f"model = {json.dumps(str(checkpoint))}\njson = true\n[ask]\nmax_new_tokens = 3"
    files.write(user="max-frames = 2\nseed = 1", here=here)
    ask = ("ask", clips / "clip.mp4", "What?", "-q")
    report = json.loads(seats(*ask).out)
    assert report["media"]["frames"] == 2
    assert report["answer_tokens"] <= 3
    assert report["model"]["id"] == str(checkpoint)
    monkeypatch.setenv("SEATS_MAX_FRAMES", "4")
    assert json.loads(seats(*ask).out)["media"]["frames"] == 4
    assert json.loads(seats(*ask, "--max-frames", "6").out)["media"]["frames"] == 6
    plain = seats(*ask, "--no-json").out
    assert plain
    assert not plain.startswith("{")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trr = 0.2", ["seats R=0.2"]),
        ('trr = "0.2"', ["seats R=0.2"]),
        ("trr = 1", ["seats R=1"]),
        ("trr = [0.2, 0.1]", ["seats R=0.2", "seats R=0.1"]),
        ("trr = 0.2\nstages = 12", ["seats R=0.2 stages=12"]),
        ('trr = 0.2\nmethod = "random"\nselection_seed = 2', ["random R=0.2 selection-seed=2"]),
        ("video-trr = 0.06\naudio-trr = 0.35", ["seats R_v=0.06 R_a=0.35"]),
    ],
)
def test_values_of_every_kind(seats, files, line, expected):
    files.write(here=line)
    assert ratios(seats) == expected


def test_a_schedule_may_be_an_array(seats, files):
    files.write(here="schedule = [16, 18, 20, 24]")
    assert profiled(seats)["schedule"]["drop_before_layer"] == [16, 18, 20, 24]
    files.write(here='schedule = "boundaries.toml"')
    # Relative to the working folder, as on the command line.
    (files.here.parent / "boundaries.toml").write_text("drop_before_layer = [15, 18, 20, 24]")
    assert profiled(seats)["schedule"]["drop_before_layer"] == [15, 18, 20, 24]


def test_a_file_may_say_what_a_command_requires(seats, files):
    assert seats("synth").code == 2
    files.write(here='[synth]\nout = "made"\nn = 1\nformat = "mkv"')
    assert seats("synth").code == 0
    assert [path.suffix for path in sorted((files.here.parent / "made").rglob("*.mkv"))] == [".mkv"]


def test_a_ratio_goes_before_a_pair_that_is_farther_off(seats, files, monkeypatch):
    pair = "video-trr = 0.06\naudio-trr = 0.35\n"
    files.write(user=pair)
    assert ratios(seats, "--trr", "0.2") == ["seats R=0.2"]
    files.write(user=pair, here="trr = 0.2")
    assert ratios(seats) == ["seats R=0.2"]
    files.write(user=f"{pair}[profile]\ntrr = 0.2")
    assert ratios(seats) == ["seats R=0.2"]
    # Beside each other they are as on the command line, and so is a pair that is nearer.
    files.write(user=f"{pair}trr = 0.2")
    assert ratios(seats) == ["seats R_v=0.06 R_a=0.35"]
    files.write(user="trr = 0.2", here=pair)
    assert ratios(seats) == ["seats R_v=0.06 R_a=0.35"]
    assert shown(seats)["video-trr"] == ("0.06", "./seats.toml")
    monkeypatch.setenv("SEATS_TRR", "0.3")
    found = shown(seats)
    assert found["trr"] == ("0.3", "SEATS_TRR")
    assert found["video-trr"] == found["audio-trr"] == ("", "default")


def flags() -> list[tuple[str, str]]:
    root = typer.main.get_command(app)
    return [
        (name, parameter.opts[0])
        for name in COMMANDS
        for parameter in root.commands[name].params
        if getattr(parameter, "is_flag", False)
    ]


@pytest.mark.parametrize(("command", "flag"), flags())
def test_what_a_file_switches_on_the_command_line_switches_off(command, flag):
    opposite = flag.replace("--no-", "--") if flag.startswith("--no-") else flag.replace("--", "--no-", 1)
    shell = typer.main.get_command(app).commands[command]
    (name,) = [parameter.name for parameter in shell.params if flag in parameter.opts]
    lines = {(): True, (opposite,): False, (opposite, flag): True, (flag, opposite): False}
    for arguments, expected in lines.items():
        context = shell.make_context(command, [*arguments], resilient_parsing=True, default_map={name: True})
        assert context.params[name] is expected


# Questions whose answers are known: what is compared


@pytest.fixture
def compared(seats, files, clips, checkpoint):
    """Labels of the settings that ``seats eval`` compares."""
    row = {"media": str(clips / "clip.mp4"), "question": "Which?", "answer": "A", "choices": ["A", "B"]}
    rows = files.here.parent / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n")

    def call(*arguments: str) -> list[str]:
        ended = seats("eval", rows, "-m", checkpoint, "--max-frames", 4, "-q", "--json", *arguments)
        assert (ended.code, ended.err) == (0, "")
        return [result["label"] for result in json.loads(ended.out)["results"]]

    return call


def test_a_ratio_for_all_is_one_for_eval_too(compared, files):
    files.write(here="trr = 0.25")
    assert compared() == ["seats trr=0.25"]
    assert compared("--trr", "0.3") == ["seats trr=0.3"]
    assert compared("--method", "full,seats") == ["full", "seats trr=0.25"]


def test_several_for_eval_alone(compared, files):
    files.write(user="trr = 0.25", here='[eval]\nmethod = ["seats", "full"]\ntrr = [0.3, 0.2]\nkv-cache = "text"')
    text = " kv-cache=text"
    assert compared() == [f"seats trr=0.3{text}", f"seats trr=0.2{text}", "full"]
    files.write(here='[eval]\nsetting = ["full", "stages=1"]')
    assert compared() == ["full", "seats trr=0.1 stages=1"]


def test_a_file_adds_no_setting_to_those_on_the_command_line(compared, files):
    files.write(here='trr = 0.25\nkv_cache = "text"')
    assert compared("-s", "seats trr=0.3", "-s", "full") == ["seats trr=0.3 kv-cache=text", "full"]
    # What a text does not say is as the file has it.
    assert compared("-s", "kv-cache=staged") == ["seats trr=0.25"]
    assert compared("--trr", "0.2", "-s", "stages=1") == [
        "seats trr=0.2 kv-cache=text",
        "seats trr=0.1 kv-cache=text stages=1",
    ]


# What cannot be


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        ("trrr = 0.1", "trrr is not an option of any command", "did you mean trr?"),
        ("max-frame = 4", "max-frame is not an option of any command", "did you mean max-frames?"),
        ("zzzzzz = 4", "zzzzzz is not an option of any command", "see: seats --help"),
        ("help = true", "help is not an option of any command", ""),
        ("version = true", "version is not an option of any command", ""),
        ('arguments = ["a.mp4"]', "arguments is not an option of any command", ""),
        ('path = "a.mp4"', "path is not an option of any command", ""),
        ("[ask]\nframes = 3", "[ask] frames is not an option of seats ask", "max-frames"),
        ("[aks]\ntrr = 0.1", "[aks] is no command that takes settings", "did you mean ask?"),
        ("[doctor]\nverbose = true", "[doctor] is no command", "ask, chat, merge, plan, profile, eval"),
        ("[config.show]\njson = true", "[config] is no command", ""),
        ("[eval]\nfrob = 1", "[eval] frob is not an option of seats eval", ""),
        ("max-frames = 3\nmax_frames = 4", "max-frames is there twice", "one of them"),
        ("trr = 'x'", "trr is 'x': 'x' is not a number", "seats profile --help"),
        ("trr = true", "trr is true: it must be text or a number", ""),
        ("trr = [[0.1]]", "trr is [[0.1]]: it must be text or a number", ""),
        ("start = 00:01:05", "start is 00:01:05: it must be text or a number", "in quotes"),
        ("max-frames = 3.5", "max-frames is 3.5: '3.5' is not a whole number", ""),
        ("[profile]\nfps = 'fast'", "[profile] fps is 'fast': 'fast' is not a number", ""),
        ("offline = 'yes'", "offline is 'yes': it must be true or false", ""),
        ("offline = 1", "offline is 1: it must be true or false", ""),
        ("dtype = 'int3'", "dtype is 'int3': 'int3' is not one of 'auto'", ""),
        ("model = ['a', 'b']", "model is ['a', 'b']: it takes one value", ""),
        ("schedule = ['1,2', '3']", "schedule is ['1,2', '3']: it takes one value", ""),
        ('system = "a\\u0000b"\n[profile]\nmodel = "a\\u0000b"', "NUL", ""),
        ("method = ['seats', 'full']", "'seats,full' is not one of", "seats eval alone, write it below [eval]"),
        ("note = 'x'", "note is not an option", "a model's own settings"),
        ("[media]\nmin_pixels = 4", "[media] is no command", "a model's own settings"),
        ("trr = ", "./seats.toml is not TOML", ""),
        ("ask = 3\nask = 4", "./seats.toml is not TOML", ""),
    ],
)
def test_a_mistake_in_a_file_is_one_line(seats, files, text, complaint, hint):
    files.write(here=text)
    for arguments in (("profile", "--analytic"), ("config", "show", "profile")):
        ended = seats(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.complaint.startswith("./seats.toml")
        assert complaint in ended.complaint
        assert hint in ended.hint
    files.write(user=text)
    assert seats("profile", "--analytic").complaint.startswith(str(files.user))


def test_values_for_another_command_do_no_harm(seats, files):
    files.write(here="fps = 1\n[ask]\nfps = 'fast'\n[eval]\ntrr = 'x'")
    assert seats("profile", "--analytic").code == 0
    ended = seats("ask", "a.mp4", "What?")
    assert "[ask] fps is 'fast'" in ended.complaint


@pytest.mark.parametrize("content", [b"\xff\xfe", b"model = '\xe4'"])
def test_a_file_that_is_not_utf_8(seats, files, content):
    files.here.write_bytes(content)
    ended = seats("profile", "--analytic")
    assert ended.code == 2
    assert "./seats.toml is not UTF-8" in ended.complaint


def test_the_mark_that_some_editors_write_is_no_mistake(seats, files):
    files.here.write_bytes(b"\xef\xbb\xbf" + f'model = "{THREE}"\r\n'.encode())
    assert profiled(seats)["model"]["id"] == THREE


def test_a_file_that_cannot_be_read(seats, files):
    files.here.mkdir()
    ended = seats("profile", "--analytic")
    assert ended.code == 2
    assert ended.complaint.startswith("./seats.toml cannot be read: ")


@pytest.mark.parametrize("source", ["./seats.toml", "SEATS_TRR", None])
def test_a_value_that_cannot_be_is_traced_to_where_it_was_said(seats, files, monkeypatch, source):
    more = []
    if source == "SEATS_TRR":
        monkeypatch.setenv(source, "5")
    elif source is None:
        more = ["--trr", "5"]
    else:
        files.write(here="trr = 5")
    ended = seats("ask", "clip.mp4", "What?", *more)
    assert ended.code == 2
    assert ended.complaint.startswith("--trr is 5.0")
    assert ended.hint == (f"--trr is from {source}; " if source else "") + "0.1 keeps a tenth"


def test_a_conflict_names_the_file_of_what_is_not_on_the_command_line(seats, files):
    files.write(user="device = 'cpu'")
    ended = seats("ask", "clip.mp4", "What?", "--device-map", "auto")
    assert ended.code == 2
    assert ended.hint == f"--device is from {files.user}"


# What a broken file must not stop


@pytest.mark.parametrize("broken", ["trr = ", "frob = 1", "trr = 'x'"])
def test_help_version_and_the_doctor_do_without(seats, files, broken):
    ways = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS), ["config", "--help"]]
    expected = [seats(*way).out for way in ways]
    files.write(here=broken, user=broken)
    for way, text in zip(ways, expected, strict=True):
        ended = seats(*way)
        assert (ended.code, ended.err, ended.out) == (0, "", text)
    assert seats().code == 2
    assert "Usage" in seats().err
    ended = seats("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert "./seats.toml" in ended.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("seats ask --model ", list(KNOWN_MODELS)),
        ("seats config ", ["show"]),
        ("seats config show ", CONFIGURED),
        ("seats config show pro", ["profile", "probe"]),
        ("seats conf", ["config"]),
    ],
)
@pytest.mark.parametrize("text", [None, "trr = ", "frob = 1", "model = 'tiny'"])
def test_completion_says_what_there_is_and_no_errors(seats, files, monkeypatch, words, expected, text):
    files.write(here=text)
    monkeypatch.setenv("_SEATS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    ended = seats()
    assert (ended.out.split(), ended.err) == (expected, "")


# Which files


def test_the_settings_of_a_model_are_no_configuration(seats, files, checkpoint):
    """In a checkpoint's folder ``seats.toml`` is the model's, also if it reads as configuration."""
    files.write(here='note = "knows birds only"\n[schedule]\ndrop_before_layer = [4, 6, 8, 10]', user="fps = 1")
    assert seats("profile", "--analytic").code == 2
    # Other programs have files of that name too.
    config = files.here.parent / "config.json"
    config.write_text('{"port": 80}')
    assert seats("profile", "--analytic").code == 2
    shutil.copy(checkpoint / "config.json", config)
    assert seats("profile", "--analytic").code == 0
    ended = seats("config", "show")
    assert "./seats.toml: settings of the model in this folder, not configuration: left alone" in ended.err
    assert f"fps\t1.0\t{files.user}" in ended.out.splitlines()
    files.write(here="fps = 3")
    assert shown(seats)["fps"] == ("2.0", "default")
    files.write()
    assert "./seats.toml: not there" in seats("config", "show").err


def test_another_file_in_place_of_the_user_s(seats, files, monkeypatch, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(f'model = "{TINY}"\nfps = 1')
    files.write(user=f'model = "{THREE}"\nmax-frames = 4', here="fps = 3")
    monkeypatch.setenv("SEATS_CONFIG", str(other))
    found = shown(seats)
    assert found["model"] == (TINY, str(other))
    assert found["fps"] == ("3.0", "./seats.toml")
    assert found["max-frames"] == ("768", "default")
    other.unlink()
    for arguments in (("profile", "--analytic"), ("config", "show")):
        ended = seats(*arguments)
        assert ended.code == 2
        assert str(other) in ended.complaint
        assert "no such file" in ended.complaint


def test_an_empty_name_is_no_file_at_all(seats, files, monkeypatch):
    files.write(user="frob = 1", here="frob = 1")
    monkeypatch.setenv("SEATS_CONFIG", "")
    assert profiled(seats)["model"]["id"] == SEVEN
    ended = seats("config", "show")
    assert ended.err == "seats: SEATS_CONFIG is empty: no files are read\n"
    assert {line.split("\t")[2] for line in ended.out.splitlines()} == {"default"}


@pytest.mark.skipif(os.name == "nt", reason="another folder there")
def test_the_user_s_folder(files, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    there = tmp_path / "home" / ".config" / "seats" / "config.toml"
    # By the specification of these folders one that is relative or empty is not there.
    for base in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", base)
        assert configuration.places()[1].path == there
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert configuration.places()[1].path == there
    assert [configuration.state_of(place) for place in configuration.places()] == ["not there"] * 2
    # A file where a folder should be holds no configuration either.
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".config").touch()
    assert configuration.state_of(configuration.places()[1]) == "not there"


@pytest.mark.parametrize("roaming", ["C:/Users/me/AppData/Roaming", None])
def test_the_user_s_folder_on_windows(monkeypatch, roaming):
    variables = {"XDG_CONFIG_HOME": "/xdg", **({"APPDATA": roaming} if roaming else {})}
    monkeypatch.setattr(configuration, "os", SimpleNamespace(name="nt", environ=variables, path=os.path))
    paths = [place.path for place in configuration.places()]
    assert paths == [Path("seats.toml"), *([Path(roaming) / "seats" / "config.toml"] if roaming else [])]


def test_no_home_is_no_file(monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("SEATS_CONFIG")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(configuration.Path, "home", homeless)
    assert len(configuration.places()) == 1


# seats config show


@pytest.mark.parametrize("command", CONFIGURED)
def test_every_option_of_a_command_is_shown(seats, files, command):
    lines = seats(command, "--help").out.splitlines()
    listed = [re.match(r"  (?:-\w, )?--([a-z-]+)", line) for line in lines]
    assert {found[1] for found in listed if found} - {"help"} == set(shown(seats, command))


def test_ask_is_shown_by_default(seats, files):
    files.write(here="fps = 3")
    assert shown(seats) == shown(seats, "ask")
    assert shown(seats)["fps"] == ("3.0", "./seats.toml")


def test_sources_in_json(seats, files, monkeypatch):
    files.write(here="fps = 3\noffline = true\nmax-frames = 8\ntrace = 'a.npz'", user="seed = 4\nmax-frames = 6")
    monkeypatch.setenv("SEATS_TRR", "0.3")
    found = json.loads(seats("config", "show", "ask", "--json", "-q").out)
    assert (found["schema_version"], found["command"], found["of"]) == (SCHEMA_VERSION, "config show", "ask")
    assert found["files"] == [
        {"file": "./seats.toml", "state": "read"},
        {"file": str(files.user), "state": "read"},
    ]
    said = {row["option"]: (row["value"], row["source"]) for row in found["options"] if row["source"] != "default"}
    assert said == {
        "fps": (3.0, "./seats.toml"),
        "offline": (True, "./seats.toml"),
        "max-frames": (8, "./seats.toml"),
        "trace": ("a.npz", "./seats.toml"),
        "seed": (4, str(files.user)),
        "trr": (0.3, "SEATS_TRR"),
    }
    assert {row["option"]: row["value"] for row in found["options"]}["start"] is None


def test_what_was_looked_for_is_on_stderr(seats, files):
    files.write(user="fps = 3")
    assert seats("config", "show").err.splitlines() == [
        "seats: ./seats.toml: not there",
        f"seats: {files.user}: read",
    ]


def test_a_terminal_gets_a_table_and_nothing_that_steers_it(seats, files, monkeypatch):
    files.write(here='system = "a\\u001b[2Jb\\tc[red]"')
    assert shown(seats)["system"] == (r"a\x1b[2Jb\tc[red]", "./seats.toml")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    table = seats("config", "show").out
    assert "\t" not in table
    assert "\x1b" not in table
    assert r"a\x1b[2Jb\tc[red]" in table


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["config", "frob"], "see: seats config --help"),
        (["config", "show", "--frob"], "see: seats config show --help"),
    ],
)
def test_a_mistake_names_the_help_of_its_command(seats, files, arguments, hint):
    ended = seats(*arguments)
    assert ended.code == 2
    assert ended.complaint
    assert ended.hint == hint


@pytest.mark.parametrize("name", ["doctor", "config", "frob"])
def test_what_takes_no_settings_is_not_shown(seats, files, name):
    ended = seats("config", "show", name)
    assert (ended.code, ended.out) == (2, "")
    assert repr(name) in ended.complaint
    assert ended.hint == f"known: {', '.join(CONFIGURED)}"


def test_a_variable_that_cannot_be_is_one_line(seats, files, monkeypatch):
    monkeypatch.setenv("SEATS_TRR", "x")
    ended = seats("config", "show")
    assert (ended.code, ended.out) == (2, "")
    assert "SEATS_TRR" in ended.complaint
