"""What an ablation trains, and with which settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from npattn.checks import whole_number


class AblationError(Exception):
    """An ablation cannot start or go on. The message says why."""


class Variant(NamedTuple):
    """One network to train: what it is called, what it is compared for, and what is in it."""

    name: str
    group: str
    what: str
    attention: str
    model: str = "digits"


VARIANTS = (
    Variant("none", "blocks", "no attention", "none"),
    Variant("SE", "blocks", "squeeze-and-excitation, r = 8", "se"),
    Variant("channel", "blocks", "CBAM's channel attention, r = 8", "channel"),
    Variant("spatial", "blocks", "CBAM's spatial attention, k = 7", "spatial"),
    Variant("CBAM", "blocks", "channel, then spatial; r = 8, k = 7", "cbam"),
    Variant("concat", "blocks", "pool-and-concatenate channel attention, r = 8", "concat"),
    Variant("PSA", "blocks", "point-wise spatial attention, in the 7×7 stage only", "psa"),
    Variant("squeeze", "wrong structures", "the squeeze as the scale, no FC", "squeeze"),
    Variant("conv", "wrong structures", "a 3×3 convolution in SE's place", "conv"),
    Variant("conv gate", "wrong structures", "a gate by a 3×3 convolution", "conv-gate"),
    Variant("SE parallel", "wrong structures", "the gate made from the stage's input", "se-parallel"),
    Variant("spatial first", "order in CBAM", "spatial, then channel", "cbam-spatial-first"),
    Variant("parallel", "order in CBAM", "both gates from the same x, multiplied", "cbam-parallel"),
    Variant("residual", "order in CBAM", "channel, then spatial, then + x", "cbam-residual"),
    Variant("channel, avg", "poolings", "channel attention from the average only", "channel-avg"),
    Variant("channel, max", "poolings", "channel attention from the maximum only", "channel-max"),
    Variant("spatial, mean", "poolings", "spatial attention from the mean only", "spatial-mean"),
    Variant("spatial, max", "poolings", "spatial attention from the maximum only", "spatial-max"),
    Variant("SE, r = 2", "ratio and kernel", "SE with 16 and 32 hidden units", "se-r2"),
    Variant("SE, r = 4", "ratio and kernel", "SE with 8 and 16 hidden units", "se-r4"),
    Variant("SE, r = 16", "ratio and kernel", "SE with 2 and 4 hidden units", "se-r16"),
    Variant("spatial, k = 3", "ratio and kernel", "spatial attention with a 3×3 kernel", "spatial-k3"),
    Variant("ResNet", "residual units", "the residual network, no attention", "none", "se-resnet"),
    Variant("SE-ResNet", "residual units", "SE at the end of each branch", "se", "se-resnet"),
)
"""All that is trained, in the order of the table."""

BASELINES = {"digits": "none", "se-resnet": "ResNet"}  # what a variant is compared with, by its network


@dataclass(frozen=True)
class Settings:
    """What every training of an ablation has in common.

    Attributes
    ----------
    digits
        How many of the training digits are used, the first ones; at least 2.
    epochs
        Passes over them, at least 1.
    batch_size
        Digits a step, at least 2.
    test_digits
        How many of the test digits are classified at the end, the first ones; 1 to 10,000.

    Raises
    ------
    TypeError, ValueError
        If a value is outside its range.
    """

    digits: int = 2000
    epochs: int = 5
    batch_size: int = 64
    test_digits: int = 10_000

    def __post_init__(self) -> None:
        whole_number("digits", self.digits, least=2)
        whole_number("epochs", self.epochs)
        whole_number("batch_size", self.batch_size, least=2)
        whole_number("test_digits", self.test_digits)


def chosen(names: Sequence[str] | None) -> tuple[Variant, ...]:
    """The variants of these names or groups, in the table's order; all if there is none. Raises AblationError."""
    if not names:
        return VARIANTS
    known = {variant.name.lower() for variant in VARIANTS} | {variant.group.lower() for variant in VARIANTS}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        listed = "; ".join(dict.fromkeys([v.group for v in VARIANTS] + [v.name for v in VARIANTS]))
        raise AblationError(f"only: expected variants or groups ({listed}), got {', '.join(unknown)}")
    wanted = {name.lower() for name in names}
    return tuple(v for v in VARIANTS if v.name.lower() in wanted or v.group.lower() in wanted)
