"""`python -m lungmtl`: see lungmtl.cli."""

import sys

from lungmtl.cli import main

if __name__ == "__main__":  # a worker process imports this module, too
    sys.exit(main())
