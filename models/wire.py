"""Messages between this process and its decoders: a length, JSON, and descriptors that follow."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct(">I")
_LONGEST = 2**20
_AT_ONCE = 200  # the kernel passes at most 253 descriptors in one go


def send(channel: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    data = json.dumps({**message, "descriptors": len(descriptors)}).encode()
    channel.sendall(_LENGTH.pack(len(data)) + data)
    for start in range(0, len(descriptors), _AT_ONCE):
        socket.send_fds(channel, [b"+"], list(descriptors[start : start + _AT_ONCE]))


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """One message without descriptors, or None when the other side is gone. Raises ValueError or TypeError for anything else."""
    head = _exactly(channel, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _LONGEST:
        raise ValueError("a message is too long")
    data = _exactly(channel, length)
    if data is None:
        return None
    message = json.loads(data)
    if not isinstance(message, dict):
        raise TypeError("a message is not an object")
    return message


def receive_with_files(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """One message and its descriptors; only for the side that trusts the other."""
    message = receive(channel)
    if message is None:
        return None
    descriptors: list[int] = []
    while len(descriptors) < message["descriptors"]:
        _, more, _, _ = socket.recv_fds(channel, 1, _AT_ONCE)
        if not more:
            return None
        descriptors += more
    return message, descriptors


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    parts = []
    while count > 0:
        part = channel.recv(count)
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
