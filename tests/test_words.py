"""The words of a page: lists run over frequencies, or over the blocks of groups."""

import json

import numpy as np

from grokjax.report.words import Words, of_columns

S_3 = {"names": ["1b", "2a"], "dims": [1, 2], "kinds": ["real", "real"], "sizes": [1, 4]}
UNITS = {"names": ["k=1", "k=2"], "dims": [1, 1], "kinds": ["complex", "real"], "sizes": [2, 1]}


def row(task, group=None, p=6, keys=(2,)):
    return {"task": task, "group": group, "p": p, "key_freqs": np.array(keys)}


def test_of_frequencies_nothing_changes():
    for words in (Words({}), Words({"units of Z_5": UNITS})):
        assert words("Fourier norms of W_E over frequencies") == "Fourier norms of W_E over frequencies"
        assert words.names(row("multiply", p=5)) is None
        assert words.keys(row("add", keys=(1, 3))) == ["1", "3"]
    assert words.facts() == "units of Z_5: k=1 (2), k=2 (1)"


def test_of_groups_it_is_blocks():
    words = of_columns({"test_loss": {}, "freq_norm_W_E": {"blocks": json.dumps({"S_3": S_3})}})
    assert words("Fourier norms of W_E") == "Block norms of W_E"
    assert words("Gini coefficients of the Fourier norms") == "Gini coefficients of the block norms"
    assert words("Number of key frequencies, largest of one frequency") == "Number of key blocks, largest of one block"
    assert words.facts() == "S_3: 1b (1), 2a (4)"
    assert words.keys(row("group", "S_3")) == words.keys(row("group S_3")) == ["2 (2a)"]
    assert words.keys(row("group", "Z_7", 7)) == ["2"]


def test_many_blocks_are_not_all_listed():
    many = {"names": [f"1{x}" for x in "abcdefghijklmnop"], "sizes": [1] * 16}
    assert Words({"G": many}).facts().endswith("1l (1), … 16 in all")
