"""Final states of runs, optimizer included, from which they are trained longer; kept as snapshots are."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from grokjax.core.problem import Inputs, State
from grokjax.store import files, snapshots
from grokjax.store.snapshots import Snapshots

FOLDER = "final_states"  # in a working directory


def find(workdir: str | Path) -> Snapshots:
    """Finds every final state: {(run, step): (folder, index in its stack)}."""
    return snapshots.find_snapshots(workdir, FOLDER)


def save(workdir: Path, step: int, runs: Sequence[int], state: State) -> None:
    """Saves the states of some runs that have ended.

    Args:
      workdir: of the sweep.
      step: at which they ended.
      runs: their numbers, ascending.
      state: of these, stacked in that order.

    Raises:
      StorageError: they cannot be written.
    """
    snapshots.save_snapshot(workdir / FOLDER, step, runs, _leaves(state))


def prune(workdir: Path) -> None:
    """Removes the folders of states from which every run has gone on to a later one."""
    found = find(workdir)
    last = dict(sorted(found))
    needed = {folder for (run, step), (folder, _) in found.items() if step == last[run]}
    for folder in {folder for folder, _ in found.values()} - needed:
        files.drop(folder)


def load(found: Snapshots, runs: Sequence[tuple[int, int]], blank: State, inputs: Sequence[Inputs]) -> State:
    """The states of some runs, stacked, as NumPy arrays.

    Args:
      found: as `find` gives it.
      runs: (run, step) of each.
      blank: shapes and dtypes of one state.
      inputs: of each run, which no file holds.

    Raises:
      Damaged: they are not what was saved.
    """
    wanted = _leaves(blank)
    held: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for step in dict.fromkeys(step for _, step in runs):
        of_step = [run for run, other in runs if other == step]
        held |= {(run, step): values for run, values in snapshots.load_many(found, step, of_step).items()}
    for key in runs:
        shapes = {name: (x.shape, x.dtype) for name, x in held[key].items()}
        if shapes != {name: (x.shape, x.dtype) for name, x in wanted.items()}:
            raise files.Damaged(f"{found[key][0]} holds no state of run {key[0]}")
    leaves = [np.stack([held[key][name] for key in runs]) for name in wanted]
    state = jax.tree.unflatten(jax.tree.structure(_kept(blank)), leaves)
    return state._replace(inputs=jax.tree.map(lambda *x: np.stack(x), *inputs))


def _kept(state: State) -> State:
    """What no config tells: the state without its inputs."""
    return state._replace(inputs=None)  # type: ignore[arg-type]


def _leaves(state: State) -> dict:
    """The arrays by their place in the state, such as ".params['embed.W_E']"."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(_kept(state))}
