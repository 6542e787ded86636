"""The exception tree is the one its docstring draws, and every foreign exception finds its place in it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from seats_cli import errors
from seats_cli.errors import (
    MEMORY_HINT,
    InterruptedRunError,
    MediaError,
    MemoryLimitError,
    ModelError,
    SeatsError,
    SomeFailedError,
    TimeLimitError,
    UsageError,
    counted,
    explain,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"^\W*(\w+Error)\s+(\d+)\s", errors.__doc__, flags=re.MULTILINE))
    assert {name: int(code) for name, code in drawn.items()} == {
        name: kind.exit_code for name, kind in CLASSES.items()
    }
    assert all(kind.__bases__ == (SeatsError,) for kind in CLASSES.values() if kind is not SeatsError)
    assert SeatsError.__bases__ == (Exception,)


def test_exit_codes_are_distinct_and_documented() -> None:
    codes = {kind.__name__: kind.exit_code for kind in CLASSES.values()}
    assert codes == {
        "SeatsError": 1,
        "UsageError": 2,
        "MediaError": 3,
        "ModelError": 4,
        "MemoryLimitError": 5,
        "SomeFailedError": 6,
        "TimeLimitError": 124,
        "InterruptedRunError": 130,
    }
    assert all(kind.__doc__ for kind in CLASSES.values())
    assert len({kind.kind for kind in CLASSES.values()}) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_one_line_and_a_hint(kind: type[SeatsError]) -> None:
    error = kind("two\n  lines\tand more ", "do this")
    assert str(error) == "two lines and more"
    assert error.hint == "do this"
    assert kind("x").hint == ""
    assert explain(error) is error


def cuda_out_of_memory() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def cpu_out_of_memory() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**16)
    return caught.value


def numpy_out_of_memory() -> BaseException:
    with pytest.raises(MemoryError) as caught:
        np.empty(10**15)
    return caught.value


class OutOfMemoryError(RuntimeError):
    """As ``torch.cuda.OutOfMemoryError`` of other versions."""


class Inherited(OutOfMemoryError):
    """Found through its base."""


@pytest.mark.parametrize(
    "error",
    [
        cuda_out_of_memory(),
        cpu_out_of_memory(),
        numpy_out_of_memory(),
        MemoryError("no more"),
        OutOfMemoryError("of another version"),
        Inherited("below it"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000000 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
def test_out_of_memory(error: BaseException) -> None:
    shown = explain(error)
    assert type(shown) is MemoryLimitError
    assert shown.exit_code == 5
    assert shown.hint == MEMORY_HINT
    assert str(shown).startswith("out of memory: ")
    assert " ".join(str(error).split()) in str(shown)


def test_out_of_memory_without_words() -> None:
    assert str(explain(MemoryError())) == "out of memory"


def test_the_hint_names_options_that_exist() -> None:
    options = ("--max-frames", "--max-pixels", "--trr", "--start", "--end", "--dtype")
    assert all(option in MEMORY_HINT for option in options)


def test_ctrl_c() -> None:
    shown = explain(KeyboardInterrupt())
    assert (type(shown), shown.exit_code, str(shown), shown.hint) == (InterruptedRunError, 130, "interrupted", "")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size mismatch"),
        ValueError("a\nb"),
        OSError(5, "Input/output error"),
        KeyError("x"),
        Exception(),
    ],
    ids=repr,
)
def test_anything_else_names_the_original(error: Exception) -> None:
    shown = explain(error)
    assert type(shown) is SeatsError
    assert shown.exit_code == 1
    assert str(shown).startswith(type(error).__name__)
    assert " ".join(str(error).split()) in str(shown)
    assert "--verbose" in shown.hint
    assert "\n" not in str(shown)


def test_memory_words_in_other_classes_are_not_memory() -> None:
    assert type(explain(ValueError("not enough memory of the question"))) is SeatsError


def test_users_may_catch_all_or_one() -> None:
    kinds = (UsageError, MediaError, ModelError, MemoryLimitError, SomeFailedError, TimeLimitError)
    for kind in (*kinds, InterruptedRunError):
        with pytest.raises(SeatsError):
            raise kind("x")


def test_one_is_one_and_the_rest_are_many() -> None:
    assert [counted(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
