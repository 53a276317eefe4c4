"""Sending and receiving, tuned: what client and server do alike with their sockets."""

from __future__ import annotations

import zmq

from photonloop.protocols.wire.messages import Buffer, Frames

_COPY_BELOW_BYTES = 2**20
_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def send_frames(socket: zmq.Socket, frames: Frames) -> None:
    """Send a message without waiting; `zmq.Again` where it cannot be queued now, and then nothing of it is sent.

    Only large frames travel without a copy: handing a buffer over costs pyzmq a thread's wake-up, more than copying it.
    """
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        socket.send(frame, _LAST if index == last else _MORE, len(frame) < _COPY_BELOW_BYTES)


def receive_frames(socket: zmq.Socket, flags: int = 0) -> list[Buffer]:
    """Return the frames of the next message, on the memory in which they came; raises as `zmq.Socket.recv` does."""
    first, frames = receive_from(socket, flags)
    return [first.buffer, *frames]


def receive_from(socket: zmq.Socket, flags: int = 0) -> tuple[zmq.Frame, list[Buffer]]:
    """Return as `receive_frames` does, and the first frame as ZeroMQ has it: from a ROUTER it tells who sent the message.

    `recv_multipart` asks the socket after every frame whether another one follows; the frame knows it.
    """
    first = frame = socket.recv(flags, copy=False)
    frames: list[Buffer] = []
    while frame.more:
        frame = socket.recv(flags, copy=False)
        frames.append(frame.buffer)
    return first, frames
