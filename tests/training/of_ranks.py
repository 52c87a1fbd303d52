"""What tests run in ranks: `mpiexec -n 3 python -m tests.training.of_ranks steps RESULT …`. See test_ranks.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import npattn
from npattn import checkpoint, data, models, training
from npattn.fused.blas import blas_held
from npattn.optimizer import AdamW, one_cycle
from npattn.training import TrainConfig
from npattn.training.batches import drawn
from npattn.training.ranks import Ranks, world
from npattn.training.step import step
from npattn.training.together import at_first, check_alike, together

STEPS = 20


def images_of(kind: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits with their classes, or noise with some."""
    if kind == "digits":
        files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS)
        images, labels = (data.read(data.EMBEDDED, file)[:count] for file in files)
        return images, labels
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count)


@blas_held
def trained(ranks: Ranks, model: str, attention: str, kind: str, batch: int, dtype: str) -> dict[str, np.ndarray]:
    """The network after twenty steps on batches of that size, the last one of one digit less; with all it remembers."""
    network = models.NETWORKS[model].build(attention, rng=0, dtype=dtype)
    optimizer = AdamW(network.params, decay=0.02)
    images, labels = images_of(kind, STEPS * batch)
    losses, rights = [], []
    for i in range(STEPS):
        some = slice(i * batch, (i + 1) * batch - (i == STEPS - 1))
        moves = drawn(images[some].shape, 2, 10, 0.1, np.random.default_rng((1, i)))
        done = step(network, images[some], labels[some], moves, ranks)
        optimizer.step(done.grads, one_cycle(i, STEPS, 0.01))
        losses.append(float(done.loss))
        rights.append(done.right)
    found = {f"model.{key}": value for key, value in network.state_dict().items()}
    for name, moment in (("m", optimizer.m), ("v", optimizer.v)):
        found |= {f"{name}.{key}": value for key, value in moment.items()}
    return {**found, "losses": np.array(losses), "rights": np.array(rights)}


def steps(out: str, *how: str) -> None:
    """Train, and write what every rank ended with."""
    ranks = world()
    found = trained(ranks, *how[:3], int(how[3]), how[4])
    np.savez(f"{out}.{ranks.rank}.npz", **found)


def collectives(out: str) -> None:
    """Every collective, on arrays that tell the ranks apart."""
    ranks = world()
    r = ranks.rank
    found: dict[str, Any] = {
        "rank": r,
        "size": ranks.size,
        "here": ranks.here,
        "sum": ranks.allreduce(np.arange(6.0).reshape(2, 3)[:, ::2] * 10**r).tolist(),
        "rows": ranks.allgather(np.full((r, 2), r, np.float32)).tolist(),  # rank 0 has none
        "told": ranks.broadcast({"rank": r}),
        "first": [],
    }
    for count in (1, 2, 1):
        part = ranks.first(count)
        if r < count:
            found["first"].append((part.rank, part.size, part.allgather(np.array([[r]])).tolist()))
    found["read"] = at_first(ranks, lambda: f"by {r}")
    try:
        at_first(ranks, lambda: os.stat(f"/nowhere/{r}"))
    except FileNotFoundError as error:
        found["refused"] = error.filename
    try:
        check_alike(ranks, {"alike": 1, "odd": max(r - 1, 0), "odder": r})
    except training.TrainingError as error:
        found["odd"] = str(error)
    check_alike(ranks, {"alike": 1})
    Path(f"{out}.{r}.json").write_text(json.dumps(found))


def failing(out: str, who: str, late: str = "0") -> None:
    """The ranks of these numbers fail; the others wait for them in a collective."""
    ranks = world()
    time.sleep(float(late) * ranks.rank)
    with together(ranks):
        if str(ranks.rank) in who.split(","):
            raise training.TrainingError("of no use") if ranks.rank else MemoryError("too little")
        ranks.allreduce(np.ones(1))
        time.sleep(1)
        ranks.allreduce(np.ones(1))


def few() -> None:
    """`npattn train` has 200 digits, draws no figures, and may have no room for one of its checkpoints."""
    found = data.Digits(*(part[:200] for part in data.load()[:4]), "embedded 10,000")
    training.start.data.load = lambda *args, **options: found
    training.start.write_figures = lambda run, confusion: None
    save, room = checkpoint.save, [int(os.environ.get("ROOM", "-1"))]

    def limited(path: Path, arrays: Any, meta: Any) -> None:
        room[0] -= 1
        if room[0] == 0:
            import resource  # POSIX has it

            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        save(path, arrays, meta)

    checkpoint.save = limited


def run(out: str, batch: str, *given: str) -> None:
    """A training of two epochs on few digits; it goes on with what stands in `out`."""
    few()
    real, pause = training.Run.step, float(os.environ.get("PAUSE", "0"))

    def slower(run: training.Run, order: np.ndarray) -> None:
        real(run, order)
        time.sleep(pause)

    training.Run.step = slower
    if (Path(out) / training.CHECKPOINT).exists():
        result = npattn.train(resume=out)
    else:
        result = npattn.train(TrainConfig(epochs=2, batch_size=int(batch), save_every=3, test_every=1, out=out))
    sys.exit(0 if result.finished else 130)


# What tests do about them


def children(pid: int) -> list[int]:
    """All processes that a process has started, and those that these have."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found += [int(path.name), *children(int(path.name))]
    return found


def ranks_of(pid: int) -> list[int]:
    """The processes under mpiexec that are ranks, by what they run."""
    return [one for one in children(pid) if b"PMI_RANK" in Path(f"/proc/{one}/environ").read_bytes()]


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
