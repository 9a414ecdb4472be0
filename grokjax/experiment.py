"""Experiment files: Python files with a get_config that returns the config of a sweep."""

import importlib.util
import os
import traceback
from pathlib import Path
from types import ModuleType

from grokjax.errors import InputError, shown


def load_experiment(given: str | None) -> tuple[ModuleType, object]:
    """Imports an experiment file and calls its get_config.

    Args:
      given: the file, with a variant after a colon if there is one.

    Returns:
      The module and the config.

    Raises:
      InputError: no such file, no get_config, or a config that fails to build.
    """
    import ml_collections  # not at the top: commands that are given no experiment do without

    if not given:
        raise InputError("--config is missing: name an experiment, such as --config=experiments/wd_sweep.py:small.")
    file, _, variant = os.path.expanduser(given).partition(":")
    if not os.path.isfile(file):
        raise InputError(
            f"--config={given} names no file: experiments are Python files, such as experiments/wd_sweep.py."
        )
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise InputError(f"--config={given} is no Python file: an experiment's name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise InputError(f"{file} has no get_config(arg), which is what makes it an experiment.")
        config = module.get_config(variant)
    except InputError as error:
        from grokjax.config import Mistake

        if not isinstance(error, Mistake):  # a sentence of the experiment's own
            raise
        raise InputError(f"{file}{_line_in(error, file).rstrip(',')}: {error}") from None
    except (Exception, SystemExit) as error:  # whatever an experiment file may raise is the user's to mend
        place = _line_in(error, file)
        raise InputError(f"{file}{place} failed with {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(
            f"{file}: get_config returned {shown(config)}, but it must return grokjax.config.default(), changed."
        )
    return module, config


def _line_in(error: BaseException, file: str) -> str:
    """The line of the experiment file that an error came from, as ", line 12,"."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f", line {lines[-1]}," if lines else ""


def import_experiment(file: str | None) -> None:
    """Imports the experiment file that --experiment names, for the tasks and measures it registers.

    A file that a sweep's config.json names is not: nothing that is read decides what is run.
    """
    if file:
        load_experiment(file)
