"""Tasks, the clips they share, shares of the clips, and their order."""

from __future__ import annotations

import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seats_cli.config import GenerationOptions, MediaOptions
from seats_cli.errors import UsageError
from seats_cli.tasks import Shard, Task, distinct_questions, jobs_of, longest_first, parse_shard

NAMES = st.sampled_from(["a.mp4", "b.mp4", "./a.mp4", "x/../b.mp4", "c.mp4"])
TIMES = st.sampled_from([None, 0.0, 1.0])
TASKS = st.lists(
    st.builds(
        Task,
        path=NAMES,
        question=st.sampled_from(["What?", "Who?"]),
        choices=st.sampled_from([(), ("a", "b")]),
        start_seconds=TIMES,
        end_seconds=st.sampled_from([None, 2.0, 3.0]),
    ),
    max_size=12,
)


@given(TASKS)
def test_jobs_hold_every_task_once_and_share_clips(tasks):
    options = MediaOptions(start_seconds=0.5)
    jobs = jobs_of(tasks, options)
    held = [task for job in jobs for task in job.tasks]
    assert sorted(held, key=repr) == sorted(tasks, key=repr)
    clips = [(os.path.abspath(job.path), job.media) for job in jobs]
    assert len(set(clips)) == len(clips)
    for job in jobs:
        assert job.tasks
        for task in job.tasks:
            assert os.path.abspath(task.path) == os.path.abspath(job.path)
            assert task.media(options) == job.media
        # In the order given.
        places = [next(i for i, one in enumerate(tasks) if one is task) for task in job.tasks]
        assert places == sorted(places)
    firsts = [next(i for i, one in enumerate(tasks) if one is job.tasks[0]) for job in jobs]
    assert firsts == sorted(firsts)


@given(TASKS)
def test_each_question_is_looked_at_once(tasks):
    found = distinct_questions(jobs_of(tasks, MediaOptions()))
    asked = [(task.question, task.choices) for task in found]
    assert len(set(asked)) == len(asked)
    assert set(asked) == {(task.question, task.choices) for task in tasks}


def test_what_a_task_says_goes_before_the_options():
    media, generation = (
        MediaOptions(start_seconds=1.0, end_seconds=9.0, fps=1.0),
        GenerationOptions(choices=("x", "y")),
    )
    plain = Task(path="a", question="?")
    assert plain.media(media) == media
    assert plain.generation(generation) == generation
    own = Task(path="a", question="?", start_seconds=0.0, end_seconds=4.0, choices=("a", "b"))
    assert own.media(media) == MediaOptions(start_seconds=0.0, end_seconds=4.0, fps=1.0)
    assert own.generation(generation).choices == ("a", "b")


@pytest.mark.parametrize(("place", "begins"), [("rows.jsonl:4", "rows.jsonl:4: --"), ("", "--")])
def test_a_part_that_ends_before_it_starts_is_told_where_it_was_given(place, begins):
    bad = Task(path="a", question="?", start_seconds=5.0, end_seconds=2.0, place=place)
    with pytest.raises(UsageError) as caught:
        jobs_of([bad], MediaOptions())
    assert str(caught.value).startswith(begins)


def test_jobs_travel():
    jobs = jobs_of([Task(path="a", question="?", choices=("x", "y"))], MediaOptions(end_seconds=3.0))
    assert pickle.loads(pickle.dumps(jobs)) == jobs


# Shares


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), unique=True), st.integers(1, 9))
def test_shares_are_all_of_it_and_none_is_in_two(paths, count):
    shares = [Shard(i, count) for i in range(1, count + 1)]
    clean = [path for path in paths if path.encode("utf-8", "ignore").decode() == path]
    for path in clean:
        assert sum(share.has(path) for share in shares) == 1


def test_shares_are_about_as_large():
    paths = [f"clips/{i}.mp4" for i in range(4000)]
    for i in range(1, 9):
        # 500 on average, with a standard deviation of 21.
        assert 390 < sum(Shard(i, 8).has(path) for path in paths) < 610


@pytest.mark.parametrize("text", ["1/1", "2/8", " 2 / 8 ", "8/8", "00002/8"])
def test_shares_that_can_be(text):
    share = parse_shard(text)
    assert parse_shard(str(share)) == share


@pytest.mark.parametrize(
    "text", ["", "0/8", "9/8", "1/0", "-1/8", "1", "1/", "/8", "1/2/3", "a/b", "1.0/2", "١/٢", "1/9999999999"]
)
def test_shares_that_cannot_be(text):
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)


# Order


@given(st.lists(st.integers(0, 4)))
def test_the_longest_come_first_and_equals_keep_their_order(seconds):
    tasks = [Task(path=f"{i}.mp4", question="?") for i in range(len(seconds))]
    jobs = jobs_of(tasks, MediaOptions())
    length = {job.path: value for job, value in zip(jobs, seconds, strict=True)}
    found = longest_first(jobs, lambda job: length[job.path])
    assert [(-length[job.path], jobs.index(job)) for job in found] == sorted(
        (-value, i) for i, value in enumerate(seconds)
    )
