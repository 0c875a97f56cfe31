"""`python -m hope_jax` is the program `hope`."""

import sys

from hope_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
