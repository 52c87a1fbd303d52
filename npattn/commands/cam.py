"""`npattn cam`: a sheet of digits, with what speaks for the answer, for the runner-up, and where the gate is open."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from npattn import data
from npattn.explain.cam import METHODS
from npattn.explain.images import read_digit
from npattn.explain.sheet import MOST, Picture, draw, from_test_set, look
from npattn.training import load_model, need_matplotlib, prepared


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "cam",
        help="draw class activation maps of a trained network",
        description="Draw a sheet: digits, what speaks for the network's answer in them and for its runner-up, and "
        "where the spatial gate is open. Some call channel attention CAM too; that is a part of a network.",
    )
    sub.add_argument("folder", metavar="RUN_DIR", type=Path, help="the folder of a run of npattn train")
    sub.add_argument(
        "--digits", type=int, nargs="+", metavar="N", help="places in the test set, from 0 (the first of each class)"
    )
    sub.add_argument("--image", type=Path, nargs="+", metavar="FILE", help="PNG, JPEG or BMP files with a digit each")
    sub.add_argument("--method", choices=METHODS, help="(cam, or grad-cam if there is a --layer)")
    sub.add_argument("--layer", metavar="NAME", help="whose output Grad-CAM looks at, stage3.relu say")
    sub.add_argument("--out", type=Path, metavar="FILE", help="the PNG (cam.png in RUN_DIR)")
    sub.set_defaults(run=run, leaves_files=lambda arguments: True)


def run(arguments: argparse.Namespace) -> int:
    """Draw the sheet that the arguments ask for, and say what is on it. Returns 0."""
    need_matplotlib("the sheet")
    model = load_model(arguments.folder)
    pictures = []
    for file in arguments.image or []:
        found = read_digit(file)
        print(f"{file}: {'; '.join(found.notes)}")
        if found.doubts:
            print(f"{file}: it may be no digit, and then the answer means nothing: {'; '.join(found.doubts)}")
        pictures.append(Picture(file.name, found.image, None, found.picture, found.box, bool(found.doubts)))
    if arguments.digits is not None or not pictures:
        digits = data.load()
        pictures += from_test_set(digits.test_images, digits.test_labels, arguments.digits)
    if len(pictures) > MOST:
        raise ValueError(f"digits: expected at most {MOST} on a sheet, got {len(pictures)}")
    method = arguments.method or ("cam" if arguments.layer is None else "grad-cam")
    seen = look(model, prepared(np.stack([picture.image for picture in pictures])), method, arguments.layer)
    out = arguments.out or arguments.folder / "cam.png"
    draw(pictures, seen, out)
    width = max(len(picture.name) for picture in pictures)
    for picture, (answer, second), (p, q) in zip(pictures, seen.classes, seen.shares, strict=True):
        wrong = "" if picture.right in (None, answer) else f"   wrong: it is a {picture.right}"
        print(f"{picture.name:<{width}}  {answer} ({p:.2%}), then {second} ({q:.2%}){wrong}")
    if seen.gate is None:
        print("the network has no spatial gate, so the sheet has no column for it")
    print(f"maps by {method}{f' at {arguments.layer}' if arguments.layer else ''}; the sheet is {out}")
    return 0
