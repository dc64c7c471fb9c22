"""`python -m retfound_dist`, as torchrun starts it."""

import sys

from retfound_dist.cli import main

sys.exit(main())
