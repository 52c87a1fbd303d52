"""Without the command: python -m npattn.bench."""

import argparse
import sys

from npattn.bench import add_parser

top = argparse.ArgumentParser(prog="npattn")
add_parser(top.add_subparsers(required=True))
chosen = top.parse_args(["bench", *sys.argv[1:]])
sys.exit(chosen.run(chosen))
