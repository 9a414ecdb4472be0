"""Trains every run of a sweep: the same as `grokjax train`, from a clone of the repository.

python launch.py --config=experiments/wd_sweep.py:small --workdir=results/small
"""

import sys

from grokjax.cli import terminal, train

if __name__ == "__main__":
    terminal.guarded(train.main, sys.argv[1:], "python launch.py")
