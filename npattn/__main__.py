"""`python -m npattn`: the same as the command `npattn`."""

import sys

from npattn.cli import main

if __name__ == "__main__":  # and not where another process looks up what it is to run (mpi4py.futures)
    sys.exit(main())
