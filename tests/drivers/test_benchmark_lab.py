"""The benchmark of benches runs, and reports round trips, characters and times."""

from __future__ import annotations

import json

import pytest
from benchmarks import lab

pytestmark = pytest.mark.slow


def test_the_comparison_of_nodelay_reports_round_trips_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.main(["--nodelay", "--json", "--updates", "10", "--slow-updates", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["updates"] == 10
    assert found["round_trips_per_update"] >= 11  # 3 drives, 4 light settings, 4 readings
    assert found["one_by_one_calls_per_update"] >= 11
    assert min(found["ratio"], found["one_by_one_ratio"]) > 0


def test_lists_save_characters_and_no_round_trip(capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.main(["--lists", "--json", "--updates", "5", "--settings", "4", "16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["updates"] == 5
    assert found["listed_4_messages"] == found["written_4_messages"] == 5  # too few for a list
    assert (found["listed_16_messages"], found["written_16_messages"]) == (19, 17)
    assert found["listed_16_characters_sent"] < 0.8 * found["written_16_characters_sent"]
    assert found["ratio_16"] > 0
