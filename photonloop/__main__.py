"""`python -m photonloop`: the `photonloop` command."""

import sys

from photonloop.controller.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
