"""`python -m pcamx`."""

import sys

from pcamx.cli import main

if __name__ == "__main__":
    sys.exit(main())
