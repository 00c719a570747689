"""`alma.py` whose reports hold no plots: drawing them takes half the CPU time of a run on the toy domain.

All else is as in `alma.py`. Plots are tested in `test_report.py`, and in whole runs in `test_experiments.py`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path[0], sys.argv[0] = str(root), str(root / "alma.py")

    import report.figures
    from harness.cli import main

    report.figures.plots = lambda run: []
    sys.exit(main())
