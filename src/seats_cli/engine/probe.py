"""What the answer needs of picture and sound, layer by layer (SEATS Sec. 3, Fig. 2), by teacher forcing.

Tokens of a modality leave before layer ``l`` and stay in the cache of the layers below. A greedy answer is the
reference exactly when every token of it, and a stop token after it, is the likeliest at its place in ONE pass over
prompt and answer. So the whole prompt runs once, and before each layer a branch without the modality runs on from
the states that are there: no answer is generated, and no prompt is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from seats_cli.config import GenerationOptions
from seats_cli.dataset import Question
from seats_cli.engine.analytic import FULL, plan_of
from seats_cli.engine.decode import TextStream, choice_tokens, decode
from seats_cli.engine.evaluate import Evaluation, OnError, Source, by_clip, check_questions, read_clip
from seats_cli.engine.marks import model_info, versions
from seats_cli.engine.pipeline import layout_of
from seats_cli.engine.prefill import Prefill, Rows, causal_mask, first_rows, layer_device, prefill
from seats_cli.engine.prepare import position_warning
from seats_cli.engine.reading import method_for
from seats_cli.engine.stage_one import EncodedClip, select_windows
from seats_cli.engine.thinking import SKIPPED, UNASKED, scored_warnings
from seats_cli.errors import InterruptedRunError, SeatsError, explain
from seats_cli.layout import Layout, Modality
from seats_cli.models.base import OmniModel
from seats_cli.models.loading import LoadedModel
from seats_cli.probing import ProbeReport, summarise
from seats_cli.timing import Stopwatch

REMOVALS: Mapping[str, tuple[Modality, ...]] = {
    "video": (Modality.VIDEO,),
    "audio": (Modality.AUDIO,),
    "both": (Modality.VIDEO, Modality.AUDIO),
}
"""What is removed, by name."""

OF_THE_MODEL = (SKIPPED, UNASKED)
"""Beginnings of warnings that name no clip."""

Judge = Callable[[torch.Tensor], bool]
"""Whether the states [1, S, D] that leave the last layer give the right answer."""
Outcomes = dict[str, tuple[bool, ...]]
"""By what is removed: whether the answer is right when it leaves before layer 0, 1, ... L; L: nothing leaves."""


def with_answer(
    model: OmniModel, layout: Layout, encoded: EncodedClip, answer_ids: Sequence[int]
) -> tuple[Layout, EncodedClip]:
    """The prompt and, at the positions where decoding would put them, the tokens of an answer, as text.

    Args:
        model: The thinker.
        layout: The unpruned prompt of N tokens.
        encoded: All of it.
        answer_ids: A tokens.
    """
    n = len(answer_ids)
    ids = np.array(answer_ids, dtype=np.int64)
    places = layout.next_position + np.arange(n, dtype=np.float32)
    nowhere = np.full(n, -1, dtype=np.int64)
    tail = model.embed(torch.tensor(list(answer_ids), dtype=torch.long, device=model.device))
    longer = replace(
        encoded,
        embeddings=torch.cat([encoded.embeddings, tail.to(encoded.embeddings)]),
        index=torch.arange(layout.n_tokens + n, device=encoded.index.device),
    )
    return replace(
        layout,
        ids=np.concatenate([layout.ids, ids]),
        modality=np.concatenate([layout.modality, np.full(n, int(Modality.TEXT), dtype=np.int64)]),
        window=np.concatenate([layout.window, nowhere]),
        grid=np.concatenate([layout.grid, nowhere]),
        positions=np.concatenate([layout.positions, np.tile(places, (3, 1))], axis=1),
    ), longer


def says(model: OmniModel, answer_ids: Sequence[int]) -> Judge:
    """Right when greedy decoding writes exactly these tokens and stops.

    Args:
        model: The thinker.
        answer_ids: The last tokens of the sequence that is judged.
    """
    wanted = [*((token,) for token in answer_ids), tuple(model.stop_ids)]

    def judge(hidden: torch.Tensor) -> bool:
        prompt = hidden.shape[1] - len(answer_ids)
        places = range(prompt, prompt + len(wanted))
        # In order, so that a wrong first token costs one row of the head.
        return all(
            int(model.last_logits(hidden[:, :end]).argmax()) in right
            for end, right in zip(places, wanted, strict=True)
        )

    return judge


def chooses(model: OmniModel, label_tokens: Sequence[int], right: Collection[int]) -> Judge:
    """Right when the likeliest of the labels' first tokens is that of a right label; of equals, the first counts.

    Args:
        model: The thinker.
        label_tokens: First token of each label.
        right: Indices of the right labels.
    """
    tokens = torch.tensor(list(label_tokens))

    def judge(hidden: torch.Tensor) -> bool:
        logits = model.last_logits(hidden)
        return int(logits[tokens.to(logits.device)].argmax()) in right

    return judge


def outcomes(model: OmniModel, layout: Layout, encoded: EncodedClip, judge: Judge) -> Outcomes:
    """Judge the answer with each modality, and both, removed before every layer.

    Args:
        model: The thinker of L layers.
        layout: The unpruned sequence of N tokens, with the answer where the judge needs one.
        encoded: All of it.
        judge: Looks at the states that leave the last layer.

    Returns:
        L + 1 outcomes per removal. A modality that the clip lacks changes nothing by leaving.
    """
    n_layers = len(model.layers)
    rows = first_rows(model, layout, encoded)
    branches = {gone: _without(layout, gone) for gone in map(_present(layout), REMOVALS)}
    branches.pop((), None)
    found: dict[tuple[Modality, ...], list[bool]] = {gone: [] for gone in branches}
    for layer in range(n_layers):
        for gone, stay in branches.items():
            branch = rows.take(stay.to(rows.hidden.device))
            found[gone].append(judge(_run(model, branch, layer, n_layers).hidden))
        rows = _run(model, rows, layer, layer + 1)
    whole = judge(rows.hidden)
    present = _present(layout)
    return {name: (*found.get(present(name), [whole] * n_layers), whole) for name in REMOVALS}


def _present(layout: Layout) -> Callable[[str], tuple[Modality, ...]]:
    """From a removal's name to what it takes of this clip."""
    there = [modality for modality in (Modality.VIDEO, Modality.AUDIO) if layout.count(modality)]
    return lambda name: tuple(modality for modality in REMOVALS[name] if modality in there)


