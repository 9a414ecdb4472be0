"""Progress of a sweep in training, and the summary of what came out, as a terminal shows them."""

import time
from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from grokjax.errors import plain
from grokjax.store.ledger import Ledger

LINE_SECONDS = 15.0  # between lines where the output is no terminal


def duration(seconds: float) -> str:
    """42 s, 3 min 10 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def tell(console: Console, text: str) -> None:
    """Prints text as it is: no markup, no emoji, and nothing in it steers the terminal."""
    console.print(Text(plain(text)), highlight=False, soft_wrap=True)


class LiveProgress:
    """Progress of a sweep: one live line in a terminal, a plain line now and then elsewhere.

    Args:
      console: where to.
      ledger: of the runs.
      run_steps: in the whole sweep.
      done: of them, done before this start.
    """

    def __init__(self, console: Console, ledger: Ledger, run_steps: int, done: int = 0):
        self.console, self.ledger, self.total, self.done = console, ledger, run_steps, done
        self._rate: float | None = None
        self._printed = time.monotonic()
        self._estimated = False
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"))
        self._rich = RichProgress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._rich.add_task("", total=run_steps, completed=done, text="compiling") if self._rich else None

    def __enter__(self):
        if self._rich:
            self._rich.start()
        else:
            self.say("compiling …")
        return self

    def __exit__(self, *_):
        if self._rich:
            self._rich.stop()

    def advanced(self, run_steps: int, seconds: float | None) -> None:
        """Takes in run-steps that are done, and the wall time they took where that is known (None while compiling)."""
        self.done += run_steps
        if seconds and run_steps:
            rate = run_steps / seconds
            weight = min(1.0, seconds / 20)  # a moving average over about 20 s
            self._rate = rate if self._rate is None else (1 - weight) * self._rate + weight * rate
        if self._rich and self._task is not None:
            self._rich.update(self._task, completed=self.done, text=self.text())
        elif time.monotonic() - self._printed > LINE_SECONDS or (self._rate and not self._estimated):
            self._printed, self._estimated = time.monotonic(), self._rate is not None
            self.say(f"{100 * self.done / self.total:3.0f} %  {self.text()}")

    def text(self) -> str:
        """Runs done, speed, time left, runs memorised and grokked."""
        ledger, n = self.ledger, len(self.ledger.records)
        over = sum(map(ledger.over, ledger.records))
        parts = [
            f"{over}/{n} runs",
            f"{ledger.count('memorised_step')} memorised",
            f"{ledger.count('grokked_step')} grokked",
        ]
        if self._rate:
            parts[1:1] = [f"{self._rate:,.0f} run-steps/s", f"{duration((self.total - self.done) / self._rate)} left"]
        return ", ".join(parts)

    def say(self, text: str) -> None:
        """Takes in something worth a line."""
        tell(self.console, text)


def summary(runs: pd.DataFrame, axes: Sequence[str]) -> Table:
    """Per setting (seeds pooled): runs, memorised, grokked, median and range of the step to 99 % test accuracy.

    Args:
      runs: as `store.metrics.read_runs` gives it.
      axes: the swept fields.
    """
    by = [path for path in axes if not path.endswith("seed")]
    table = Table(box=None, pad_edge=False)
    any_diverged = bool((runs["status"] == "diverged").any())
    columns = ["runs", *["diverged"] * any_diverged, "memorised", "grokked", "grok step", "range"]
    for name in [*by, *columns]:
        table.add_column(name, justify="right")
    for setting, group in runs.groupby(by, sort=True, dropna=False) if by else [((), runs)]:
        steps = group["grokked_step"].dropna()
        table.add_row(
            *(Text(plain(str(value))) for value in setting),
            str(len(group)),
            *[str((group["status"] == "diverged").sum())] * any_diverged,
            str(int(group["memorised_step"].notna().sum())),
            str(len(steps)),
            f"{steps.median():,.0f}" if len(steps) else "–",
            f"{steps.min():,.0f} – {steps.max():,.0f}" if len(steps) else "–",
        )
    return table
