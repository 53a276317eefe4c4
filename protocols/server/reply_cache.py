"""What was answered lately, so that a command sent twice is carried out once."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from photonloop.protocols.wire.messages import MOST_PENDING, Buffer, Frames

GONE: tuple[Buffer, ...] = ()
"""Stands for an answer that was given and is no longer kept."""

_SESSIONS = 64
_NUMBERS_A_SESSION = 256


class ReplyCache:
    """The last answers, by session and command number, bounded in bytes.

    The newest `MOST_PENDING` answers of the session that was answered last are always kept: its client may still lack
    them. Command numbers outlive their answers, so a very late duplicate is recognised and refused instead of carried
    out; once a session's numbers are too many, all up to the highest forgotten one count as carried out.
    """

    def __init__(self, max_bytes: int, max_replies: int = 8) -> None:
        self._max_bytes = max_bytes
        self._max_replies = max_replies
        self._clients: OrderedDict[str, OrderedDict[int, Frames]] = OrderedDict()
        self._forgotten: dict[str, int] = {}
        self._kept: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all kept answers."""
        return self._bytes

    def get(self, client_id: str, seq: int) -> Frames | None:
        """Return the answer to a command, `GONE` where it is no longer kept, None where it was never given."""
        numbers = self._clients.get(client_id)
        if numbers is None:
            return None
        return numbers.get(seq, GONE if seq <= self._forgotten.get(client_id, 0) else None)

    def put(self, client_id: str, seq: int, frames: Frames) -> None:
        """Keep an answer, and forget older ones beyond the bounds."""
        numbers = self._clients.setdefault(client_id, OrderedDict())
        self._clients.move_to_end(client_id)
        numbers[seq] = frames
        size = sum(len(frame) for frame in frames)
        self._kept[client_id, seq] = size
        self._bytes += size
        if self._bytes > self._max_bytes or len(self._kept) > self._max_replies:
            newest = {(client_id, number) for number in islice(reversed(numbers), MOST_PENDING)}
            while self._bytes > self._max_bytes or len(self._kept) > self._max_replies:
                oldest_kept = next((key for key in self._kept if key not in newest), None)
                if oldest_kept is None:
                    break
                self._discard(oldest_kept)
        while len(numbers) > _NUMBERS_A_SESSION:
            oldest, _ = numbers.popitem(last=False)
            self._forgotten[client_id] = max(oldest, self._forgotten.get(client_id, 0))
            self._bytes -= self._kept.pop((client_id, oldest), 0)
        while len(self._clients) > _SESSIONS:
            forgotten, old = self._clients.popitem(last=False)
            self._forgotten.pop(forgotten, None)
            for number in old:
                self._bytes -= self._kept.pop((forgotten, number), 0)

    def _discard(self, key: tuple[str, int]) -> None:
        self._bytes -= self._kept.pop(key)
        client_id, seq = key
        self._clients[client_id][seq] = GONE
