"""``python -m colobench``: the command line."""

import sys

from colobench.cli import main

if __name__ == "__main__":
    sys.exit(main())
