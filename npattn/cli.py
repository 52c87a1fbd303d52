"""The npattn command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from npattn import __version__, bench
from npattn.ablation import AblationError
from npattn.ablation import command as ablation_command
from npattn.backend import DeviceError
from npattn.checkpoint import CheckpointError
from npattn.data import DataError
from npattn.dialects import command as dialect_command
from npattn.explain import counts, sheet, trace
from npattn.gradcheck import command as gradcheck_command
from npattn.models import ATTENTIONS, NETWORKS
from npattn.training import TrainConfig, TrainingError, train

TOLD = (
    AblationError, CheckpointError, DataError, DeviceError, TrainingError, bench.BenchError, OSError, ValueError,
)  # fmt: skip
"""The errors that are told in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0 done, 1 an error that is told in one line, 130 interrupted.

    argparse itself ends with status 2 for a command line that makes no sense.
    """
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except TOLD as error:
        print(f"npattn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("npattn: interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command's parser; each sub-command brings its own `run`."""
    top = argparse.ArgumentParser(
        prog="npattn", description="Attention in convolutional networks, every gradient by hand."
    )
    top.add_argument("--version", action="version", version=f"npattn {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_train(commands)
    gradcheck_command.add_parser(commands)
    trace.add_parser(commands)
    sheet.add_parser(commands)
    bench.add_parser(commands)
    counts.add_parser(commands)
    ablation_command.add_parser(commands)
    dialect_command.add_parser(commands)
    return top


def add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`npattn train`."""
    default = TrainConfig()
    sub = commands.add_parser(
        "train",
        help="train the tiny demo on MNIST",
        description="Train the demo's network on MNIST and write metrics, a checkpoint and figures into a folder.",
    )
    sub.add_argument("--model", choices=list(NETWORKS), help=f"the network ({default.model})")
    usual = ", ".join(f"{network.attention} for {name}" for name, network in NETWORKS.items())
    sub.add_argument("--attention", choices=list(ATTENTIONS), help=f"what its stages attend with ({usual})")
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
    sub.add_argument("--resume", metavar="DIR", help="go on with the run in this folder, under its own settings")
    sub.add_argument("--device", choices=["cpu", "cuda"], help=f"where it runs; cuda needs CuPy ({default.device})")
    sub.add_argument("--processes", type=int, metavar="N", help=f"that share each batch ({default.processes})")
    sub.add_argument("--textbook", action="store_true", default=None, help="take the textbook path in every layer")
    sub.set_defaults(run=run_train)


def run_train(arguments: argparse.Namespace) -> int:
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
    elif given:
        flags = ", ".join("--textbook" if name == "fused" else f"--{name.replace('_', '-')}" for name in given)
        raise TrainingError(f"--resume goes on under the run's own settings; leave out {flags}")
    else:
        result = train(resume=arguments.resume)
    return 0 if result.finished else 130


if __name__ == "__main__":
    sys.exit(main())
