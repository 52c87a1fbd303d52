"""The rules of docs/tools.md as pairs, a file each: the smallest exercises. The library itself needs none."""
