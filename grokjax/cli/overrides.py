"""Overrides: fields and axes of a config given on the command line, as people write them.

`--config.steps=2e4`, `--config.split_seed=None`, `--config.sweep.task=add,subtract`, `--config.sweep.seed=range(10)`,
`--config.sweep.weight_decay="0, logspace(-2, 1, 7)"`. What is written is parsed, never run.
"""

import ast
import copy
import re
from collections.abc import Mapping
from typing import Any

from grokjax import config as config_lib
from grokjax.cli import terminal
from grokjax.config import FIELDS, SETTING, Field
from grokjax.errors import InputError, shown, unknown


def split_overrides(args: list[str]) -> tuple[dict[str, str], list[str]]:
    """Separates --config.field=value (or --config.field value) from the other arguments.

    Returns:
      The overrides as {dotted path: text}, and the rest.
    """
    overrides, rest, left = {}, [], list(args)
    while left:
        arg = left.pop(0)
        match = re.fullmatch(r"--?config\.([^=]+)(?:=(.*))?", arg, re.DOTALL)
        if not match:
            rest.append(arg)
        elif match[2] is not None:
            overrides[match[1]] = match[2]
        elif left and not left[0].startswith("--"):
            overrides[match[1]] = left.pop(0)
        else:
            terminal.fail(f"{arg} needs a value, such as {arg}=…. See --help.")
    return overrides, rest


def override(config, overrides: Mapping[str, str]) -> None:
    """Applies overrides to a config in place.

    Raises:
      InputError: a path is no field or axis, or a text does not parse as the field's type.
    """
    for path, text in overrides.items():
        value = parsed(path, text)
        try:
            _set(config, path, value)
        except Exception as error:  # a get_config may return a tree of any shape and type
            raise InputError(
                f"--config.{path}={text} cannot be set in what get_config returned ({type(error).__name__})."
            ) from None


