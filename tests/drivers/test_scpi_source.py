"""Voltage sources described by a table, against transcripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.replays import driven

from photonloop.drivers.helpers.command_templates import TABLE_FOLDER, with_table
from photonloop.drivers.instrument import ChannelLimits, DriveSource, MeasuresVolts, ReadsAmps, ReadsVolts
from photonloop.drivers.sources.scpi_source import ScpiSourceSettings, open_scpi_source
from photonloop.drivers.transports.recording import Event
from photonloop.protocols.config import ConfigError, validate
from photonloop.protocols.errors import DeviceError

NO_ERROR = '+0,"No error"'
IDENTITY = ("*IDN?", "ACME,M1,7,1.0")
TABLE: dict[str, Any] = {
    "channels": 3,
    "max_v": 15.0,
    "set": "VOLT {volts},(@{channel})",
    "query_volts": "VOLT? (@{channels})",
    "query_amps": "MEAS:CURR? (@{channels})",
    "limit_volts": "VOLT:PROT {volts},(@{channel})",
    "limit_amps": "CURR:LIM {amps},(@{channel})",
    "error": "SYST:ERR?",
}
ASK = ":VOLT? (@1,2,3)"
OPENING = [IDENTITY, ("SYST:ERR?", NO_ERROR), (ASK, "+0.0E+00,+0.0E+00,+0.0E+00")]


def source(lines, **changes: Any):
    settings = validate(ScpiSourceSettings, {**TABLE, **changes}, "table")
    return driven(open_scpi_source, settings, settings.dialect, lines)


def test_a_setting_is_one_message():
    lines = [*OPENING, (f":VOLT 1.5,(@1);:VOLT 2,(@3);{ASK};:SYST:ERR?", f"1.5,0,2;{NO_ERROR}")]
    with source(lines) as instrument:
        assert isinstance(instrument, DriveSource)
        instrument.set_volts({0: 1.5, 2: 2.0})


def test_one_query_per_channel():
    opening = [IDENTITY, ("SYST:ERR?", NO_ERROR), (":SOUR0:VOLT?;:SOUR1:VOLT?;:SOUR2:VOLT?", "0;0;0")]
    asked = ":SOUR0:VOLT?;:SOUR1:VOLT?;:SOUR2:VOLT?"
    changes = {"first": 0, "set": "SOUR{channel}:VOLT {volts}", "query_volts": "SOUR{channel}:VOLT?"}
    with source([*opening, (f":SOUR1:VOLT 1;{asked};:SYST:ERR?", f"0;1;0;{NO_ERROR}")], **changes) as instrument:
        instrument.set_volts({1: 1.0})


def test_an_instrument_that_does_not_join_commands():
    lines = [
        IDENTITY,
        ("SYST:ERR?", NO_ERROR),
        ("V? 1", "0"),
        ("V? 2", "0"),
        ("V? 3", "0"),
        ("V 1,0.5", ""),
        ("V 2,0.25", ""),
        ("SYST:ERR?", NO_ERROR),
        ("V? 1", "0.5"),
        ("V? 2", "0.25"),
        ("V? 3", "0"),
    ]
    with source(lines, joins=False, set="V {channel},{volts}", query_volts="V? {channel}") as instrument:
        instrument.set_volts({0: 0.5, 1: 0.25})


def test_all_errors_in_the_queue_are_raised():
    lines = [
        *OPENING,
        (f":VOLT 1.5,(@1);{ASK};:SYST:ERR?", '0,0,0;-222,"Data out of range"'),
        ("SYST:ERR?", '-100,"Command error"'),
        ("SYST:ERR?", NO_ERROR),
    ]
    with source(lines) as instrument, pytest.raises(DeviceError, match='-222,"Data out of range"; -100,"Command error"'):
        instrument.set_volts({0: 1.5})


def test_limits_are_written_if_the_table_has_commands_and_again_after_a_reconnection():
    written_limits = (":VOLT:PROT 5,(@1);:CURR:LIM 0.01,(@1);:SYST:ERR?", NO_ERROR)
    lines = [
        *OPENING,
        written_limits,
        Event("lost", b"reset by peer"),
        IDENTITY,
        written_limits,
        (ASK, "0,0,0"),
        ("SYST:ERR?", NO_ERROR),
        (ASK, "0,0,0"),
    ]
    with source(lines) as instrument:
        instrument.set_limits({0: ChannelLimits(0.0, 5.0, max_a=0.01)})
        with pytest.raises(DeviceError, match="its limits are 0 V and 5 V"):
            instrument.set_volts({0: 5.5})
        with pytest.raises(DeviceError, match="was lost and reconnected"):
            instrument.check()
        instrument.check()


def test_a_slew_rate_is_written_if_the_table_has_a_command():
    wanted = {0: ChannelLimits(0.0, 15.0, slew_v_per_s=20.0)}
    with source(
        [*OPENING, (":VOLT:PROT 15,(@1);:SLEW 100,(@1);:SYST:ERR?", NO_ERROR)], limit_slew="SLEW {slew},(@{channel})"
    ) as slowed:
        slowed.set_limits(wanted)
        assert slowed.limits(0).slew_v_per_s == 100.0
    with source([*OPENING, (":VOLT:PROT 15,(@1);:SYST:ERR?", NO_ERROR)]) as plain:
        plain.set_limits(wanted)
        assert plain.limits(0).slew_v_per_s == 0.0  # it moves at once, however slowly the bench ramps


def test_a_setpoint_may_read_back_one_converter_step_away():
    table = validate(ScpiSourceSettings, with_table({"table": "red-pitaya-out"}, Path()), "table")
    asked = [(f"ANALOG:PIN? AOUT{channel}", "0.0") for channel in range(4)]
    lsb_v = 1.8 / 255

    def set_and_read(volts: float) -> list[tuple[str, str]]:
        return [("ANALOG:PIN AOUT0,1.006", ""), ("ANALOG:PIN? AOUT0", f"{volts:.4f}"), *asked[1:]]

    near, other = round(1.006 / lsb_v) * lsb_v, 1.006 - 1.2 * lsb_v
    assert abs(near - 1.006) > 1e-3 * 1.8
    lines = [IDENTITY, *asked, *set_and_read(near), *set_and_read(other), ("ANALOG:PIN? AOUT0", f"{other:.4f}"), *asked[1:]]
    with driven(open_scpi_source, table, table.dialect, lines) as instrument:
        instrument.set_volts({0: 1.006})
        with pytest.raises(DeviceError, match="so it was restarted or set by someone else"):
            instrument.set_volts({0: 1.006})


def test_a_channel_set_by_someone_else_is_detected():
    lines = [*OPENING, ("SYST:ERR?", NO_ERROR), (ASK, "0,3,0"), (ASK, "0,3,0"), ("SYST:ERR?", NO_ERROR), (ASK, "0,3,0")]
    with source(lines) as instrument:
        with pytest.raises(DeviceError, match="holds channel 1 at 3 V although it was set to 0 V"):
            instrument.check()
        instrument.check()


def test_a_table_without_queries_gives_no_capabilities():
    lines = [IDENTITY, ("VOLT 1,(@1)", ""), IDENTITY]
    with source(lines, query_volts="", query_amps="", error="") as instrument:
        assert not isinstance(instrument, ReadsVolts)
        assert not isinstance(instrument, ReadsAmps)
        instrument.set_volts({0: 1.0})
        instrument.check()


def test_each_combination_of_queries_has_its_own_class():
    classes = set[type]()
    volts = (":VOLT? (@1,2,3)", "0,0,0")
    for query_volts in (TABLE["query_volts"], ""):
        for query_amps in (TABLE["query_amps"], ""):
            lines = [IDENTITY, ("SYST:ERR?", NO_ERROR), *([volts] if query_volts else [])]
            with source(lines, query_volts=query_volts, query_amps=query_amps) as instrument:
                assert isinstance(instrument, ReadsVolts) == bool(query_volts)
                assert isinstance(instrument, ReadsAmps) == bool(query_amps)
                classes.add(type(instrument))
    assert len(classes) == 4


def test_currents():
    with source([*OPENING, (":MEAS:CURR? (@3,1)", "3e-3,1e-3")]) as instrument:
        assert isinstance(instrument, ReadsAmps)
        np.testing.assert_allclose(instrument.read_amps([2, 0]), [3e-3, 1e-3])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"set": "VOLT {volt},(@{channel})"}, "has the placeholder {volt}; only {channel} or {volts} can be used here"),
        ({"set": "VOLT {volts.__class__},(@{channel})"}, "only {channel} or {volts} can be used here"),
        ({"set": "VOLT {volts:.3f},(@{channel})"}, "write it without a format or conversion"),
        ({"set": "VOLT {volts"}, "is not a template"),
        ({"set": "VOLT {volts}"}, "lacks the placeholder {channel}"),
        ({"query_volts": "VOLT?"}, "lacks the placeholder {channel} or {channels}"),
        ({"max_v": -1.0}, "max_v -1 V is not above min_v 0 V"),
        ({"chanels": 3}, "unknown key 'chanels'; did you mean 'channels'?"),
        ({"error": "SYST:ERR? {channel}"}, "has the placeholder {channel}; none can be used here"),
    ],
)
def test_an_invalid_table_is_reported_in_one_sentence(changes: dict[str, Any], sentence: str):
    with pytest.raises(ConfigError) as caught:
        validate(ScpiSourceSettings, {**TABLE, **changes}, "table")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_are_read_from_files(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('channels = 2\nmax_v = 5.0\nset = "V{channel} {volts}"\n')
    assert with_table({"table": "mine.toml", "max_v": 4.0}, tmp_path) == {
        "channels": 2,
        "max_v": 4.0,
        "set": "V{channel} {volts}",
    }
    with pytest.raises(ConfigError, match="did you mean 'virtual-source'"):
        with_table({"table": "virtual-sorce"}, tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        with_table({"table": "other.toml"}, tmp_path)


def test_shipped_tables_are_valid():
    from photonloop.drivers.lasers.scpi_laser import ScpiLaserSettings
    from photonloop.drivers.readouts.scpi_readout import ScpiReadoutSettings

    models = {"set": ScpiSourceSettings, "read": ScpiReadoutSettings, "set_power": ScpiLaserSettings}
    names = sorted(path.stem for path in TABLE_FOLDER.glob("*.toml"))
    assert names
    for name in names:
        table = with_table({"table": name}, Path())
        model = next(model for key, model in models.items() if key in table)
        validate(model, table, name)


def test_measured_voltages_are_not_the_setpoints():
    lines = [*OPENING, (":VOLT? (@1,2)", "1,2"), (":MEAS:VOLT? (@1,2)", "1.01,1.98")]
    with source(lines, measure_volts="MEAS:VOLT? (@{channels})") as instrument:
        assert isinstance(instrument, ReadsVolts)
        assert instrument.read_volts([0, 1]).tolist() == [1.0, 2.0]
        assert isinstance(instrument, MeasuresVolts)
        assert instrument.measure_volts([0, 1]).tolist() == [1.01, 1.98]
    with source(OPENING) as instrument:
        assert not isinstance(instrument, MeasuresVolts)
    with pytest.raises(ConfigError, match="measure_volts needs query_volts"):
        validate(ScpiSourceSettings, {**TABLE, "query_volts": "", "measure_volts": "MEAS:VOLT? (@{channels})"}, "table")
