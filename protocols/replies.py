"""What was answered lately, so that a command sent twice is carried out once."""

from __future__ import annotations

from collections import OrderedDict

from protocols.wire import Buffer, Frames

GONE: tuple[Buffer, ...] = ()
"""Stands for an answer that was given and is no longer kept."""

_SESSIONS = 64
_NUMBERS_A_SESSION = 256


class ReplyCache:
    """The last answers, by session and command number, bounded in bytes; the newest one is always kept.

    Command numbers outlive their answers, so a very late duplicate is recognised and refused instead of carried out.
    """

    def __init__(self, max_bytes: int, max_replies: int = 64) -> None:
        self._max_bytes = max_bytes
        self._max_replies = max_replies
        self._sessions: OrderedDict[str, OrderedDict[int, Frames]] = OrderedDict()
        self._kept: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all kept answers."""
        return self._bytes

    def get(self, session: str, seq: int) -> Frames | None:
        """Return the answer to a command, `GONE` where it is no longer kept, None where it was never given."""
        numbers = self._sessions.get(session)
        return None if numbers is None else numbers.get(seq)

    def put(self, session: str, seq: int, frames: Frames) -> None:
        """Keep an answer, and forget older ones beyond the bounds."""
        numbers = self._sessions.setdefault(session, OrderedDict())
        self._sessions.move_to_end(session)
        numbers[seq] = frames
        size = sum(len(frame) for frame in frames)
        self._kept[session, seq] = size
        self._bytes += size
        while len(self._kept) > 1 and (self._bytes > self._max_bytes or len(self._kept) > self._max_replies):
            self._drop(next(iter(self._kept)))
        while len(numbers) > _NUMBERS_A_SESSION:
            oldest, _ = numbers.popitem(last=False)
            self._bytes -= self._kept.pop((session, oldest), 0)
        while len(self._sessions) > _SESSIONS:
            forgotten, old = self._sessions.popitem(last=False)
            for number in old:
                self._bytes -= self._kept.pop((forgotten, number), 0)

    def _drop(self, key: tuple[str, int]) -> None:
        self._bytes -= self._kept.pop(key)
        session, seq = key
        self._sessions[session][seq] = GONE
