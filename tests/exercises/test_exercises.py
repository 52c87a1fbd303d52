"""The exercises: each answer passes, each start fails, each bug is named; and what else people write is told apart."""

from __future__ import annotations

import re
import sys

import pytest

from npattn.block import Block
from npattn.blocks import blocks, modules
from npattn.checker import GradcheckReport, Row
from npattn.commands.names import op_words
from npattn.exercises import Exercise, exercise, exercises, judge
from npattn.exercises.bugs import BUGS
from npattn.exercises.drawn import function
from npattn.exercises.verdict import SOLVED, UNABLE, UNTESTED, WRONG

ALL = pytest.mark.parametrize("one", exercises().values(), ids=exercises())
BY_NAME = {f"bug-{number}": bug for number, bug in enumerate(BUGS, 1)}


@ALL
def test_the_answer_passes(one: Exercise):
    verdict = judge(one, one.answer)
    assert verdict.solved, str(verdict)
    assert all(row.passed or row.cells[-1] == "-" for row in verdict.rows if "ties" not in row.trial), str(verdict)
    assert judge(one, one.file(one.answer)).solved


@ALL
def test_the_start_fails(one: Exercise):
    verdict = judge(one, one.start)
    assert verdict.status == (WRONG if one.kind == "bug" else UNABLE)
    assert one.kind == "bug" or "still to be written" in verdict.summary


@ALL
def test_what_is_shown(one: Exercise):
    assert one.hints
    assert one.statement
    assert re.search(r"[A-Z]+\d?\.\d", one.statement)
    assert one.page
    if one.kind != "bug":
        for hint in one.hints:
            assert hint not in one.start
        for name in re.findall(r"^def (\w*backward)", one.start, re.MULTILINE):
            body = one.start.split(f"def {name}")[1].split("\ndef ")[0]
            assert "raise NotImplementedError" in body or not re.search(r"  # [A-Z]+\d?\.\d", body), name


def test_every_block_op_and_tool_has_one():
    found = {one.module.__name__ for one in exercises().values()}
    for package in ("attention", "exercises.tools"):
        for module in modules(package):
            assert not hasattr(module, "backward") or module.__name__ in found, module.__name__
    for entry in blocks().values():
        if issubclass(entry.kind, Block) and entry.kind.__module__.startswith("npattn.attention"):
            assert entry.card.name in exercises(), entry.card.name
    assert op_words().keys() <= exercises().keys()


@pytest.mark.parametrize("name", BY_NAME)
def test_a_bug_is_named(name: str):
    one, bug = exercise(name), BY_NAME[name]
    verdict = judge(one, one.start)
    assert bug.says in str(verdict)
    assert judge(one, one.start.replace(bug.wrong, bug.right)).solved


def test_ten_bugs():
    assert len({bug.of for bug in BUGS}) == len(BUGS) == 10


def test_checks_are_taken_out_wherever_they_stand():
    text = '''def forward(x, w):
    """Say it. Raises ValueError if not."""
    xp = floating(x=x)
    N, C, _, _ = shaped("x", x, "N C H W")
    (k,) = shaped("w", w, "k")
    sizes = shaped_params(params, w="C")
    H = shaped("x", x, "N C H W", **sizes)[2]
    G = whole_number("groups", groups)
    eps = real_number("eps", eps)
    if w is None:
        real_number("eps", 1)
    else:
        w = w + k + H
    if k == 2:
        raise ValueError("k")
    if w is None:
        absent("b", b, "without w")
    else:
        shaped("b", b, "C")
    for name in "ab":
        shaped(name, x, "C")
    return x * N * G * eps
'''
    assert (
        function(text)
        == '''def forward(x, w):
    """Say it."""
    N, C, _, _ = x.shape
    k, = w.shape
    H = x.shape[2]
    G = groups
    if w is None:
        pass
    else:
        w = w + k + H
    return x * N * G * eps
'''
    )


# What people write


WRONG_ONES = [
    ("se", "dx = dx_direct + dx_gate", "dx = dx_direct", "the path through the gate is missing"),
    ("cbam", "du = du_direct + du_gate", "du = du_direct", "params.ca.w1"),
    ("relu", "xp.where(cache.blocked, xp.zeros_like(dy), dy)", "dy", "a mask"),
    ("product", "da = dy * b", "da = dy * a", "gradient of b: the two are exchanged"),
    ("broadcast", "np.sum(dy * x, axis=1)", "np.mean(dy * x, axis=1)", "constant factor"),
    ("matmul", "dy @ b.T", "dy @ b.T * 2", "a constant factor of 2"),
    ("global_max_pool", "dx = route", "dx = 2 * route", "a constant factor of 2"),
    ("maximum", "np.put_along_axis(dx, i, dy, axis=1)", "dx[:, :1] = dy", "a mask or an index"),
]


@pytest.mark.parametrize(("name", "right", "wrong", "says"), WRONG_ONES)
def test_a_wrong_answer_is_rejected_with_its_cause(name: str, right: str, wrong: str, says: str):
    one = exercise(name)
    assert right in one.answer
    verdict = judge(one, one.answer.replace(right, wrong))
    assert verdict.status == WRONG
    assert says in str(verdict), str(verdict)
    assert any(row.wrong for row in verdict.rows)


def test_what_passed_is_shown_too():
    one = exercise("se")
    verdict = judge(one, one.answer.replace("dx = dx_direct + dx_gate", "dx = dx_direct"))
    assert verdict.summary == "not yet: wrong in x; right in params.w1, params.w2"


