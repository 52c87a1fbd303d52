"""Seeing what a network does: its training, its gates."""

from npattn.explain.gates import gate_statistics

__all__ = ["gate_statistics"]
