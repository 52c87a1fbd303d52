"""What every function asks of its arguments before it does any work.

The checks double as a legend: `xp = floating(x=x, w=w)` says which arrays take part, `shaped("x", x, "N C H W")` what
the axes of one are called, and `shaped_params(params, w1="R C", b1="R")` those of many. Their errors name the argument,
what was expected, and what came.
"""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.arguments import did_you_mean
from npattn.backend import Array, named_module, numpy_module

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))  # in the machine's own byte order


def floating(**arrays: Array) -> ModuleType:
    """Return the array module of the named arrays, after checking that they can be computed with together.

    None stands for an absent array. Complex arrays pass, so that a derivative can be taken by the complex step.

    Raises
    ------
    TypeError
        If one is no array, they belong to different libraries, a dtype is not float32 or float64 (or complex), or
        the dtypes differ.
    """
    if plain(*arrays.values()):  # nearly always, and asked at every call
        return numpy_module()
    xp = named_module(arrays)
    accepted = (xp.float32, xp.float64, xp.complex64, xp.complex128)
    first = None
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype not in accepted:
            order = "" if getattr(array.dtype, "isnative", True) else ", which is not this machine's byte order"
            raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}{order}")
        if first is None:
            first, dtype = name, array.dtype
        elif array.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype}, the same as {first}, got {array.dtype}")
    return xp


