"""Layers that are made of layers: one after the other, or as a subclass arranges them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any, ClassVar, Self

from npattn.arguments import OPTIONS, explained
from npattn.backend import Array
from npattn.block import Card
from npattn.layer import Layer
from npattn.parameters import in_words


class Nested(Layer):
    """The base of layers that are made of layers, `layers`, each under a name. How they are joined, `run` says.

    Its keys are PyTorch's: a layer's name, a dot, and the key there, "conv1.weight". So are the names of its gates.

    Parameters
    ----------
    layers
        Layers by name.

    Raises
    ------
    TypeError
        If one is no layer, or they differ in array module or dtype.
    ValueError
        If one layer object stands at two places: it keeps one forward, and each place needs its own.
    """

    card: ClassVar[Card | None] = None  # as a Block's

    def __init__(self, layers: dict[str, Layer]) -> None:
        self.layers = layers
        first = next(iter(self.layers.values()))
        for name, layer in self.layers.items():
            called = f"layers[{name}]" if name.isdigit() else name  # as the caller wrote it
            if not isinstance(layer, Layer):
                raise TypeError(f"{called}: expected a layer, got {type(layer).__name__}{self._instead(name, layer)}")
            if layer.xp is not first.xp or layer.dtype != first.dtype or layer.device != first.device:
                wanted = f"expected a layer of {first.placement()}, as the first one"
                raise TypeError(f"{called}: {wanted}, got {layer.placement()}")
        places: dict[int, str] = {}
        for name, layer in self.layers.items():
            for place, inner in every_layer(name, layer):
                other = places.setdefault(id(inner), place)
                if other != place:
                    raise ValueError(
                        f"{other}, {place}: expected a layer object for each place, got the same {inner!r} twice: "
                        "a layer keeps its last forward only, and could not undo the other"
                    )
        super().__init__(dtype=first.dtype, xp=first.xp)
        self.device = first.device
        self.params = Joined(self.layers, "params")
        self.grads = Joined(self.layers, "grads")
        self.buffers = Joined(self.layers, "buffers")

    def _instead(self, name: str, given: Any) -> str:
        """What to do, where something was given that is no layer, as the end of an error's message."""
        if isinstance(given, type) and issubclass(given, Layer):
            return f", the class {given.__name__}; an object is made by {given.__name__}(…)"
        return ""

    def by_field(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name, layer in self.layers.items():
            inner = {key: arrays[f"{name}.{key}"] for key in layer.params}
            found |= {f"{name}.{field}": array for field, array in layer.by_field(inner).items()}
        return found

    def _by(self) -> object:
        within = [layer._by() for layer in self.layers.values()]
        return None if None in within else tuple(within)

    def _after_run(self) -> None:
        """What a `run` ends with: the paths that its layers took, and their gates."""
        self.path = " + ".join(sorted({str(layer.path) for layer in self.layers.values()}))
        self._gates = {
            f"{name}.{key}": gate for name, layer in self.layers.items() for key, gate in layer._gates.items()
        }

    @explained
    def to(self, device: str | None = None, *, dtype: Any = None, xp: ModuleType | None = None) -> Self:
        for layer in self.layers.values():
            layer.to(device, dtype=dtype, xp=xp)
        return super().to(device, dtype=dtype, xp=xp)

    @explained
    def train(self, mode: bool = True) -> Self:
        for layer in self.layers.values():
            layer.train(mode)
        return super().train(mode)

    def __repr__(self) -> str:
        rows = (f"  {name}: {layer!r}".replace("\n", "\n  ") for name, layer in self.layers.items())
        return f"{type(self).__name__}(\n" + "\n".join(rows) + "\n)"


class Sequential(Nested):
    """Layers one after the other. Its keys are PyTorch's: a layer's name, a dot, and the key there, "conv1.weight".

    Parameters
    ----------
    *layers
        Layers, which get the names "0", "1", … in their order.
    **named
        Layers with names of their own, after those.

    Raises
    ------
    TypeError
        If one is no layer, or they differ in array module or dtype.
    ValueError
        If there is no layer, or one layer object stands at two places: write `ReLU()` twice, not `relu` twice.
    """

    def __init__(self, *layers: Layer, **named: Layer) -> None:
        both = {str(i): layer for i, layer in enumerate(layers)} | named
        if not both:
            raise ValueError("layers: expected at least one layer, got none")
        super().__init__(both)

    def _instead(self, name: str, given: Any) -> str:
        if name in OPTIONS:
            return f"; what is named here is a layer, and each layer takes {name} itself"
        if isinstance(given, list | tuple | dict):
            star = "**" if isinstance(given, dict) else "*"
            return f"; the layers in a {type(given).__name__} are given as Sequential({star}layers)"
        return super()._instead(name, given)

    def run(self, x: Array) -> tuple[Array, tuple[()]]:
        for layer in self.layers.values():
            x = layer.forward(x)
        self._after_run()
        return x, ()  # each layer keeps its own cache

    def undo(self, dy: Array, cache: tuple[()]) -> tuple[Array, MutableMapping[str, Array]]:
        for layer in reversed(self.layers.values()):
            dy = layer.backward(dy)
        return dy, Joined(self.layers, "grads")

    def undo_params(self, dy: Array, cache: tuple[()]) -> MutableMapping[str, Array]:
        first, *others = self.layers.values()
        for layer in reversed(others):
            dy = layer.backward(dy)
        first.backward_params(dy)
        return Joined(self.layers, "grads")


def every_layer(name: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    """The layer and all that it is made of, each with the name of its place: "stage1.conv"."""
    yield name, layer
    for key, part in vars(layer).items():
        if isinstance(part, Layer):
            yield from every_layer(f"{name}.{key}", part)
        elif isinstance(part, dict):
            for inner, value in part.items():
                if isinstance(value, Layer):
                    yield from every_layer(f"{name}.{inner}", value)


def leaves(layer: Layer) -> Iterator[Layer]:
    """Every layer of a network that is not made of layers itself."""
    inner = getattr(layer, "layers", None)
    if inner is None:
        yield layer
    else:
        for part in inner.values():
            yield from leaves(part)


class Joined(MutableMapping[str, Array]):
    """The dicts of several layers seen as one: "conv1.weight" is "weight" of the layer "conv1". Writes go through."""

    def __init__(self, layers: Mapping[str, Layer], kind: str) -> None:
        self._layers, self._kind = layers, kind

    def _find(self, key: str) -> tuple[MutableMapping[str, Array], str]:
        name, _, rest = key.partition(".")
        if name not in self._layers:
            raise KeyError(key)
        return getattr(self._layers[name], self._kind), rest

    def __getitem__(self, key: str) -> Array:
        inner, rest = self._find(key)
        return inner[rest]

    def __setitem__(self, key: str, value: Array) -> None:
        inner, rest = self._find(key)
        if rest not in inner:
            raise KeyError(key)  # a layer's names are fixed: a new one would be lost
        inner[rest] = value

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"{key}: a layer's names are fixed")

    def __iter__(self) -> Iterator[str]:
        return (f"{name}.{key}" for name, layer in self._layers.items() for key in getattr(layer, self._kind))

    def __len__(self) -> int:
        return sum(len(getattr(layer, self._kind)) for layer in self._layers.values())

    def __repr__(self) -> str:
        return in_words(self)
