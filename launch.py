"""Trains every run of a sweep in one compiled program, and writes what happened to Parquet.

    python launch.py --config=experiments/wd_sweep.py:small --workdir=results/small

Any field of the config can be overridden (--config.steps=20000), and any sweep axis
(--config.sweep.weight_decay="(0.3, 1.0)"). The same command again goes on where it was interrupted.
"""

from grokjax.cli import train

if __name__ == "__main__":
    train.main()
