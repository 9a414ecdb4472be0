"""Files that are bad: damaged, cut short, of another kind, with code in them. Each is a sentence; no code is run."""

import os
import pickle
import sys

import numpy as np
import pytest
from cases import random_case
from foreign import SHAPE, bare, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from grokjax.core import model
from grokjax.errors import InputError
from grokjax.interp import files
from grokjax.interp.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def case():
    return random_case(**SHAPE)


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def bad_files(folder, case):
    """Bad files of every kind, each with what must be said of it."""
    good = folder / "good.npz"
    files.save_npz(case.params, case.cfg, good)
    whole = good.read_bytes()
    np.save(folder / "single.npy", np.zeros(3))
    np.savez(folder / "pickled.npz", W_E=np.array([Trap(folder / "sprung"), 1], object))
    np.savez(folder / "none.npz")
    contents = {
        "cut.npz": whole[: len(whole) // 2],
        "empty.npz": b"",
        "text.npz": b"W_E = 3\n",
        "zip.npz": b"PK\x03\x04nothing",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {
        "cut.npz": "cannot be read: it is damaged or cut short",
        "empty.npz": "neither an npz file nor one of PyTorch's",
        "text.npz": "neither an npz file nor one of PyTorch's",
        "zip.npz": "cannot be read: it is damaged or cut short",
        "single.npy": "is a single array, but a model is many",
        "pickled.npz": "holds pickled objects, which are never loaded",
        "none.npz": "no array pos_embed.W_pos",
        "nowhere.npz": "is no file: name one, or a snapshot as workdir:run:step",
        "": "is a directory: name a file, or a run of a sweep as",
        "nowhere:3:100": "nowhere does not exist.",
        ":3": "holds no sweep",
        "x" * 5000: "is no file",
        "nul\0": "is no file",
    }


def test_bad_files_are_a_sentence(tmp_path, case):
    for name, sentence in bad_files(tmp_path, case).items():
        with pytest.raises(InputError) as caught:
            load_checkpoint(f"{tmp_path}/{name}" if name[:1] != ":" else f"{tmp_path}{name}")
        assert sentence in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_may_not_be_read(tmp_path, case, monkeypatch):
    files.save_npz(case.params, case.cfg, tmp_path / "model.npz")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"model\.npz cannot be read \(Permission denied\)"):
        load_checkpoint(tmp_path / "model.npz")


def test_bad_torch_files_are_a_sentence(torch, tmp_path, case):
    state_dict = tensors(torch, case.params)
    contents = {
        "code": ({"model": state_dict, "hook": Trap(tmp_path / "sprung")}, "holds pickled code ("),
        "module": (torch.nn.Linear(2, 2), "which is never run: save a plain state dict, torch.save(model.state_dict()"),
        "list": ([state_dict], "holds a list, but a state dict is expected"),
        "tensor": (torch.zeros(3), "holds a Tensor, but a state dict is expected"),
        "curves": ({"train_losses": [1.0]}, "holds curves (train_losses) but no model: grokjax phases reads curves"),
        "model": ({"model": [1]}, "'model' is a list, but a state dict is expected"),
        "sparse": (state_dict | {"embed.W_E": torch.eye(3).to_sparse()}, "embed.W_E is a Tensor, but a plain tensor"),
        "nothing": ({}, "no array pos_embed.W_pos"),
    }
    for name, (content, sentence) in contents.items():
        for new in (True, False):
            torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new)
            with pytest.raises(InputError) as caught:
                load_checkpoint(tmp_path / name)
            assert sentence in str(caught.value)
    with open(tmp_path / "plain.pkl", "wb") as file:
        pickle.dump(Trap(tmp_path / "sprung"), file, protocol=2)
    with pytest.raises(InputError, match=r"plain\.pkl (holds pickled code|cannot be read)"):
        load_checkpoint(tmp_path / "plain.pkl")
    assert not (tmp_path / "sprung").exists()


def test_torch_is_asked_for_where_it_is_needed(torch, tmp_path, case, monkeypatch):
    files.save_torch(case.params, case.cfg, tmp_path / "model.pth")
    files.save_npz(case.params, case.cfg, tmp_path / "model.npz")
    monkeypatch.setitem(sys.modules, "torch", None)
    load_checkpoint(tmp_path / "model.npz")
    for call in (lambda: load_checkpoint(tmp_path / "model.pth"), lambda: files.save_torch(case.params, case.cfg, "x")):
        with pytest.raises(InputError, match=r"PyTorch is not installed.*pip install 'grokjax\[torch\]'"):
            call()


# --- any bytes ------------------------------------------------------------------------------------------------------


FUZZ = settings(max_examples=150)


def fuzzed(data, whole):
    """The bytes of a file, cut short or with some bits turned."""
    content = bytearray(whole)
    for position in data.draw(st.lists(st.integers(0, 8 * len(whole) - 1), max_size=4), "bits to turn"):
        content[position // 8] ^= 1 << position % 8
    return bytes(
        content[: data.draw(st.integers(0, len(whole)), "length") if data.draw(st.booleans(), "cut") else None]
    )


def loads_or_says_why(path):
    sentence = "."
    try:
        read = load_checkpoint(path)
    except InputError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    if sentence != ".":
        return
    assert {name: x.shape for name, x in read.params.items()} == model.shapes(read.cfg)
    assert all(np.all(np.isfinite(x)) for x in read.params.values())


@pytest.fixture(scope="module")
def whole_npz(tmp_path_factory):
    """A small model's file as bytes, compressed and not; and a place to write to."""
    folder = tmp_path_factory.mktemp("fuzz")
    case = random_case(3, d_model=2, n_heads=1, d_mlp=2)
    files.save_npz(case.params, case.cfg, folder / "model.npz", case.train_pairs)
    np.savez(folder / "plain.npz", **bare(case.params))
    return [(folder / name).read_bytes() for name in ("model.npz", "plain.npz")], folder / "fuzzed"


@FUZZ
@given(data=st.data())
def test_damaged_npz_files_are_a_sentence(whole_npz, data):
    whole, path = whole_npz
    path.write_bytes(fuzzed(data, data.draw(st.sampled_from(whole))))
    loads_or_says_why(path)


@pytest.fixture(scope="module")
def whole_torch(tmp_path_factory):
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("fuzz")
    case = random_case(3, d_model=2, n_heads=1, d_mlp=2)
    for name, new in (("new.pth", True), ("old.pth", False)):
        torch.save(tensors(torch, case.params), folder / name, _use_new_zipfile_serialization=new)
    return [(folder / name).read_bytes() for name in ("new.pth", "old.pth")], folder / "fuzzed"


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_torch_files_are_a_sentence(whole_torch, data):
    whole, path = whole_torch
    path.write_bytes(fuzzed(data, data.draw(st.sampled_from(whole))))
    loads_or_says_why(path)


@FUZZ
@given(content=st.binary(max_size=200), head=st.sampled_from([b"", b"PK", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY"]))
def test_any_bytes_are_a_sentence(tmp_path_factory, content, head):
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(head + content)
    with pytest.raises(InputError):
        load_checkpoint(path)
