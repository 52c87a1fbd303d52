"""`npattn train`: the tiny demo on MNIST."""

from __future__ import annotations

import argparse
from typing import Any

from npattn.models import NETWORKS, attentions
from npattn.training import OF_THIS_CALL, TrainConfig, TrainingError, train


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    default = TrainConfig()
    sub = commands.add_parser(
        "train",
        help="train the tiny demo on MNIST",
        description="Train the demo's network on MNIST and write metrics, a checkpoint and figures into a folder.",
    )
    sub.add_argument("--model", choices=list(NETWORKS), help=f"the network ({default.model})")
    usual = ", ".join(f"{network.attention} for {name}" for name, network in NETWORKS.items())
    sub.add_argument(
        "--attention", choices=attentions(), metavar="NAME", help="what its stages attend with: none, a block of "
        f"`npattn bench --list`, or conv, a convolution to compare with ({usual})"
    )  # fmt: skip
    sub.add_argument("--epochs", type=int, metavar="N", help=f"passes over the training digits ({default.epochs})")
    sub.add_argument("--batch-size", type=int, metavar="N", help=f"digits a step ({default.batch_size})")
    sub.add_argument("--lr", type=float, metavar="X", help=f"peak of the one-cycle learning rate ({default.lr})")
    sub.add_argument("--seed", type=int, metavar="N", help=f"of everything random ({default.seed})")
    sub.add_argument(
        "--save-every", type=int, metavar="N", help=f"steps from one checkpoint to the next ({default.save_every})"
    )
    where = sub.add_mutually_exclusive_group()
    where.add_argument(
        "--data-dir", metavar="D", help="a folder with the four MNIST files, for all 60,000 training digits "
        "(else the environment variable NPATTN_DATA, else the 10,000 that come with the package)"
    )  # fmt: skip
    where.add_argument("--download", action="store_true", default=None, help="fetch all 60,000 over https")
    sub.add_argument("--out", metavar="DIR", help="where the results go (a new folder under runs/)")
    sub.add_argument(
        "--resume", metavar="DIR", help="go on with the run in this folder, under its own settings; --data-dir, "
        "--download, --device and --processes, a matter of the machine, may be given too, and take their place"
    )  # fmt: skip
    sub.add_argument("--device", choices=["cpu", "cuda"], help=f"where it runs; cuda needs CuPy ({default.device})")
    sub.add_argument("--processes", type=int, metavar="N", help=f"that share each batch ({default.processes})")
    sub.add_argument("--textbook", action="store_true", default=None, help="take the textbook path in every layer")
    sub.set_defaults(run=run, leaves_files=lambda arguments: True)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on. Returns 130 if it was interrupted, after saving."""
    names = (
        "model", "attention", "epochs", "batch_size", "lr", "seed", "save_every",
        "data_dir", "download", "out", "device", "processes",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.textbook:
        given["fused"] = False
    if arguments.resume is None:
        result = train(TrainConfig(**given))
    elif own := [name for name in given if name not in OF_THIS_CALL]:
        flags = ", ".join("--textbook" if name == "fused" else f"--{name.replace('_', '-')}" for name in own)
        raise TrainingError(f"--resume goes on under the run's own settings; leave out {flags}")
    else:
        result = train(resume=arguments.resume, **given)
    return 0 if result.finished else 130
