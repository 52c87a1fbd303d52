"""The demo's training. From Python `npattn.train(TrainConfig())`.

    settings      what a run depends on
    batches       digits as the network's input, moved a little or as they are; how well it does on the test digits
    start         from the settings to the result: train
    result        what a run gave, and how it is shown: TrainResult
    resume        going on with a run: what its folder says, and what only this call can say
    run           the loop, step by step
    step          a step: the batch in shares, one for each rank
    ranks         the processes that share a batch, and what they tell each other
    together      how they fail, read files and start as one
    folder        what a run leaves on the disk, and the way back from there
    history       a dict an epoch, and what is asked of one that comes from a file
    interrupts    Ctrl-C between two steps

Nothing random is kept: the order of an epoch and how a batch is moved are drawn from (seed, epoch, step) alone. So a
run that goes on from a checkpoint draws what it would have drawn, and ends in the same weights, bit for bit. What is
promised of a run that is killed, fills the disk or meets NaN: docs/robustness.md
"""

from __future__ import annotations

from npattn.training.batches import evaluate, jittered, prepared
from npattn.training.folder import CHECKPOINT, METRICS, State, check_places, held, load_model, restored, versions
from npattn.training.history import checked_gates
from npattn.training.interrupts import interruptible
from npattn.training.result import TrainResult
from npattn.training.resume import OF_THIS_CALL
from npattn.training.run import Run
from npattn.training.settings import TrainConfig, TrainingError, network, path_text
from npattn.training.start import need_matplotlib, train

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "OF_THIS_CALL",
    "Run",
    "State",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "check_places",
    "checked_gates",
    "evaluate",
    "held",
    "interruptible",
    "jittered",
    "load_model",
    "need_matplotlib",
    "network",
    "path_text",
    "prepared",
    "restored",
    "train",
    "versions",
]
