"""What hangs on `npattn.gradcheck` by name: `gradcheck.wrap` and `gradcheck.assert_right`.

`gradcheck` stays a plain function; `Gradcheck` is what a type checker and an editor see of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from npattn.arguments import explained
from npattn.checker.report import GradcheckError, GradcheckReport

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Wrap(Protocol):
    """`gradcheck.wrap`, which is `npattn.checker.helpers.wrap`."""

    def __call__(
        self,
        target: Any = None,
        *,
        forward: str | Callable[..., Any] | None = None,
        backward: str | Callable[..., Any] | None = None,
        params: Mapping[str, str] | Sequence[str] | Callable[[Any], Any] | None = None,
        grads: Sequence[str] | Callable[[Any], Any] | None = None,
        name: str | None = None,
        tensor: Callable[..., Any] | None = None,
        copy: Callable[[Any], Any] | None = None,
    ) -> Any: ...


class AssertRight(Protocol[P]):
    """`gradcheck.assert_right`: the arguments of `gradcheck`. `wrap` hangs on it too, for pytest's fixture."""

    wrap: Wrap

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> GradcheckReport: ...


class Gradcheck(Protocol[P, R]):
    """The function `npattn.gradcheck`, and the functions that hang on it."""

    wrap: Wrap
    assert_right: AssertRight[P]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


@explained
def wrap(
    target: Any = None,
    *,
    forward: str | Callable[..., Any] | None = None,
    backward: str | Callable[..., Any] | None = None,
    params: Mapping[str, str] | Sequence[str] | Callable[[Any], Any] | None = None,
    grads: Sequence[str] | Callable[[Any], Any] | None = None,
    name: str | None = None,
    tensor: Callable[..., Any] | None = None,
    copy: Callable[[Any], Any] | None = None,
) -> Any:
    """Say how to run a target, where its names do not tell. What is not said is found as without.

    Parameters
    ----------
    target
        An object, a module, or (with `tensor`) a function. None if `forward` and `backward` are functions.
    forward, backward
        A method's or function's name in `target`. Or a function: of the object and the inputs, giving y; of the object
        and dy, giving the gradients of the inputs. It may ask for inputs by forward's names, and for `y`, too.
        Without a target they are a pair.
    params
        Where the parameters are: names of attributes, dotted where they lie deeper ("layers.0.W"), each alone or with
        its gradient's name, {"W": "dW"}; or a function of the object that gives a dict or list of arrays.
    grads
        The gradients' names, or a function of the object that gives them as `params` does.
    name
        What the report calls the target.
    tensor
        The class of an autograd's arrays: `target` is then a function of such, `tensor(array)` makes one, and
        `y.backward()` leaves `x.grad`.
    copy
        A function that gives a new object like the one it is given, where `copy.deepcopy` cannot.

    Returns
    -------
    object
        What `npattn.gradcheck` takes as its target.
    """
    from npattn.checker.recipe import Recipe

    if target is None and not (callable(forward) and callable(backward)):
        raise TypeError("target: expected an object, or functions as forward and backward, got None")
    return Recipe(target, forward, backward, params, grads, name, tensor, copy)


def with_helpers(function: Callable[P, GradcheckReport]) -> Gradcheck[P, GradcheckReport]:
    """Hang `wrap` and `assert_right` on the function."""

    def assert_right(*args: P.args, **kwargs: P.kwargs) -> GradcheckReport:
        """Check as `gradcheck` does, for a test: it fails if something is wrong or was left untested.

        The failure's text is the whole report. Returns the report if all is right, remarks included.
        """
        __tracebackhide__ = True  # pytest shows the line of the test, and the report
        kwargs["raise_exception"] = False
        report = function(*args, **kwargs)
        if report.status:
            raise Failure(report)
        return report

    fixture: Any = assert_right
    fixture.wrap = wrap
    named: Any = function
    named.wrap, named.assert_right = wrap, assert_right
    return cast(Gradcheck[P, GradcheckReport], function)


class Failure(GradcheckError):
    """A test's failure: its text is the whole report."""

    def __str__(self) -> str:
        return str(self.report)
