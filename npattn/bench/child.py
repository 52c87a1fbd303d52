"""The process that measures under an allocator: `python -m npattn.bench.child PIPE`. See children.py.

It reads a task on standard input, and writes to the pipe, a line of JSON each: what it does just now, and in the end
the result or the error. It ends with the first line that nobody reads any more.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from npattn.bench.measure import threads_set
from npattn.bench.runs import Task, measured
from npattn.bench.sides import BenchError
from npattn.training import TrainingError

TOLD = (BenchError, TrainingError, MemoryError, OSError, ValueError)
"""The errors that the command tells in one line."""


def serve(task: Task, number: int) -> int:
    """Measure, and write to the pipe of that number. Returns the exit status."""
    with os.fdopen(number, "w", encoding="utf-8") as pipe:

        def write(message: dict[str, Any]) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        try:
            with threads_set(task["threads"]):
                result = measured(task, lambda doing: write({"doing": doing}))
        except BrokenPipeError:
            os._exit(1)  # whoever started this is gone; closing the pipe would only fail again
        except TOLD as error:
            write({"error": str(error) or type(error).__name__})
            return 1
        write({"result": result})
    return 0


if __name__ == "__main__":
    sys.exit(serve(json.load(sys.stdin), int(sys.argv[1])))