def each(name: str, arrays: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """The key and the array of each entry of a dict, after checking that it is a float array.

    Raises
    ------
    TypeError
        If it is no dict, or an entry no float array.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{name}: expected a dict of arrays, got {type(arrays).__name__}")
    for key, array in arrays.items():
        try:
            floating(array=array)
        except TypeError as error:
            raise TypeError(f"{name}[{key!r}]{str(error).removeprefix('array')}") from None
        yield key, array


def plain(*arrays: Array) -> bool:
    """Whether these are NumPy arrays, all float32 or all float64. None stands for an absent one; not all are absent."""
    dtype = None
    for array in arrays:
        if array is None:
            continue
        if type(array) is not np.ndarray or (array.dtype is not dtype if dtype else array.dtype not in FLOATS):
            return False
        dtype = array.dtype
    return dtype is not None


def shaped(name: str, array: Array, axes: str, **known: int) -> tuple[int, ...]:
    """Return the shape of `array`, after checking it against the named `axes`.

    Parameters
    ----------
    name
        What the caller calls the array.
    array
        The array.
    axes
        One letter or word an axis, "N C H W" say; a number is its own length, and "2C" is twice that of C. A leading
        "..." stands for any number of axes.
    **known
        Sizes that are already fixed, by axis name.

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If the number of axes or a known size differs.
    """
    if array is None:
        raise TypeError(f"{name}: expected an array, got None")
    if not hasattr(array, "shape"):
        named_module({name: array})  # says so
    shape = tuple(array.shape)
    names, tail, numbers = parsed(axes)
    fits = len(shape) >= len(tail) if tail is not names else len(shape) == len(names)
    if fits and (known or numbers):
        for (_, times, letter), size in zip(reversed(tail), reversed(shape), strict=False):
            if letter in known or not letter:
                fits = fits and size == times * known.get(letter, 1)
    if not fits:
        lengths = (f"{axis}={times * known[letter]}" if letter in known else axis for axis, times, letter in names)
        raise ValueError(f"{name}: expected shape ({', '.join(lengths)}), got {shape}")
    return shape


class Axis(NamedTuple):
    """An axis as it is written: "2C" is 2 times C, and "1" is 1 times nothing."""

    name: str
    times: int
    letter: str


@functools.cache
def parsed(axes: str) -> tuple[tuple[Axis, ...], tuple[Axis, ...], bool]:
    """The axes; those after a leading "...", the same tuple if there is none; and whether one is a number."""
    found = [(axis, axis.lstrip("0123456789")) for axis in axes.split()]
    names = tuple(Axis(axis, int(axis.removesuffix(letter) or 1), letter) for axis, letter in found)
    return names, names[1:] if axes.startswith("...") else names, any(not letter for _, letter in found)


def shaped_params(params: Any, sizes: Mapping[str, int] | None = None, of: str = "", /, **axes: str) -> dict[str, int]:
    """`shaped` for arrays of a Params, by field: `shaped_params(params, w="R C", b="R")`.

    Parameters
    ----------
    params
        A NamedTuple of arrays. A field may be None if None is its default.
    sizes
        Sizes that are already fixed, by axis name. What the first array with an axis says holds for all that follow.
    of
        What the caller calls the NamedTuple where it is a part of another: the names in errors begin with it.
    **axes
        The axes of each array, in the order in which they are to be looked at.

    Returns
    -------
    sizes : dict
        Those given and those found.

    Raises
    ------
    TypeError, ValueError
        As `shaped`.
    """
    found = dict(sizes or {})
    for field, wanted in axes.items():
        array = getattr(params, field)
        if array is None and params._field_defaults.get(field, "") is None:
            continue
        shape = shaped(f"{of}.{field}" if of else field, array, wanted, **found)
        for (axis, _, letter), size in zip(parsed(wanted)[0], shape, strict=True):
            if axis == letter:
                found[axis] = size
    return found


def odd_kernel(name: str, w: Array, axes: str, **known: int) -> tuple[int, ...]:
    """`shaped` for a kernel: its last two axes, both called k, are as long as each other, and odd.

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If the number of axes or a known size differs, or k is even.
    """
    k = shaped(name, w, axes, **known)[-1]
    return shaped(name, w, axes, **known, k=odd(f"{name} (its last axis)", k))


def absent(name: str, array: Array | None, why: str) -> None:
    """Check that there is no such array, where nothing would be done with it.

    Raises
    ------
    ValueError
        If there is one.
    """
    if array is not None:
        raise ValueError(f"{name}: expected None {why}, got {getattr(array, 'shape', array)}")


def same_shape(name: str, array: Array, shape: tuple[int, ...], what: str) -> None:
    """Check that `array` has exactly `shape`, which is that of `what` ("the output y", say).

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If it has not.
    """
    found = shaped(name, array, "...")
    if found != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, that of {what}, got {found}")


def whole_number(name: str, value: int, least: int = 1, most: int | None = sys.maxsize) -> int:
    """Return `value` as an int, after checking that it is a whole number from `least` to `most`.

    Unless it is told otherwise, `most` is the length that no array exceeds; None is for any number.

    Raises
    ------
    TypeError
        If it is no integer (a bool is none here).
    ValueError
        If it is smaller than `least` or larger than `most`.
    """
    try:
        if no_number(value):
            raise TypeError
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # a RuntimeError: a tensor that has no value
        raise TypeError(f"{name}: expected a whole number, got {shown(value)}") from None
    if number < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {shown(number)}")
    if most is not None and number > most:
        raise ValueError(f"{name}: expected a whole number of at most {most}, got {shown(number)}")
    return number


def no_number(value: Any) -> bool:
    """Whether it is what Python would make a number of, and nobody means as one: True, "3", an array of one, 1 day."""
    if isinstance(value, bool | np.bool_ | str | bytes | bytearray | memoryview | np.complexfloating | np.timedelta64):
        return True
    kind = str(getattr(value, "dtype", ""))
    return tuple(getattr(value, "shape", ())) != () or "bool" in kind or "complex" in kind


def shown(value: Any) -> str:
    """A value for a message: not longer than a line, and not at all where Python refuses to write it out."""
    try:
        return f"{value!r:.80}"
    except Exception:  # a whole number of thousands of digits, or an object whose own repr fails
        return f"a value of type {type(value).__name__}"


def true_or_false(name: str, value: bool) -> bool:
    """Return `value` as a bool, after checking that it is one: any text, "no" too, would pass for True.

    Raises
    ------
    TypeError
        If it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {shown(value)}")
    return bool(value)


def odd(name: str, value: int) -> int:
    """Return the kernel size `value`, after checking that it is odd: only then is there a middle to pad around.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is even or smaller than 1.
    """
    number = whole_number(name, value)
    if number % 2 == 0:
        raise ValueError(f"{name}: expected an odd kernel size (1, 3, 5, 7, …), got {number}")
    return number


def whole_numbers(name: str, values: Sequence[int], count: int, least: int = 1) -> tuple[int, ...]:
    """Return `values` as a tuple of ints, after checking that there are `count`, each whole and at least `least`.

    Raises
    ------
    TypeError
        If it is no sequence, or one is no integer.
    ValueError
        If there are more or fewer, or one is smaller.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected {count} whole numbers, got {shown(values)}")
    if len(values) != count:
        raise ValueError(f"{name}: expected {count} whole numbers, got {shown(values)}")
    return tuple(whole_number(name, value, least) for value in values)


def real_number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> float:
    """Return `value` as a float, after checking least <= value <= most and that it is finite.

    Raises
    ------
    TypeError
        If it is no number (a bool or a string is none here).
    ValueError
        If it is outside the range, NaN or infinite.
    """
    try:
        if no_number(value):
            raise TypeError
        number = float(value)
    except OverflowError:  # an int beyond the largest float
        number = math.inf
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected a number, got {shown(value)}") from None
    if not math.isfinite(number) or not least <= number <= most:
        raise ValueError(f"{name}: expected a finite number from {least:g} to {most:g}, got {number!r}")
    return number


def hidden_width(channels_name: str, channels: int, ratio_name: str, ratio: int) -> int:
    """Return C // r, the hidden width of a bottleneck, after checking that it is not zero.

    Raises
    ------
    TypeError
        If one of the two is no integer.
    ValueError
        If one is smaller than 1, or ratio > channels, which would leave a layer of width 0.
    """
    channels = whole_number(channels_name, channels)
    ratio = whole_number(ratio_name, ratio)
    if channels < ratio:
        raise ValueError(
            f"{ratio_name}: expected at most {channels_name} = {channels}, got {ratio}: "
            f"{channels} // {ratio} = 0 would leave no hidden unit; what works is 1 to {channels}"
        )
    return channels // ratio


def multiple_of(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Check that `value` falls into so many parts that are as large as each other.

    Raises
    ------
    ValueError
        If it does not.
    """
    if value % divisor:
        raise ValueError(f"{name}: expected a multiple of {divisor_name} = {divisor}, got {value}")


def names_of(name: str, values: Sequence[str], accepted: tuple[str, ...]) -> tuple[str, ...]:
    """`values` as a tuple, after checking that there is at least one, each is among `accepted`, and none comes twice.

    Raises
    ------
    TypeError
        If it is one name, or no sequence of names.
    ValueError
        If it is empty, a name is unknown, or one comes twice.
    """
    listed = ", ".join(map(repr, accepted))
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(v, str) for v in values):
        raise TypeError(f"{name}: expected a tuple of names out of {listed}, got {shown(values)}")
    if not values or len(set(values)) < len(values) or not set(values) <= set(accepted):
        meant = "".join(did_you_mean(value, accepted) for value in values if value not in accepted)
        wanted = f"expected at least one of {listed}, none of them twice"
        raise ValueError(f"{name}: {wanted}, got {shown(tuple(values))}{meant}")
    return tuple(values)


def one_of(name: str, value: str, accepted: tuple[str, ...]) -> str:
    """Return `value`, after checking that it is among the names `accepted`.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not isinstance(value, str) or value not in accepted:
        listed = ", ".join(map(repr, accepted))
        raise ValueError(f"{name}: expected one of {listed}, got {shown(value)}{did_you_mean(value, accepted)}")
    return value
