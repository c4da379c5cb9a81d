"""`python -m pipeline` is the same program as the installed command `pipeline`."""

import sys

from pipeline_command import main

if __name__ == "__main__":
    sys.exit(main())