def _without(layout: Layout, gone: Sequence[Modality]) -> torch.Tensor:
    """Rows that stay, int64 ascending."""
    return torch.from_numpy(np.flatnonzero(~np.isin(layout.modality, [int(m) for m in gone])))


def _run(model: OmniModel, rows: Rows, first: int, end: int) -> Rows:
    """Through the layers ``[first, end)``; no cache, as nothing is decoded after it."""
    mask = causal_mask(model, rows.hidden)
    for i in range(first, end):
        rows = rows.to(layer_device(model, i))
        there = None if mask is None else mask.to(rows.hidden.device)
        rows = rows.after(i, model.run_layer(i, rows.hidden, (rows.cos, rows.sin), there, None))
    return rows


@dataclass(frozen=True, slots=True)
class Probed:
    """One question: its outcomes, or why there are none."""

    question: Question
    outcomes: Outcomes | None
    warnings: tuple[str, ...] = ()
    error: SeatsError | None = None


@torch.inference_mode()
def probe(
    work: Evaluation,
    *,
    on_row: Callable[[Probed], None] | None = None,
    on_error: OnError | None = None,
) -> list[Probed]:
    """Probe questions clip by clip; what is wrong with one of them does not stop the others.

    Args:
        work: What is asked. Its settings are not looked at: every token is there until it is removed.
        on_row: Called with each question that is through.
        on_error: Called once with each exception and the rows that it made fail.

    Returns:
        In the order of the questions.

    Raises:
        UsageError: A question or its choices cannot be.
        InterruptedRunError: Ctrl-C.
    """
    check_questions(work)
    found: dict[int, Probed] = {}
    for rows in _clips(work):
        for row in _probe_clip(work, rows, on_error or (lambda *_: None)):
            found[row.question.line] = row
            if on_row is not None:
                on_row(row)
    return [found[question.line] for question in work.questions]


