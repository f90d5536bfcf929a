"""``python -m neuromend`` is the command ``neuromend``."""

from __future__ import annotations

import sys

from neuromend.cli import main

if __name__ == "__main__":
    sys.exit(main())
