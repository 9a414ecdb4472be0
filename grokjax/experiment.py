"""Experiment files: Python files with a get_config that returns the config of a sweep."""

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from grokjax.errors import InputError, line_in, shown


def load_experiment(given: str | None) -> tuple[ModuleType, object]:
    """Imports an experiment file and calls its get_config.

    Args:
      given: the file, with a variant after a colon if there is one.

    Returns:
      The module and the config.

    Raises:
      InputError: no such file, no get_config, or a config that fails to build.
    """
    if not given:
        raise InputError("--config is missing: name an experiment, such as --config=experiments/wd_sweep.py:small.")
    file, variant = _parts("--config", given)
    with _users_to_mend(file):
        module = _imported("--config", given, file)
        if not hasattr(module, "get_config"):
            raise InputError(f"{file} has no get_config(arg), which is what makes it an experiment.")
        return module, _config(module, file, variant)


def import_experiments(given: Iterable[str]) -> None:
    """Imports the files that --experiment names, for the tasks and measures they register.

    A file that a sweep's config.json names is not: nothing that is read decides what is run.

    Raises:
      InputError: as for `load_experiment`; but a file may do without get_config.
    """
    for one in given:
        file, variant = _parts("--experiment", one)
        with _users_to_mend(file):
            module = _imported("--experiment", one, file)
            if hasattr(module, "get_config"):
                _config(module, file, variant)


def load_module(flag: str, given: str) -> ModuleType:
    """Imports a Python file that a flag names.

    Raises:
      InputError: there is none, or it fails; says in which line.
    """
    if not os.path.isfile(os.path.expanduser(given)):
        raise InputError(f"{flag}={given} names no file.")
    with _users_to_mend(file := os.path.expanduser(given)):
        return _imported(flag, given, file)


def _parts(flag: str, given: str) -> tuple[str, str]:
    """The file and the variant of an experiment's name; "" for none."""
    file, colon, variant = os.path.expanduser(given).partition(":")
    if not os.path.isfile(file):
        raise InputError(
            f"{flag}={given} names no file: experiments are Python files, such as experiments/wd_sweep.py."
        )
    if colon and not variant:
        raise InputError(f"{flag}={given} has a colon and no variant after it: leave out the colon, or name a variant.")
    return file, variant


@contextlib.contextmanager
def _users_to_mend(file: str) -> Iterator[None]:
    """Turns whatever an experiment file may raise into a sentence with its line."""
    try:
        yield
    except InputError as error:
        from grokjax.config import Mistake  # not at the top: commands that are given no experiment do without

        line = line_in(error, file)
        if not isinstance(error, Mistake):  # a sentence of the experiment's own
            raise
        raise InputError(f"{file}{f', {line}' * bool(line)}: {error}") from None
    except (Exception, SystemExit) as error:
        line = line_in(error, file)
        place = f"{file}, {line}," if line else file
        raise InputError(f"{place} failed with {type(error).__name__}: {error}") from error


def _imported(flag: str, given: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{flag}={given} is no Python file: an experiment's name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _config(module: ModuleType, file: str, variant: str) -> object:
    import ml_collections  # not at the top: commands that are given no experiment do without

    config = module.get_config(variant)
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(
            f"{file}: get_config returned {shown(config)}, but it must return grokjax.config.default(), changed."
        )
    return config