def report_of(
    work: Evaluation, found: Sequence[Probed], *, tolerance: float, categories: Sequence[str]
) -> ProbeReport:
    """Make the report of a probe.

    Args:
        work: What was asked.
        found: Of every question.
        tolerance: How far below full accuracy still counts as full.
        categories: Whose rows were asked alone; none: all.

    Raises:
        SomeFailedError: Every question failed.
    """
    return summarise(
        [row.outcomes for row in found if row.outcomes is not None],
        work.loaded.model.spec.preset,
        tolerance=tolerance,
        file=work.file,
        categories=categories,
        clips=len(_clips(work)),
        rows=len(found),
        model=model_info(work.loaded),
        versions=versions(),
        warnings=[
            line if line.startswith(OF_THE_MODEL) else f"{row.question.media}: {line}"
            for row in found
            for line in row.warnings
        ],
    )


def _clips(work: Evaluation) -> list[list[Question]]:
    return by_clip(work, [(question, question) for question in work.questions])


def _probe_clip(work: Evaluation, rows: Sequence[Question], on_error: OnError) -> Iterator[Probed]:
    try:
        source = read_clip(work, rows[0].path, work.media_of(rows[0]), saliency=False)
    except Exception as caught:
        on_error(caught, rows)
        error = explain(caught)
        yield from (Probed(question, None, error=error) for question in rows)
        return
    for question in rows:
        try:
            yield _probe_question(work, source, question)
        except InterruptedRunError:
            raise
        except Exception as caught:
            on_error(caught, [question])
            yield Probed(question, None, error=explain(caught))


def _probe_question(work: Evaluation, source: Source, question: Question) -> Probed:
    model = work.loaded.model
    layout = layout_of(model, source.shape, question.text, work.generation, at_once=True)
    too_far = position_warning(layout, model.spec.max_positions)
    method = method_for(work.loaded, plan_of(model.spec, layout, FULL), FULL)
    encoded = select_windows(model, layout, source.batches, method, Stopwatch())
    filled: Prefill | None = None
    scored: tuple[str, ...] = ()
    # A choice is judged by the branches alone; only a model that may reason is asked what it would begin with.
    if not question.choices or model.thinking_ids is not None:
        filled = prefill(model, layout, encoded, method)
        scored = scored_warnings(model, filled.logits, work.generation)
    warnings = (*source.warnings, *([too_far] if too_far else []), *scored)
    return Probed(question, _outcomes(work.loaded, question, layout, encoded, filled), warnings)


def _outcomes(
    loaded: LoadedModel, question: Question, layout: Layout, encoded: EncodedClip, filled: Prefill | None
) -> Outcomes:
    """By what is removed; ``filled``, the whole prompt read once, is there unless the question has choices."""
    model = loaded.model
    if question.choices or filled is None:
        tokens = choice_tokens(question.choices, model.tokenizer)
        right = [question.choices.index(answer) for answer in question.answers]
        return outcomes(model, layout, encoded, chooses(model, tokens, right))
    each = [
        outcomes(model, *with_answer(model, layout, encoded, ids), says(model, ids))
        for ids in _references(loaded, question, layout, filled)
    ]
    return {name: tuple(map(any, zip(*(one[name] for one in each), strict=True))) for name in REMOVALS}


def _references(loaded: LoadedModel, question: Question, layout: Layout, filled: Prefill) -> list[list[int]]:
    """What counts as right, in tokens: the answers of the file, and the model's own if it is accepted.

    A model may word or spell a right answer in its own way. What it says with the whole clip is then what it
    should go on saying without a part of it. It does not reason before: the prompt has seen to that.

    Raises:
        InterruptedRunError: Ctrl-C.
    """
    model = loaded.model
    found = [model.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in question.answers]
    options = GenerationOptions(max_new_tokens=2 * max(map(len, found)) + 8)
    stream = TextStream(model.tokenizer)
    own = decode(model, filled.logits, filled.cache, layout.next_position, options, stream.push)
    if own.finish_reason == "interrupted":
        raise InterruptedRunError("interrupted")
    if own.finish_reason == "stop" and question.accepts(stream.close().strip()):
        found.append(own.token_ids)
    return [list(ids) for ids in dict.fromkeys(map(tuple, found))]
