"""What the page asks of Python: run in its worker, once, when it has started. Answers are JSON."""

import json

from npattn.exercises import exercise, judge


def check(name, source):
    """The verdict on an answer."""
    return json.dumps(judge(exercise(name), source).as_dict())
