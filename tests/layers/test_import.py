"""`import npattn` brings in NumPy and little else."""

from __future__ import annotations

import subprocess
import sys


def test_import_is_light():
    heavy = ["cupy", "torch", "matplotlib", "scipy", "tqdm", "threadpoolctl", "urllib.request", "argparse"]
    code = f"import npattn, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_explain_comes_when_it_is_asked_for():
    heavy = ["matplotlib", "scipy", "PIL"]
    code = f"import npattn, sys; npattn.explain.class_activation_map; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there():
    import npattn

    for name in npattn.__all__:
        assert getattr(npattn, name).__doc__, name
