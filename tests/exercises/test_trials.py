"""What an answer is tried on tells right from wrong: no two lengths are alike by chance, and every line is run.

Wrong answers are made by rule (`mutants`). One that gives the right gradients wherever it is tried would be "solved":
it then has to give them at other sizes as well, which means that nothing is wrong with it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

from npattn.blocks import told
from npattn.exercises import Exercise, exercise, exercises, judge
from npattn.exercises.bugs import BUGS
from npattn.exercises.judge import retyped, run
from npattn.exercises.points import arrays_in, points_of
from npattn.exercises.sizes import Sizes, axes_in
from npattn.exercises.trials import Trial, entries_of, second_values
from npattn.exercises.verdict import UNTESTED
from tests.exercises.mutants import mutants

ALL = pytest.mark.parametrize(
    "one", [one for one in exercises().values() if one.kind != "bug"], ids=lambda one: one.name
)
ELSEWHERE = (Sizes(3, 10, 8, 9, 2, 3), Sizes(5, 16, 7, 6, 2, 5), Sizes(2, 20, 9, 5, 4, 7))


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sizes | None], None]:
    """A function that has all trials made at sizes of the test's own."""

    def chosen(sizes: Sizes | None) -> None:
        if sizes is None:
            monkeypatch.undo()
        else:
            monkeypatch.setattr("npattn.exercises.trials.sizes_of", lambda *_: sizes)

    return chosen


def gradients(trial: Trial, inputs: tuple[Any, ...]) -> Any:
    y, cache = trial.forward(*inputs)
    return trial.backward(np.random.default_rng(1).standard_normal(np.shape(y)), cache)


def alike(some: Any, others: Any) -> bool:
    some, others = list(arrays_in(some)), list(arrays_in(others))
    return len(some) == len(others) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-9 * (1 + np.max(np.abs(b), initial=0)))
        for a, b in zip(some, others, strict=True)
    )


Known = list[tuple[int, tuple[Any, ...], Any]]


def known(one: Exercise) -> Known:
    """The number of each trial, its inputs, and the right gradients there."""
    return [
        (number, inputs, gradients(trial, inputs))
        for number, trial in enumerate(one.trials(one.module))
        for _, inputs, _ in points_of(trial, 1)
    ]


