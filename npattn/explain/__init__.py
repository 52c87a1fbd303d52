"""Seeing what a network does: figures of its training and of its attention."""
