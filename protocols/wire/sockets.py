"""Fast sending and receiving of multipart messages, used by client and server."""

from __future__ import annotations

import zmq

from photonloop.protocols.wire.messages import Buffer, Frames

_COPY_BELOW_BYTES = 2**20
_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def send_frames(socket: zmq.Socket, frames: Frames) -> None:
    """Send a message without waiting. If it cannot be queued now, nothing is sent and `zmq.Again` is raised.

    Only large frames are sent without a copy: for small ones the copy is faster, because pyzmq tracks a frame that it
    does not copy in another thread.
    """
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        socket.send(frame, _LAST if index == last else _MORE, len(frame) < _COPY_BELOW_BYTES)


def receive_frames(socket: zmq.Socket, flags: int = 0) -> list[Buffer]:
    """Return the frames of the next message, without copies; raises as `zmq.Socket.recv` does."""
    first, frames = receive_from(socket, flags)
    return [first.buffer, *frames]


def receive_from(socket: zmq.Socket, flags: int = 0) -> tuple[zmq.Frame, list[Buffer]]:
    """Return the first frame of the next message, by which a ROUTER socket identifies the sender, and the other frames.

    `recv_multipart` is slower: it queries the socket after every frame for whether another one follows.
    """
    first = frame = socket.recv(flags, copy=False)
    frames: list[Buffer] = []
    while frame.more:
        frame = socket.recv(flags, copy=False)
        frames.append(frame.buffer)
    return first, frames