def right_everywhere(one: Exercise, source: str, wanted: Known) -> bool:
    """Whether an answer gives the right gradients on all trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            written = run(source, "mutant.py")
            trials = one.trials(written)
            return all(
                alike(gradients(trials[number], tuple(retyped(part, written, one.module) for part in inputs)), right)
                for number, inputs, right in wanted
            )
        except Exception:
            return False


def survivors(one: Exercise) -> Iterator[tuple[str, str]]:
    wanted = known(one)
    return ((what, source) for what, source in mutants(one.answer) if right_everywhere(one, source, wanted))


@ALL
def test_what_would_be_solved_is_right_at_other_sizes_too(one: Exercise, at):
    left = list(survivors(one))
    for sizes in ELSEWHERE:
        if left:
            at(sizes)
            wanted = known(one)
            for what, source in left:
                assert right_everywhere(one, source, wanted), what


def test_mutants_would_survive_at_lengths_that_are_alike(at):
    """What the test before is for, and that it can fail."""
    at(Sizes(2, 4, 4, 3, 2, 3))
    for name in ("channel_mean", "coordinate", "gated-channel"):
        assert any(" for " in what for what, _ in survivors(exercise(name))), name
    assert any("H for C" in what for what, _ in survivors(exercise("channel_mean")))


@ALL
def test_lengths_are_alike_only_where_they_have_to_be(one: Exercise, at):
    others = [*second_values(one.module).values()]
    others += [further.arguments for entry in entries_of(one.module)[:1] for further in entry.card.further]
    changed = [f", {told(values)}" for values in others]

    def lengths() -> list[tuple[int, ...]]:
        found = []
        for trial in one.trials(one.module):
            if any(told_so in trial.name for told_so in changed):  # other numbers, beside a trial with the usual ones
                continue
            inputs = trial.draw(np.random.default_rng(0))
            y, cache = trial.forward(*inputs)
            found.append(tuple(axes_in((inputs, y, cache, trial.backward(np.ones_like(y), cache)))))
        return found

    here, far = lengths(), []
    for sizes in ELSEWHERE:
        at(sizes)
        far.append(lengths())
    for number, taken in enumerate(here):
        others = list(zip(*(one_far[number] for one_far in far), strict=True))
        assert len(others) == len(taken)
        of = {there: length for there, length in zip(others, taken, strict=True) if set(there) != {1}}
        assert len(set(of.values())) == len(of), sorted((length, there) for there, length in of.items())
        assert 1 not in of.values()


# Every line


def lines_of(code: CodeType) -> set[int]:
    """The lines of a function's body, and of what is defined in it."""
    found = {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= lines_of(constant)
    return found


@ALL
def test_every_line_of_the_answer_is_run(one: Exercise):
    written = run(one.answer, "answer.py")
    functions = [
        value
        for value in vars(written).values()
        if getattr(value, "__code__", None) and value.__module__ == written.__name__
    ]
    text = one.answer.split("\n")
    wanted = {line for function in functions for line in lines_of(function.__code__)}
    wanted = {line for line in wanted if not text[line - 1].strip().startswith(("raise ", "def ", "@"))}
    seen: set[int] = set()

    def note(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != "answer.py":
            return None
        seen.add(frame.f_lineno)
        return note

    before = sys.gettrace()
    for trial in one.trials(written):
        for _, inputs, _ in points_of(trial, 1):
            sys.settrace(note)
            try:
                gradients(trial, tuple(retyped(part, written, one.module) for part in inputs))
            finally:
                sys.settrace(before)
    assert not [f"{line}: {text[line - 1]}" for line in sorted(wanted - seen)]


def test_a_bug_is_tried_as_the_exercise_that_it_is_put_into():
    for number, bug in enumerate(BUGS, 1):
        one, right = exercise(f"bug-{number}"), exercise(bug.of)
        assert one.answer == right.answer
        assert one.module is right.module


# Through the judge itself


NAMED = [
    ("channel_mean", "dx = dy / C", "dx = dy / H"),
    ("coordinate", "dx_w[:, :, None, :] / H", "dx_w[:, :, None, :] / x.shape[1]"),
    ("layer_norm", "x_hat / K", "x_hat / x_hat.shape[1]"),
    ("eca", "* w[:, j][:, None]", "* w[:, k - 1 - j][:, None]"),
    ("eca", 'if ends == "ring":\n        df', 'if False:\n        df'),
    ("eca", "dz = relu.backward(df, hidden)", "raise NotImplementedError"),
    ("sge", "dg = xp.sum(dy * x, axis=2, keepdims=True)", "dg = xp.sum(dy * x, axis=(1, 2), keepdims=True) + 0 * g"),
    ("eca", "GATES[gate].backward", 'GATES["sigmoid"].backward'),
    ("selective-kernel", "if split else", "if False else"),
    ("split-attention", "Params(dw, dw1, db1, dw2, db2, db)", "Params(dw, dw1, db1, dw2, db2, None)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "right", "wrong"), NAMED)
def test_what_was_solved_is_not(name: str, right: str, wrong: str):
    one = exercise(name)
    assert right in one.answer
    before, backward, body = one.answer.rpartition("def backward")
    verdict = judge(one, before + backward + body.replace(right, wrong))
    assert not verdict.solved, str(verdict)
    assert verdict.status != UNTESTED


WITH = "{0}.conv._replace(slide={0}.conv.slide._replace({1}=(1, 1)))"

IGNORING = [
    ("split-attention", "dt, (N, J, G, M // G)", "dt, (N, J, 1, M)"),
    ("split-attention", "dz, conv)", "dz, conv._replace(slide=conv.slide._replace(stride=(1, 1))))"),
    ("split-attention", "dz, conv)", "dz, conv._replace(slide=conv.slide._replace(dilation=(1, 1))))"),
    ("selective-kernel", "(dv_near, near)", f"(dv_near, near._replace(conv={WITH.format('near', 'dilation')}))"),
    ("selective-kernel", "(dv_far, far)", f"(dv_far, far._replace(conv={WITH.format('far', 'stride')}))"),
    ("general_conv", "slide.reads(H, W)", "slide._replace(dilation=(1, 2)).reads(H, W)"),
    ("group_norm", "tuple(norm.x_hat.shape)), norm)", "(len(dy), 2, -1)), norm)"),
    ("lct", "tuple(norm.x_hat.shape)", "(len(dy), 2, -1)"),
    ("sge", "/ (sigma + eps)", "/ (sigma + 1e-5)"),
    ("simam", "(v + lam)", "(v + 1e-4)"),
    ("gaussian-context", "(c * c)", "4"),
    ("hard_sigmoid", "dy / cache.d", "dy / 6"),
    ("softmax", "axis=axis", "axis=-1"),
    ("dot_product_attention", "dq = scale *", "dq = k.shape[-1] ** -0.5 *"),
]  # fmt: skip
"""What takes a number that the forward is given for the one that is usual."""

OF_FOUR_AXES = [
    ("layer_norm", "xp.sum(xp.reshape(dy, rows), axis=0)", "xp.sum(dy, axis=(0, 1, 2))"),
    ("linear", "rows = math.prod(x.shape[:-1])", "rows = x.shape[0] * x.shape[1] * x.shape[2]"),
    ("relu", "cache.blocked, ", "cache.blocked[:, :, :, :], "),
    ("concatenate", "pieces(dy, lengths, axis)", "pieces(dy, lengths, 1 if axis == 1 else 3)"),
]
"""What is right of four axes, where any number is allowed."""


@pytest.mark.parametrize(("name", "right", "wrong"), IGNORING + OF_FOUR_AXES)
def test_one_that_ignores_a_number_is_not_solved(name: str, right: str, wrong: str):
    one = exercise(name)
    before, backward, body = one.answer.rpartition("\ndef backward")
    assert right in body
    verdict = judge(one, before + backward + body.replace(right, wrong))
    assert not verdict.solved, str(verdict)
    assert verdict.status != UNTESTED


@pytest.mark.parametrize("which", [0, 1])
def test_each_of_several_parts_is_asked(which: int):
    """In each trial, the further ones too: the forward takes all parts as one argument, and each has its gradient."""
    one = exercise("concatenate")
    assert one.answer.count("return dparts") == 1
    doubled = f"return tuple((1 + (i == {which})) * one for i, one in enumerate(dparts))"
    verdict = judge(one, one.answer.replace("return dparts", doubled))
    assert verdict.summary == f"not yet: wrong in inputs[{which}]; right in inputs[{1 - which}]"
    asked: dict[str, list[str]] = {}
    for row in judge(one, one.answer).rows:
        asked.setdefault(row.trial, []).append(row.name)
        assert row.passed, str(row)
    assert len(asked) == 6
    assert all(names == ["inputs[0]", "inputs[1]"] for names in asked.values()), asked


def test_a_gradient_of_nan_is_wrong_in_a_further_trial_too():
    one = exercise("relu")
    assert one.answer.count("return dx\n") == 1
    verdict = judge(one, one.answer.replace("return dx\n", "return dx * (np.nan if dx.ndim == 3 else 1)\n"))
    assert not verdict.solved, str(verdict)
    assert "NaN" in str(verdict)


def test_every_number_has_two_values():
    """No list says which numbers there are: those that a forward takes beside arrays, of the pair or of a block."""
    told = {name: [trial.name for trial in exercise(name).trials(exercise(name).module)] for name in exercises()}
    assert "split-attention, groups=2, stride=2, dilation=2, hidden=6" in told["split-attention"]
    for name, words in (("bam", "dilation=5"), ("gather-excite", "padding=1"), ("batch_norm", "eps=0.5")):
        assert any(words in one for one in told[name]), told[name]
    for name in ("relu", "silu", "softmax", "linear", "layer_norm", "hard_sigmoid"):
        assert {"3 axes", "5 axes"} <= {one.rpartition(", ")[2] for one in told[name]}, told[name]
