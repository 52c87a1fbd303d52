"""Exercises: a backward to write, or a mistake to find in one, judged by the gradient checker.

    drawn        an exercise's texts, drawn from the file of the pair
    tools/       the rules of docs/tools.md as pairs, to begin with
    bugs         ten mistakes, to be found
    exercise     `exercises()`: all of them by name
    trials       what an answer is tried on: the block, its forms, its options; `sizes`: at which lengths
    judge        `judge(exercise, source)`: solved, or what is wrong and probably why

`npattn exercise`, the pages and the tests use what is here.
"""

from npattn.exercises.exercise import Exercise, exercise, exercises
from npattn.exercises.judge import judge
from npattn.exercises.verdict import Verdict

__all__ = ["Exercise", "Verdict", "exercise", "exercises", "judge"]
