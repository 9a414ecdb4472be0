"""Names of columns: those of other tools that are recognised, and what is said of all of them."""

import re
from collections.abc import Iterable

# The names here, and others' in lower case, the surer first; any run of other characters than letters and digits counts
# as one underscore, so that "Val/Acc" is val_acc.
ALIASES: dict[str, tuple[str, ...]] = {
    "run": ("run_id", "run_name", "trial", "trial_id"),
    "step": ("steps", "global_step", "iteration", "iterations", "iter", "update", "updates", "epoch", "epochs"),
    "train_loss": ("training_loss", "loss_train", "loss_training", "loss"),
    "test_loss": ("val_loss", "valid_loss", "validation_loss", "eval_loss", "loss_test", "loss_val", "loss_eval"),
    "train_acc": (
        "train_accuracy",
        "training_accuracy",
        "training_acc",
        "acc_train",
        "accuracy_train",
        "acc",
        "accuracy",
    ),
    "test_acc": (
        *("test_accuracy", "val_accuracy", "val_acc", "valid_accuracy", "valid_acc", "validation_accuracy"),
        *("validation_acc", "eval_accuracy", "eval_acc", "acc_test", "accuracy_test", "acc_val", "accuracy_val"),
    ),
}


def recognised(columns: Iterable[str]) -> dict[str, str]:
    """The columns that are read under another name: their own name by the one they get."""
    columns = [name for name in columns if isinstance(name, str)]
    plain: dict[str, str] = {}
    for name in columns:
        plain.setdefault(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"), name)
    found = {}
    for name, aliases in ALIASES.items():
        if name not in columns:
            alias = next((alias for alias in (name, *aliases) if alias in plain), None)
            if alias is not None:
                found[name] = plain[alias]
    return found
