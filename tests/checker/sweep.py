"""Many checks in pieces: in several processes, in a file that a later run goes on from, and added up at the end."""

from __future__ import annotations

import argparse
import collections
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

AT_ONCE = 25  # seeds of a piece: what is lost if a run is ended


class Piece(NamedTuple):
    """Some seeds of one case."""

    name: str
    first: int
    count: int

    @property
    def seeds(self) -> range:
        return range(self.first, self.first + self.count)


class Found(NamedTuple):
    """What came of a piece: how often what, what is to be looked at, and the processor's seconds."""

    piece: Piece
    counts: dict[str, int]
    told: list[str]
    seconds: float


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that all sweeps have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of a name")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="a file of what is done; a later run with it goes on from there")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no piece after so long")
    return parser


def pieces(names: Iterable[str], first: int, count: int) -> list[Piece]:
    """All seeds of all names; the first seeds of each come first, so that an early end has seen all of them."""
    parts = [(start, min(AT_ONCE, first + count - start)) for start in range(first, first + count, AT_ONCE)]
    known = list(names)
    return [Piece(name, *part) for part in parts for name in known]


def sweep(asked: list[Piece], ask: Callable[[Piece], Found], how: argparse.Namespace) -> list[Found]:
    """Ask for each piece that is not in the file yet; print what is to be looked at, and each name when it is done."""
    done = {found.piece: found for found in before(how.out)}
    left = [piece for piece in asked if piece not in done]
    ends = time.monotonic() + 60 * how.minutes
    open_pieces = collections.Counter(piece.name for piece in left)
    with ProcessPoolExecutor(how.jobs) if how.jobs > 1 else Nobody() as pool:
        for found in answers(pool, ask, left, how.jobs, ends):
            done[found.piece] = found
            if how.out:
                with how.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
            for line in found.told:
                print(line, flush=True)
            open_pieces[found.piece.name] -= 1
            if not open_pieces[found.piece.name]:
                mine = [done[piece] for piece in asked if piece in done and piece.name == found.piece.name]
                print(f"{found.piece.name}: {words(total(mine))}; {sum(one.seconds for one in mine):.0f} s", flush=True)
    return [done[piece] for piece in asked if piece in done]


class Nobody:
    """A pool of no processes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *of: object) -> None:
        return None


def answers(
    pool: ProcessPoolExecutor | None, ask: Callable[[Piece], Found], left: list[Piece], jobs: int, ends: float
) -> Iterator[Found]:
    """The answers in the order of the pieces, until time is up."""
    waiting: collections.deque[Any] = collections.deque()
    for piece in left:
        if time.monotonic() > ends:
            break
        if pool is None:
            yield ask(piece)
            continue
        waiting.append(pool.submit(ask, piece))
        if len(waiting) > 2 * jobs:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def before(out: Path | None) -> Iterator[Found]:
    """What a file has of earlier runs. The last line of one that was ended may be half a line."""
    if out is None or not out.exists():
        return
    for line in out.read_text(encoding="utf-8").splitlines():
        try:
            piece, counts, told, seconds = json.loads(line)
        except ValueError:
            continue
        yield Found(Piece(*piece), counts, told, seconds)


def total(found: Iterable[Found]) -> collections.Counter[str]:
    """All counts together."""
    counts: collections.Counter[str] = collections.Counter()
    for one in found:
        counts.update(one.counts)
    return counts


def words(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())) or "nothing"


def summed(found: list[Found], asked: list[Piece], what: str) -> str:
    """The last line."""
    counts = total(found)
    left = f"; {len(asked) - len(found)} of {len(asked)} pieces are left" if len(found) < len(asked) else ""
    seconds = sum(one.seconds for one in found)
    return f"{counts.total():,} {what}: {words(counts)}; {seconds:.0f} s of a processor{left}"
