"""What do other gradient checkers say? `python -m tests.checker.compare_checkers` asks those that are installed.

npattn's, PyTorch's `torch.autograd.gradcheck`, JAX's `jax.test_util.check_grads` and Chainer's `check_backward` are
asked about the same thirty targets, at the same inputs, each with its defaults and float64. It prints a table, as it
stands in docs/checking-compared.md; `--write` puts it there. A checker that is not installed is left out, and told of.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npattn import gradcheck
from npattn.checker.recognise import as_target
from npattn.checker.target import Target
from tests.checker.compared import Compared, targets

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checking-compared.md"
SEED = 0

Checker = Callable[[Compared], bool]
"""Whether it lets the target pass. Whatever it raises counts as a rejection."""


def npattn_checker() -> tuple[str, Checker]:
    """Ours."""

    def passes(target: Compared) -> bool:
        report = gradcheck((target.forward, target.backward), *target.inputs, raise_exception=False)
        return not report.wrong

    return "npattn", passes


def arrays_of(target: Compared) -> tuple[Target, list[str], list[np.ndarray]]:
    """The target as a function of float64 arrays, for checkers that know no other inputs."""
    form = as_target((target.forward, target.backward), target.inputs)
    return form, list(form.values), [np.array(value) for value in form.values.values()]


def torch_checker() -> tuple[str, Checker]:
    """`torch.autograd.gradcheck`, the pair being a Function."""
    torch: Any = importlib.import_module("torch")

    def passes(target: Compared) -> bool:
        form, names, arrays = arrays_of(target)

        class Function(torch.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, *tensors: Any) -> Any:
                given = {name: one.detach().numpy().copy() for name, one in zip(names, tensors, strict=True)}
                y, ctx.cache = form.forward(given)
                return torch.from_numpy(np.array(y))

            @staticmethod
            def backward(ctx: Any, dy: Any) -> Any:
                gradients = form.backward(dy.detach().numpy().copy(), ctx.cache)
                given = [gradients.get(name) for name in names]
                return tuple(None if one is None else torch.from_numpy(np.array(one)) for one in given)

        torch.manual_seed(SEED)
        tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
        return bool(torch.autograd.gradcheck(Function.apply, tensors))

    return f"PyTorch {torch.__version__.partition('+')[0]}", passes


def jax_checker() -> tuple[str, Checker]:
    """`jax.test_util.check_grads`, first order and reverse mode, the pair being a custom_vjp around callbacks."""
    jax: Any = importlib.import_module("jax")
    check_grads = importlib.import_module("jax.test_util").check_grads
    jax.config.update("jax_enable_x64", True)

    def passes(target: Compared) -> bool:
        form, names, arrays = arrays_of(target)
        y = np.asarray(form.forward(dict(zip(names, arrays, strict=True)))[0])
        caches: list[Any] = [None]

        def run(*given: Any) -> Any:
            values = {name: np.array(one) for name, one in zip(names, given, strict=True)}
            result, caches[0] = form.forward(values)
            return np.asarray(result)

        def undo(dy: Any, *given: Any) -> Any:
            run(*given)
            gradients = form.backward(np.array(dy), caches[0])
            return tuple(np.asarray(gradients[name]) for name in names)

        @jax.custom_vjp
        def function(*given: Any) -> Any:
            return jax.pure_callback(run, jax.ShapeDtypeStruct(y.shape, y.dtype), *given)

        def backward(given: Any, dy: Any) -> Any:
            shapes = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays)
            return jax.pure_callback(undo, shapes, dy, *given)

        function.defvjp(lambda *given: (function(*given), given), backward)
        np.random.seed(SEED)  # noqa: NPY002 - it draws from there
        check_grads(function, tuple(map(jax.numpy.asarray, arrays)), order=1, modes=["rev"])
        return True

    return f"JAX {jax.__version__}", passes


def chainer_checker() -> tuple[str, Checker]:
    """`chainer.gradient_check.check_backward`, the pair being a FunctionNode."""
    old_names()
    chainer: Any = importlib.import_module("chainer")
    check: Any = importlib.import_module("chainer.gradient_check")

    def passes(target: Compared) -> bool:
        form, names, arrays = arrays_of(target)

        class Function(chainer.FunctionNode):  # type: ignore[misc]
            def forward(self, given: Any) -> Any:
                y, self.cache = form.forward({name: one.copy() for name, one in zip(names, given, strict=True)})
                return (np.array(y),)

            def backward(self, indices: Any, dys: Any) -> Any:
                gradients = form.backward(np.array(dys[0].array), self.cache)
                given = [gradients.get(names[i]) for i in indices]
                return tuple(None if one is None else chainer.as_variable(np.array(one)) for one in given)

        np.random.seed(SEED)  # noqa: NPY002 - it draws from there
        y = np.asarray(form.forward(form.values)[0])
        dy = np.random.default_rng(SEED).standard_normal(y.shape)
        check.check_backward(lambda *xs: Function().apply(xs)[0], tuple(arrays), np.asarray(dy), dtype=np.float64)
        return True

    return f"Chainer {chainer.__version__}", passes


def old_names() -> None:
    """Give NumPy the names back that Chainer's last release still asks for."""
    numpy: Any = np
    for kind in (bool, int, float, complex, object, str):
        if kind.__name__ not in vars(np):
            setattr(numpy, kind.__name__, kind)
    if "sctypes" not in vars(np):
        widths = {"int": (8, 16, 32, 64), "uint": (8, 16, 32, 64), "float": (16, 32, 64), "complex": (64, 128)}
        numpy.sctypes = {name: [np.dtype(f"{name}{bits}").type for bits in many] for name, many in widths.items()}
        numpy.sctypes["others"] = []


CHECKERS = {"npattn": npattn_checker, "PyTorch": torch_checker, "JAX": jax_checker, "Chainer": chainer_checker}


def verdict(passes: Checker, target: Compared) -> bool:
    """Whether it passes; to raise is to reject."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return passes(target)
    except Exception as error:
        if target.right:
            print(f"{target.about}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return False


def table(chosen: dict[str, tuple[str, Checker]]) -> str:
    """A line a target, a column a checker; what is judged wrongly is bold."""
    names = [name for name, _ in chosen.values()]
    lines = ["| target | truth | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    right = dict.fromkeys(names, 0)
    for target in targets():
        cells = []
        for name, passes in chosen.values():
            passed = verdict(passes, target)
            right[name] += passed == target.right
            word = "passes" if passed else "rejects"
            cells.append(word if passed == target.right else f"**{word}**")
        truth = "right" if target.right else "wrong"
        lines.append(f"| {target.about} | {truth} | " + " | ".join(cells) + " |")
    lines.append("| judged rightly | of 30 | " + " | ".join(str(right[name]) for name in names) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/checking-compared.md")
    arguments = parser.parse_args()
    chosen = {}
    for name, make in CHECKERS.items():
        try:
            chosen[name] = make()
        except Exception as error:
            print(f"{name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
    text = table(chosen)
    print(text)
    if arguments.write:
        if len(chosen) < len(CHECKERS):
            print("not written: the page's table has all checkers", file=sys.stderr)
            return 2
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(r"\| target \|.*?(?=\n\n)", lambda _: text, page, flags=re.DOTALL), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
