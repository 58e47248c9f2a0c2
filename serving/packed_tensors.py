"""How packed checkpoints store tensors: integers on a grid of each row's own, and what they stand for.

A matrix is int8 with one float32 scale per row, or the integer difference to another matrix on that one's grid. The
float32 product of an integer and a scale is exact to the bit on every machine. Numpy and zlib; the only file known here
is the zip file, whose members are zlib streams.
"""

from __future__ import annotations

import enum
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]

INDEX = "index.json"
_LARGEST = 127


@dataclass(frozen=True, slots=True)
class Rows:
    """A matrix as integers (R, C) and float32 scales (R,): it is `values * scales[:, None]`."""

    values: npt.NDArray[np.integer[Any]]
    scales: Floats

    @classmethod
    def of(cls, matrix: Floats) -> Rows:
        """The nearest int8 values in [-127, 127], within half a scale; a row of zeros has scale 1.

        What `matrix()` returned gives the same rows again: m / 127 survives being multiplied by 127 and divided.
        """
        largest = np.abs(matrix).max(axis=1)
        scales = np.where(largest > 0, largest / np.float32(_LARGEST), np.float32(1)).astype(np.float32)
        return cls(np.clip(np.rint(matrix / scales[:, None]), -_LARGEST, _LARGEST).astype(np.int8), scales)

    def matrix(self) -> Floats:
        """The float32 matrix (R, C)."""
        return self.values.astype(np.float32) * self.scales[:, None]

    def plus(self, difference: Difference) -> Rows:
        """The rows that the difference was taken of."""
        return Rows(self.values.astype(np.int32) + difference.step * difference.values.astype(np.int32), self.scales)


@dataclass(frozen=True, slots=True)
class Difference:
    """How a matrix differs from another one's rows: int8 values (R, C), in steps of that one's grid."""

    values: npt.NDArray[np.int8]
    step: int

    @classmethod
    def between(cls, matrix: Floats, base: Rows) -> Difference | None:
        """The difference to the nearest step; None where it does not fit.

        A step is one of the grid, the precision that int8 has, or about the root mean square of the differences where
        they are larger: so the difference takes some 2 bits a number, however far the two are apart.
        """
        differences = matrix / base.scales[:, None] - base.values
        step = max(1, round(float(np.sqrt(np.mean(np.square(differences))))))
        values = np.rint(differences / step)
        return cls(values.astype(np.int8), step) if np.abs(values).max() <= _LARGEST else None


class Coding(enum.StrEnum):
    """How a tensor is stored."""

    PLAIN = "plain"
    ROWS = "rows"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What the index says of a tensor.

    Attributes:
        coding: How its members of the zip file are to be read.
        dtype: Of the values stored, numpy's name.
        shape: Of the values.
        base: Of a difference: the name of the rows that it is to.
        step: Of a difference.
    """

    coding: Coding
    dtype: str
    shape: tuple[int, ...]
    base: str = ""
    step: int = 1


@dataclass(frozen=True, slots=True)
class TensorIndex:
    """The tensors of a pack.

    Attributes:
        tensors: By the name under which they are stored, once each.
        files: By weight file: the name that each of its tensors is stored under.
    """

    tensors: Mapping[str, StoredTensor]
    files: Mapping[str, Mapping[str, str]]

    def to_json(self) -> str:
        """For `INDEX`."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TensorIndex:
        """What `to_json` wrote."""
        read = json.loads(text)
        tensors = {
            name: StoredTensor(**{**fields, "coding": Coding(fields["coding"]), "shape": tuple(fields["shape"])})
            for name, fields in read["tensors"].items()
        }
        return cls(tensors, read["files"])


def deflate(data: bytes) -> bytes:
    """The zlib stream of a member.

    Trained weights have no repetitions to find: looking for them costs up to a sixth, unless nearly all are zero.
    """
    huffman = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return min(zlib.compress(data, 9), huffman.compress(data) + huffman.flush(), key=len)


def values_member(name: str) -> str:
    """Where the zip file holds a tensor's values, little-endian."""
    return f"{name}.values"


def scales_member(name: str) -> str:
    """Where the zip file holds a tensor's scales."""
    return f"{name}.scales"


def read_index(archive: zipfile.ZipFile) -> TensorIndex:
    """The index of a pack's zip file."""
    return TensorIndex.from_json(_read(archive, INDEX).decode())


def read_tensors(archive: zipfile.ZipFile, file: str) -> dict[str, Array]:
    """The tensors of a weight file, by name; matrices are float32 again."""
    index = read_index(archive)
    restored = {}
    for name, stored_name in index.files[file].items():
        plain = index.tensors[stored_name].coding is Coding.PLAIN
        restored[name] = _values(archive, index, stored_name) if plain else _rows(archive, index, stored_name).matrix()
    return restored


def _rows(archive: zipfile.ZipFile, index: TensorIndex, name: str) -> Rows:
    stored, values = index.tensors[name], _values(archive, index, name)
    if stored.coding is Coding.DIFFERENCE:
        return _rows(archive, index, stored.base).plus(Difference(values, stored.step))
    return Rows(values, np.frombuffer(_read(archive, scales_member(name)), "<f4").astype(np.float32))


def _values(archive: zipfile.ZipFile, index: TensorIndex, name: str) -> Array:
    stored = index.tensors[name]
    values = np.frombuffer(_read(archive, values_member(name)), np.dtype(stored.dtype).newbyteorder("<"))
    return values.reshape(stored.shape).astype(stored.dtype)


def _read(archive: zipfile.ZipFile, member: str) -> bytes:
    return zlib.decompress(archive.read(member))
