"""`python -m benchmark`: what `scripts/bench` runs once its environment is there."""

from __future__ import annotations

import sys

from benchmark.command import main

sys.exit(main())
