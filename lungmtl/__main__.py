"""`python -m lungmtl`: see lungmtl.cli."""

import sys

from lungmtl.cli import main

sys.exit(main())
