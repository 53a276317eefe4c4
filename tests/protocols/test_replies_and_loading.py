from __future__ import annotations

import numpy as np
import pytest

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.duration_estimator import DurationEstimator
from photonloop.protocols.server.input_transfer import Transfer, add_chunk
from photonloop.protocols.server.reply_cache import GONE, ReplyCache
from photonloop.protocols.wire.messages import LoadInputsBody


def test_kept_replies_are_limited_in_bytes_except_the_newest() -> None:
    cache = ReplyCache(max_bytes=100)
    cache.put("s", 1, [b"x" * 60])
    cache.put("s", 2, [b"y" * 30])
    assert cache.get("s", 1) == [b"x" * 60]
    cache.put("s", 3, [b"z" * 20])
    assert cache.get("s", 1) is GONE
    assert cache.get("s", 2) == [b"y" * 30]
    assert cache.nbytes == 50
    cache.put("s", 4, [b"w" * 500])
    cache.put("s", 5, [b"v" * 500])  # two replies may be in transit to a client
    assert cache.get("s", 4) == [b"w" * 500]
    assert cache.get("s", 5) == [b"v" * 500]
    assert cache.get("s", 3) is GONE
    assert cache.nbytes == 1000
    assert cache.get("s", 6) is None
    assert cache.get("t", 1) is None


def test_kept_replies_are_limited_in_number_and_in_clients() -> None:
    cache = ReplyCache(max_bytes=10**6)
    for seq in range(1, 1001):
        cache.put("s", seq, [b"x" * 10])
    assert cache.get("s", 1000) is not GONE
    assert cache.get("s", 900) is GONE
    assert cache.get("s", 1) is GONE  # discarded; lower than all kept numbers, so it was carried out
    assert cache.get("s", 1001) is None
    assert cache.nbytes == 80
    for n in range(200):
        cache.put(f"t{n}", 1, [b"x" * 10])
    assert cache.get("s", 1000) is None
    assert cache.get("t199", 1) == [b"x" * 10]
    assert cache.nbytes <= 80


def body(offset: int, shape: tuple[int, ...] = (4, 3), name: str = "a") -> LoadInputsBody:
    return LoadInputsBody(name=name, dtype="f4", shape=shape, offset=offset)


def test_chunks_are_assembled_to_the_array() -> None:
    array = np.arange(12, dtype="<f4").reshape(4, 3)
    data = array.tobytes()
    transfer: Transfer | None = None
    whole = None
    for offset in range(0, 48, 20):
        assert whole is None
        transfer, whole = add_chunk(transfer, "s", body(offset), data[offset : offset + 20], 48)
    assert transfer is None
    assert whole is not None
    np.testing.assert_array_equal(whole, array)


def test_chunks_that_do_not_fit_are_refused() -> None:
    open_one, _ = add_chunk(None, "s", body(0), bytes(20), 48)
    assert open_one is not None
    for transfer, client_id, chunk_body, chunk, word in (
        (None, "s", body(0), bytes(48), "more than max_loaded_bytes 47"),
        (None, "s", body(0), bytes(49), "take 48 bytes, but the chunk at 0 has 49"),
        (None, "s", body(20), bytes(28), "without those before"),
        (open_one, "other", body(20), bytes(28), "without those before"),
        (open_one, "s", body(20, name="b"), bytes(28), "without those before"),
        (open_one, "s", body(20, (3, 4)), bytes(28), "without those before"),
        (open_one, "s", body(24), bytes(24), "the next one starts at 20"),
    ):
        with pytest.raises(DeviceError, match=word):
            add_chunk(transfer, client_id, chunk_body, chunk, 47 if "47" in word else 48)


def test_an_announced_size_allocates_no_memory() -> None:
    claimed = LoadInputsBody(name="a", dtype="f8", shape=(2**20, 2**17), offset=0)
    transfer, whole = add_chunk(None, "s", claimed, b"x" * 8, 2**41)
    assert whole is None
    assert transfer is not None
    assert len(transfer.data) == 8


def test_durations_are_predicted_for_recorded_sizes_only() -> None:
    estimator = DurationEstimator()
    assert estimator.predicted_s("m", 2, 128) == float("inf")
    estimator.note("m", 2, 128, 2.56e-3)
    assert estimator.predicted_s("m", 2, 128) == pytest.approx(2.56e-3)
    assert estimator.predicted_s("m", 4, 100) == pytest.approx(4e-3)
    assert estimator.predicted_s("m", 4, 1000) == float("inf")
    assert estimator.predicted_s("n", 2, 128) == float("inf")
    for _ in range(8):
        estimator.note("m", 2, 128, 2.56e-4)
    assert estimator.predicted_s("m", 2, 128) == pytest.approx(2.56e-4)
