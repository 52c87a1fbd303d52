"""Layers as other people write them: each is accepted as it is, right and with one mistake. The code is ours."""

from tests.checker.styles import attributes, boxes, containers, functions, losses, several
from tests.checker.styles.style import STYLES, Style

__all__ = ["STYLES", "Style", "attributes", "boxes", "containers", "functions", "losses", "several"]
