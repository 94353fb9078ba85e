"""`python -m lmcourse`, for where the `lmcourse` command is not on the path."""

import sys

from lmcourse.cli import main

if __name__ == "__main__":
    sys.exit(main())
