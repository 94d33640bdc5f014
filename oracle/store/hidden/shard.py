"""One file of hidden states: plain safetensors with checksums over every byte.

The header contains a checksum of itself and one per state, so that the state after one layer can be read and verified
without the others.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from oracle.store.files import write_whole
from oracle.store.hidden.key import Key

__all__ = ["DamagedError", "Entry", "States", "map_states", "pack", "read_entry", "write_shard"]

States = NDArray[Any]
"""(I, T, D). Numpy has no bfloat16: such states are stored as their bits, in 16-bit unsigned integers."""

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Dtype names of safetensors -> of numpy."""

TENSOR = "states"
LENGTH = 8
HEX = 32
OPENING = b'{"__metadata__":{"checksum":"'
"""Start of every header: fixes the position of the checksum, which is verified before the header is parsed."""
LONGEST = 2**26


class DamagedError(Exception):
    """A file does not hold what was written."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Parsed header of one file.

    Attributes:
        key: key of the states.
        name: display name of the model.
        dtype: dtype of the states, by its name in safetensors.
        shape: (I, T, D).
        checksums: one per state.
        start: byte offset of the states.
    """

    key: Key
    name: str
    dtype: str
    shape: tuple[int, int, int]
    checksums: tuple[str, ...]
    start: int

    @property
    def state_bytes(self) -> int:
        """Bytes of one state (T, D)."""
        return prod(self.shape[1:]) * np.dtype(TYPES[self.dtype]).itemsize

    @property
    def bytes(self) -> int:
        """Bytes of the file."""
        return self.start + self.shape[0] * self.state_bytes


def pack(key: Key, name: str, states_ITD: States) -> bytes:
    """The header of a file of contiguous states."""
    [dtype] = [known for known, numpys in TYPES.items() if states_ITD.dtype == np.dtype(numpys)]
    metadata = {
        "checksum": "0" * HEX,
        "states": " ".join(_checksum(state.ravel().data) for state in states_ITD),
        "key": key.text,
        "name": name.encode(errors="replace").decode(),
    }
    tensor = {"dtype": dtype, "shape": states_ITD.shape, "data_offsets": [0, states_ITD.nbytes]}
    header = json.dumps({"__metadata__": metadata, TENSOR: tensor}, separators=(",", ":")).encode()
    header += b" " * (-(LENGTH + len(header)) % 64)  # aligns the states to 64 bytes
    header = len(header).to_bytes(LENGTH, "little") + header
    return _signed(header, _checksum(header))


def write_shard(path: Path, header: bytes, states_ITD: States) -> None:
    """Writes a file whole or not at all; other processes may write the same one concurrently."""

    def write(scratch: Path) -> None:
        with scratch.open("wb") as file:
            file.write(header)
            file.write(states_ITD.data)

    write_whole(path, write)


def read_entry(file: BinaryIO) -> Entry:
    """The header of an open file, verified, including the size of the file.

    Raises:
        DamagedError: if the header is damaged or does not match the file's size.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(LENGTH)
    length = int.from_bytes(head, "little")
    if size < LENGTH + len(OPENING) + HEX or not len(OPENING) + HEX < length <= min(size - LENGTH, LONGEST):
        raise DamagedError(f"a header of {length} bytes in a file of {size}")
    header = head + file.read(length)
    place = LENGTH + len(OPENING)
    found = header[place : place + HEX].decode("ascii", errors="replace")
    if header[LENGTH:place] != OPENING or found != _checksum(_signed(header, "0" * HEX)):
        raise DamagedError("the checksum of the header is wrong")
    try:
        entry = _parse(json.loads(header[LENGTH:]), len(header))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"the header is not one of this store: {error!r}") from error
    if size != entry.bytes:
        raise DamagedError(f"{size} bytes instead of {entry.bytes}")
    return entry


def map_states(file: BinaryIO, entry: Entry, first: int, stop: int) -> States:
    """States `first` to `stop` (exclusive), memory-mapped and verified; nothing else is read.

    The mapping is copy-on-write: changes do not reach the file.

    Raises:
        DamagedError: if a checksum is wrong.
    """
    states = np.memmap(
        file,
        dtype=TYPES[entry.dtype],
        mode="c",
        offset=entry.start + first * entry.state_bytes,
        shape=(stop - first, *entry.shape[1:]),
    )
    for state, place in zip(states, range(first, stop), strict=True):
        if _checksum(state.ravel().data) != entry.checksums[place]:
            raise DamagedError(f"the checksum of state {place} is wrong")
    return states


def _checksum(data: memoryview | bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:HEX]


def _signed(header: bytes, checksum: str) -> bytes:
    """The header with its checksum replaced."""
    place = LENGTH + len(OPENING)
    return header[:place] + checksum.encode() + header[place + HEX :]


def _parse(header: dict[str, Any], start: int) -> Entry:
    metadata, tensor = header["__metadata__"], header[TENSOR]
    states, tokens, width = (int(size) for size in tensor["shape"])
    entry = Entry(
        key=Key.from_text(metadata["key"]),
        name=metadata["name"],
        dtype=tensor["dtype"],
        shape=(states, tokens, width),
        checksums=tuple(metadata["states"].split()),
        start=start,
    )
    if len(entry.checksums) != states or min(entry.shape) < 1 or entry.dtype not in TYPES:
        raise ValueError(f"{len(entry.checksums)} checksums for {entry.dtype} of shape {entry.shape}")
    return entry
