"""`npattn train`: the tiny demo on MNIST."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from npattn.commands.launch import launched
from npattn.commands.names import OTHERS, listing, name_of, what_blocks_are
from npattn.commands.usage import UsageError, given, refuse
from npattn.fused.threads import available_threads
from npattn.models import NETWORKS, attentions
from npattn.training import OF_THIS_CALL, TrainConfig, TrainingError, restored, train
from npattn.training.mpiexec import mpiexec
from npattn.training.ranks import started

USUAL = 2  # processes, on any number of processors: how many there are decides the last bits of the weights
SETTINGS = (
    "model", "attention", "epochs", "batch_size", "lr", "seed", "save_every", "textbook",
    "data_dir", "download", "out", "device", "processes",
)  # fmt: skip


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
        "--attention", type=name_of(attentions), metavar="NAME", help="what its stages attend with, a name of --list: "
        f"a block such as cbam or se, none, or conv, a convolution to compare with ({usual})"
    )  # fmt: skip
    sub.add_argument("--list", action="store_true", help="say what --attention takes, and train nothing")
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
        "--download, --device and --processes, a matter of the machine, may be given too, and take their place, and "
        "--epochs, where it is to be more than it was: the learning rate goes on as in a run of so many from the start"
    )  # fmt: skip
    sub.add_argument("--device", choices=["cpu", "cuda"], help=f"where it runs; cuda needs CuPy ({default.device})")
    sub.add_argument(
        "--processes", type=int, metavar="N", help="that share each batch, started here by MPI "
        f"({USUAL} where npattn[mpi] is installed, else 1; as many as mpiexec has started, if it has started this)"
    )  # fmt: skip
    sub.add_argument("--textbook", action="store_true", default=None, help="take the textbook path in every layer")
    sub.set_defaults(run=run, leaves_files=lambda arguments: not arguments.list)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on. Returns 130 if it was interrupted, after saving."""
    if arguments.list:
        refuse(arguments, (*SETTINGS, "resume"), "with --list")
        sys.stdout.write(listing({"none": OTHERS["none"]} | what_blocks_are() | {"conv": OTHERS["conv"]}))
        return 0
    typed = {name: getattr(arguments, name) for name in given(arguments, SETTINGS)}
    if arguments.resume is not None and (own := [name for name in typed if name not in OF_THIS_CALL]):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in own)
        raise UsageError(f"--resume goes on under the run's own settings; leave out {flags}")
    if typed.pop("textbook", False):
        typed["fused"] = False
    if started() is None and (count := wanted(arguments.resume, typed)) > 1:
        return launched(count, arguments.argv)
    if arguments.resume is not None:
        return 0 if train(resume=arguments.resume, **typed).finished else 130
    return 0 if train(TrainConfig(**typed)).finished else 130


def wanted(resume: str | None, typed: dict[str, Any]) -> int:
    """How many processes are to be started here, where mpiexec has not started any. Raises as TrainConfig.

    A run goes on with as many as it had, for the same bits, but not with more than there are processors unless asked.
    """
    config = TrainConfig(**typed)
    if config.processes is not None:
        count = int(config.processes)
        if count > 1 and mpiexec() is None:
            raise TrainingError(f'--processes {count} needs MPI: pip install "npattn[mpi]"')
        return count
    if mpiexec() is None or config.unshared():
        return 1
    if resume is None:
        return USUAL
    before = restored(resume, "cpu")[0]
    return min(int(before.processes or 1), max(USUAL, available_threads())) if before.device == "cpu" else 1