def test_a_maximum_that_pays_every_tie_is_seen():
    one = exercise("global_max_pool")
    wrong = one.answer.replace(
        "    dx = route(dy[:, :, None], cache.i, size=H * W, axis=2)  # GMP.2, GMP.1\n",
        "    dx = xp.where(cache.x == xp.max(cache.x, axis=2, keepdims=True), dy[:, :, None], 0.0)\n",
    )
    keeping = "class Kept:\n    def __init__(self, x, shape):\n        self.x, self.shape = x, shape\n\n\ndef forward"
    wrong = wrong.replace("def forward", keeping, 1)
    wrong = wrong.replace("MaxCache(i, (N, C, H, W))", "Kept(xp.reshape(x, (N, C, H * W)), (N, C, H, W))")
    verdict = judge(one, wrong)
    assert verdict.status == WRONG
    assert "ties" in str(verdict)


def test_a_cache_of_ones_own_is_welcome():
    one = exercise("sigmoid")
    own = re.sub(r"Cache\(copied\(y\)\)", "(x, copied(y))", one.answer).replace("y = cache.y", "x, y = cache")
    assert own != one.answer
    assert judge(one, own).solved


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("y = a * b", "y = a + b", "forward gives another y"),
        ("da = dy * b", "da = dy *", "line 21: invalid syntax"),
        ("da = dy * b", "da = dz * b", "da = dz * b  # PROD.1: NameError: name 'dz' is not defined"),
        ("def backward", "def backwards", "expected a function backward"),
        ("da = dy * b", "raise SystemExit(3)", "SystemExit: 3"),
        ("import numpy as np", "import numpyy as np", "No module named 'numpyy'"),
    ],
)
def test_what_cannot_be_run_is_told_with_its_line(right: str, wrong: str, says: str):
    one = exercise("product")
    verdict = judge(one, one.answer.replace(right, wrong))
    assert verdict.status == UNABLE
    assert says in re.sub(r"line \d+: invalid", "line 21: invalid", str(verdict))


@pytest.mark.parametrize("answer", ["da", "da, db, da", "None, db", "da[0], db"])
def test_gradients_of_another_number_or_shape(answer: str):
    one = exercise("product")
    verdict = judge(one, one.answer.replace("return da, db", f"return {answer}"))
    assert verdict.status in (WRONG, UNABLE)


def test_a_verdict_for_a_page():
    one = exercise("product")
    found = judge(one, one.answer).as_dict()
    assert found["solved"]
    assert found["status"] == SOLVED
    assert len(found["head"]) == len(found["rows"][0]["cells"])


def test_a_wrong_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="did you mean cbam"):
        exercise("cbma")


def test_what_is_right_but_overwrites_dy_is_told():
    """It is solved, since every number is right, and who goes on using dy is warned."""
    relu = exercise("relu")
    head = relu.answer[: relu.answer.index(":\n", relu.answer.index("def backward")) + 2]
    verdict = judge(relu, head + "    dy[cache.blocked] = 0\n    return dy\n")
    assert verdict.status == 0
    assert "dy: mutated by backward" in verdict.problems
    assert not judge(relu, relu.answer).problems


# What stays untested, and what is given beside


def test_what_ties_do_not_show_is_told_in_a_line():
    """The untested rows of a point with ties are right in the check without them, which is said."""
    for name in ("cbam", "bug-10"):
        verdict = judge(exercise(name), exercise(name).answer)
        left = [row for row in verdict.rows if row.untested]
        assert left
        assert verdict.solved
        (line,) = verdict.problems
        assert line.startswith("cbam, with ties in x: untested in params.ca.w1")
        assert line.endswith("right without ties: see cbam")


def test_what_no_trial_shows_is_not_solved(monkeypatch: pytest.MonkeyPatch):
    untested = Row("b", (2, 3), "complex step", "all 6 entries", 0.0, untested="all 6 entries are 0")
    report = GradcheckReport("backward", (Row("a", (2, 3), "complex step", "all 6 entries", 0.0), untested))
    monkeypatch.setattr(sys.modules["npattn.exercises.judge"], "gradcheck", lambda *_, **__: report)
    verdict = judge(exercise("product"), exercise("product").answer)
    assert verdict.status == UNTESTED
    assert not verdict.solved
    assert verdict.summary == "nothing is wrong, but untested in b"
    assert verdict.problems == ("b: untested: all 6 entries are 0",)


@pytest.mark.parametrize("given", ["dx, (dw, db)", "[dx, Params(dw, db)]", "dx, [dw, db]"])
def test_a_plain_tuple_or_list_is_read_in_its_order(given: str):
    one = exercise("linear")
    verdict = judge(one, one.answer.replace("return dx, Params(dw, db)", f"return {given}"))
    assert verdict.solved, str(verdict)
    remarks = [line for line in verdict.problems if line.startswith("params: its gradients are a plain ")]
    assert len(remarks) == ("Params" not in given)
    assert all(line.endswith("read as Params(w, b)") for line in remarks)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("dx, (dw, db, db)", "params: expected its gradients as Params(w, b), got a tuple of 3"),
        ("dx, dw", "params: expected its gradients as Params(w, b), got ndarray"),
        ("dx, {'w': dw}", "params: expected its gradients as Params(w, b), got dict"),
        ("[dx, dw, db]", "for each of the 2 inputs (x, params), None where there is none, got 3"),
    ],
)
def test_gradients_that_cannot_be_read_are_told_as_they_are(given: str, says: str):
    one = exercise("linear")
    verdict = judge(one, one.answer.replace("return dx, Params(dw, db)", f"return {given}"))
    assert verdict.status == WRONG
    assert says in str(verdict)
    assert "got None" not in str(verdict)


def test_a_gradient_of_what_is_not_there_is_told():
    one = exercise("linear")
    verdict = judge(one, one.answer.replace("None if b is None else ", ""))
    assert verdict.solved
    (line,) = verdict.problems
    assert line.startswith("params.b: is None here, and so is its gradient; got an array of shape")
