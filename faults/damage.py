"""What may have become of a file: other bytes, something else in its place, or a file that was made to do harm."""

import io
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# --- bytes ------------------------------------------------------------------------------------------------------------


def turned(data: bytes, draw: random.Random, other: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(8 * len(found))
        found[at // 8] ^= 1 << at % 8
    return bytes(found)


def cut(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def emptied(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return b""


def noise(data: bytes, draw: random.Random, other: bytes) -> bytes:
    at, n = draw.randrange(len(data)), draw.choice([1, 4, 16, 200])
    return data[:at] + draw.randbytes(n) + data[at + n :]


def extreme(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """A number in it as large, or as negative, as it can be: lengths and offsets are such."""
    word = draw.choice([b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 3 + b"\x7f", b"\0" * 8, b"\x80"])
    anywhere, near = draw.randrange(len(data)), draw.randrange(min(64, len(data)))
    at = draw.choice([anywhere, near, len(data) - 1 - draw.randrange(min(200, len(data)))])
    return data[:at] + word + data[at + len(word) :]


def spliced(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def repeated(data: bytes, draw: random.Random, other: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at : at + draw.randrange(1, 300)] * draw.choice([2, 50]) + data[at:]


WORDS = (
    *(b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'"x"', b"9" * 30, b"true"),
    *(b'"\\u0000\\u001b[2J../.."', b"0"),
)


def swapped(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """Digits and words in text for others; of binary files, some bytes anywhere."""
    spans = [i for i in range(len(data)) if data[i : i + 1].isalnum()]
    if not spans:
        return noise(data, draw, other)
    at = draw.choice(spans)
    end = at
    while end < len(data) and data[end : end + 1].isalnum():
        end += 1
    return data[:at] + draw.choice(WORDS) + data[end:]


def nested(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return draw.choice([b"[", b'{"a":', b"(" * 3]) * 100_000


def foreign(data: bytes, draw: random.Random, other: bytes) -> bytes:
    heads = [b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY\x01\0", b"PAR1", b"{", b"\x1f\x8b", b"\x89HDF\r\n\x1a\n", b""]
    return draw.choice(heads) + draw.randbytes(draw.choice([0, 3, 500]))


def replaced(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return other


BYTES = (turned, cut, emptied, noise, extreme, spliced, repeated, swapped, foreign, replaced)
# What may lie where a file was.
PLACES = ("folder", "link to itself", "link to nothing", "pipe", "endless device", "huge and hollow", "missing")
LINKS = {"link to itself": "{}", "link to nothing": "nowhere", "endless device": "/dev/zero"}


def put_in_place(path: Path, what: str) -> None:
    """Puts something else where a file was."""
    path.unlink()
    if what == "folder":
        path.mkdir()
        (path / "file").write_bytes(b"x")
    elif what == "pipe":
        os.mkfifo(path)
    elif what in LINKS:
        path.symlink_to(LINKS[what].format(path.name))
    elif what == "huge and hollow":
        with open(path, "wb") as file:
            file.truncate(1 << 40)


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _npy(shape: Sequence[int], descr: str, body: bytes = b"") -> bytes:
    """An array file that says of itself what is not so."""
    head = repr({"descr": descr, "fortran_order": False, "shape": tuple(shape)}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + body


def _zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    """What a function writes into a file."""
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def bomb(draw: random.Random, trap: Path) -> bytes:
    """Few bytes that unpack to 4 GiB."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("W_E.npy", "w", force_zip64=True) as file,
    ):
        file.write(_npy([1 << 30], "<f4"))
        for _ in range(256):
            file.write(bytes(1 << 24))
    return out.getvalue()


SHAPES = ([1 << 40], [1 << 31, 1 << 31], [-1], [0, 1 << 62], [1 << 62, 8], [1] * 40, ["x"], [1 << 33])


def announces(draw: random.Random, trap: Path) -> bytes:
    """An array that is said to be huge."""
    shape: Any = draw.choice(SHAPES)
    descr = draw.choice(["<f4", "<f8", "|O", "<U1000000000", "|V8", "<M8"])
    return _zipped(("W_E.npy", _npy(shape, descr, bytes(64))))


def two_of_a_name(draw: random.Random, trap: Path) -> bytes:
    names = ["W_E.npy", "W_E.npy", "../../W_E.npy", "/W_pos.npy", "\x1b[2J\n.npy", "x" * 60_000 + ".npy"]
    return _zipped(*((name, _npy([2, 2], "<f4", bytes(16))) for name in names), method=zipfile.ZIP_STORED)


def pickled_npz(draw: random.Random, trap: Path) -> bytes:
    return _saved(lambda out: np.savez(out, W_E=np.array([Trap(trap), 1], object)))


def pickled_member(draw: random.Random, trap: Path) -> bytes:
    return _zipped(("W_E.npy", pickle.dumps(Trap(trap))), ("W_pos", pickle.dumps(Trap(trap))))


def pickled_array(draw: random.Random, trap: Path) -> bytes:
    return _saved(lambda out: np.save(out, np.array([Trap(trap)], object)))


def pickled(draw: random.Random, trap: Path) -> bytes:
    return pickle.dumps(Trap(trap), protocol=draw.choice([0, 2, 4]))


def pickled_torch(draw: random.Random, trap: Path) -> bytes:
    import torch

    content = draw.choice([{"model": {"W_E": Trap(trap)}}, Trap(trap), {"W_E": torch.zeros(2), "x": [Trap(trap)]}])
    is_zip = draw.random() < 0.5
    return _saved(lambda out: torch.save(content, out, _use_new_zipfile_serialization=is_zip))


def pickled_zip(draw: random.Random, trap: Path) -> bytes:
    others = [("a/version", b"3\n"), ("a/byteorder", b"little"), ("a/constants.pkl", b"")]
    return _zipped(("a/data.pkl", pickle.dumps(Trap(trap))), *others, method=zipfile.ZIP_STORED)


LOSSES = ("run", "step", "train_loss", "test_loss")


def pickled_parquet(draw: random.Random, trap: Path) -> bytes:
    """A table whose metadata asks for pickled code, which pyarrow ran before 14.0.1."""
    code = pickle.dumps(Trap(trap))
    meta = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": code}
    names = (*LOSSES, "status", "last_step")
    fields = [pa.field(name, pa.int64(), True, meta) for name in names]
    table = pa.table([[0, 1]] * len(names), schema=pa.schema(fields, {b"pandas": code, b"config": code}))
    return _saved(lambda out: pq.write_table(table, out))


def wide_parquet(draw: random.Random, trap: Path) -> bytes:
    """Few bytes that are many rows."""
    names = draw.choice([LOSSES, ("run", "status", "last_step"), ("\x1b[2J", "a\nb")])
    table = pa.table({name: np.zeros(10_000_000) for name in names})
    return _saved(lambda out: pq.write_table(table, out, compression="zstd"))


def other_json(draw: random.Random, trap: Path) -> bytes:
    """Right as JSON, wrong as config.json; or it names code to run."""
    experiment = trap.parent / "evil.py"
    experiment.write_text(f"import os\nos.mkdir({str(trap)!r})\n")
    almost = {"runs": [{"run": 0}], "config": {}, "axes": {}, "groups": [{}]}
    return json.dumps(draw.choice([[], 3, None, {}, {"runs": []}, almost])).encode()


def announces_tensors(draw: random.Random, trap: Path) -> bytes:
    """A safetensors header that tells of arrays which are not there, or is no header."""
    length, shape = draw.choice([0, 2, 100, 1 << 40]), draw.choice([[], [1 << 40], [-1], [1 << 62, 4], ["x"]])
    record = draw.choice(["[" * 100_000, '{"version": []}', '{"version": "1", "p": 1e999}', ""])
    said = {"__metadata__": {"grokjax": record}}
    about = {"dtype": draw.choice(["F32", "BF16", "F4", 3]), "shape": shape, "data_offsets": [0, length]}
    text = json.dumps({"W_E": about} | said).encode()
    return struct.pack("<Q", draw.choice([len(text), len(text), 1 << 62, 3])) + text


CRAFTED: dict[str, tuple[Callable[[random.Random, Path], bytes], ...]] = {
    "npz": (bomb, announces, two_of_a_name, pickled_npz, pickled_member, pickled_torch),
    "npy": (pickled_array, pickled, pickled_npz),
    "safetensors": (announces_tensors, announces_tensors, pickled_npz, pickled),
    "many": (pickled, pickled_torch, pickled_zip, bomb, two_of_a_name),
    "torch": (pickled, pickled_torch, pickled_zip, bomb),
    "table": (pickled_parquet, wide_parquet, pickled),
    "parquet": (pickled_parquet, wide_parquet),
    "json": (other_json,),
    "checkpoint": (pickled,),
    "snapshot": (pickled, pickled_array),
}
