"""Cache of replies, so that a command that is sent twice is carried out once."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from photonloop.protocols.wire.messages import MOST_PENDING, Buffer, Frames

GONE: tuple[Buffer, ...] = ()
"""Marks a reply that was sent and is no longer kept."""

_MOST_CLIENTS = 64
_NUMBERS_PER_CLIENT = 256


class ReplyCache:
    """The last replies, by client and command number, limited in bytes.

    The newest `MOST_PENDING` replies to the client that was answered last are always kept, because that client may not
    have received them. Command numbers are kept longer than replies, so a late duplicate is refused instead of carried
    out. If a client has too many numbers, all up to the highest discarded one count as carried out.
    """

    def __init__(self, max_bytes: int, max_replies: int = 8) -> None:
        self._max_bytes = max_bytes
        self._max_replies = max_replies
        self._clients: OrderedDict[str, OrderedDict[int, Frames]] = OrderedDict()
        self._highest_discarded: dict[str, int] = {}
        self._kept: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Size of all kept replies in bytes."""
        return self._bytes

    def get(self, client_id: str, seq: int) -> Frames | None:
        """Return the reply to a command, `GONE` if it is no longer kept, None if the command was not carried out."""
        numbers = self._clients.get(client_id)
        if numbers is None:
            return None
        return numbers.get(seq, GONE if seq <= self._highest_discarded.get(client_id, 0) else None)

    def put(self, client_id: str, seq: int, frames: Frames) -> None:
        """Keep a reply, and discard older ones if there are too many."""
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
        while len(numbers) > _NUMBERS_PER_CLIENT:
            oldest, _ = numbers.popitem(last=False)
            self._highest_discarded[client_id] = max(oldest, self._highest_discarded.get(client_id, 0))
            self._bytes -= self._kept.pop((client_id, oldest), 0)
        while len(self._clients) > _MOST_CLIENTS:
            oldest_client, old = self._clients.popitem(last=False)
            self._highest_discarded.pop(oldest_client, None)
            for number in old:
                self._bytes -= self._kept.pop((oldest_client, number), 0)

    def _discard(self, key: tuple[str, int]) -> None:
        self._bytes -= self._kept.pop(key)
        client_id, seq = key
        self._clients[client_id][seq] = GONE
