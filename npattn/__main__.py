"""`python -m npattn`: the same as the command `npattn`."""

import sys

from npattn.cli import main

sys.exit(main())
