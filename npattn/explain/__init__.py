"""Seeing what a network does: class activation maps, its gates, its training, a block step by step."""

from npattn.explain.cam import class_activation_map
from npattn.explain.gate_statistics import gate_statistics
from npattn.explain.overlay import overlay

__all__ = ["class_activation_map", "gate_statistics", "overlay"]