def _set(config, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for name in parents:
        config = config[name]
    config[leaf] = value


def parsed(path: str, text: str) -> Any:
    """The value of a field or an axis (`sweep.FIELD`) that a text stands for.

    Raises:
      InputError: as for `override`.
    """
    axis = path.removeprefix("sweep.")
    if axis != path:
        if axis not in FIELDS or FIELDS[axis].kind == SETTING:
            raise unknown("sweep axis", axis, [name for name, field in FIELDS.items() if field.kind != SETTING])
    elif path not in FIELDS and not any(name.startswith(f"{path}.") for name in FIELDS):
        raise unknown("config field", path, FIELDS)
    try:
        return _axis(FIELDS[axis], text) if axis != path else _value(FIELDS[path], text.strip())
    except Exception:  # of a parser, on any text
        hint = f"; for an axis give --config.sweep.{path}={text}" if axis == path and _is_axis(path, text) else ""
        raise InputError(f"--config.{path}={text} does not parse: {_expected(path)}{hint}.") from None


def _is_axis(path: str, text: str) -> bool:
    """Whether a text that is no value of a field would be several."""
    try:
        values = _axis(FIELDS[path], text) or ()
        return FIELDS[path].kind != SETTING and (len(values) > 1 or text.strip().endswith((")", "]")))
    except Exception:  # as in `parsed`
        return False


def _value(field: Field, text: str) -> Any:
    if text == "None" and field.default is None:
        return None
    if field.type is tuple:
        return _tuple(field, text)
    if field.type is int and re.fullmatch(r"[+-]?[\d_]+", text) is None:
        if not isinstance(number := config_lib.whole(float(text)), int):
            raise ValueError("not whole")
        return number
    if field.type is str and "," in text:
        raise ValueError("several names")
    return field.type(text)


def _axis(field: Field, text: str) -> tuple | None:
    return None if text.strip() == "None" else _tuple(field, text)


def _tuple(field: Field, text: str) -> tuple:
    """Values, and functions in `SEQUENCES`, with commas between them: in a tuple, a list or nothing."""
    try:
        return _values(ast.parse(text.strip(), mode="eval").body)
    except ValueError:
        if field.type not in (str, tuple):
            raise
        found = terminal.names(text)  # add,subtract
        if not all(name.isidentifier() for name in found):
            raise
    return found


def _values(node: ast.expr) -> tuple:
    """The values that an expression stands for: 0, logspace(-2, 0, 3) is four."""
    if isinstance(node, ast.Call):
        return _sequence(node)
    if not isinstance(node, ast.Tuple | ast.List):
        return (ast.literal_eval(node),)
    found: list[Any] = []
    for one in node.elts:
        one = one.value if isinstance(one, ast.Starred) else one
        found += _sequence(one) if isinstance(one, ast.Call) else [ast.literal_eval(one)]
    return tuple(found)


SEQUENCES = ("range", "linspace", "logspace", "geomspace")


def _sequence(node: ast.Call) -> tuple:
    """The values of a function in `SEQUENCES`, as Python and NumPy have them."""
    import numpy as np

    name = ast.unparse(node.func).removeprefix("np.").removeprefix("numpy.")
    if name not in SEQUENCES:
        raise ValueError("no function of values")
    args = [config_lib.whole(ast.literal_eval(arg)) for arg in node.args]
    more = {str(word.arg): config_lib.whole(ast.literal_eval(word.value)) for word in node.keywords}
    if name != "range" and not 0 <= more.get("num", args[2] if len(args) > 2 else 50) <= config_lib.MOST_VALUES:
        raise ValueError("more values than a sweep may have")
    values = config_lib.listed((range if name == "range" else getattr(np, name))(*args, **more))
    assert values is not None
    return values


def _expected(path: str) -> str:
    if path.startswith("sweep."):
        field = FIELDS[path.removeprefix("sweep.")]
        if field.type is str:
            return f'an axis is names with commas between them, such as "{field.default},…", or None for no axis'
        return 'an axis is values with commas between them, such as "(0.3, 1.0)", range(10), or logspace(-2, 1, 7)'
    if path not in FIELDS:
        return f"config.{path} holds fields, set those"
    return f"config.{path} must be {config_lib.ARTICLE[FIELDS[path].type]}"


def refuse_idle(config, before, overrides: Mapping[str, str], get_sweep=None) -> None:
    """Refuses overrides that change nothing, since the sweep says otherwise of what they set.

    Args:
      config: with the overrides.
      before: the config without them.
      overrides: that were applied, text by dotted path.
      get_sweep: the experiment's, or None.

    Raises:
      InputError: one does; its sentence says what would work.
    """
    swept: Any = None
    for path, text in overrides.items():
        axis = path.removeprefix("sweep.")
        if get_sweep:
            swept = swept or _runs(config, get_sweep)
            if (
                swept
                and _differs(swept, axis, path != axis, _get(config, path))
                and swept == _runs(_without(config, before, path), get_sweep)
            ):
                raise _idle_beside_get_sweep(path, text, swept)
        elif axis == path and FIELDS[path].kind != SETTING:
            values = _get(config, f"sweep.{path}")
            if values is not None and any(value != _get(config, path) for value in values):
                raise InputError(
                    f"--config.{path}={text} changes nothing, since config.sweep.{path} is {shown(tuple(values))}: "
                    f"give --config.sweep.{path}={text} for that alone."
                )


def _idle_beside_get_sweep(path: str, text: str, swept: list[Mapping[str, Any]]) -> InputError:
    alike = [name for name in ("steps", *FIELDS) if len({run[name] for run in swept}) == 1]
    free = next(name for name in alike if f"sweep.{name}" != path)
    return InputError(
        f"--config.{path}={text} changes nothing, since the experiment's get_sweep(config) says what each run has: "
        f"change it there. Fields that it leaves alone can be given, such as --config.{free}."
    )


def _differs(swept: list[Mapping[str, Any]], field: str, is_axis: bool, value: Any) -> bool:
    """Whether the runs are not as an override asks."""
    have = list(dict.fromkeys(run[field] for run in swept))
    return have != list(value or ()) if is_axis else have != [value]


def _runs(config, get_sweep) -> list[Mapping[str, Any]] | None:
    from grokjax import sweeps

    try:
        return [run.values for run in sweeps.expand(config, get_sweep).runs]
    except InputError:
        return None


def _without(config, before, path: str):
    other = copy.deepcopy(config)
    with other.ignore_type():
        _set(other, path, _get(before, path))
    return other


def _get(config, path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config
