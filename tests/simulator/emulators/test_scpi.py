"""SCPI parser and engine: long and short forms, joined commands, numbers, errors."""

from __future__ import annotations

import pytest

from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, ScpiInstrument, ScpiProfile, plain_error
from photonloop.simulator.emulators.scpi_parser import (
    ScpiError,
    boolean,
    channel_list,
    choice,
    number,
    parse_header,
    spellings,
    split_arguments,
    split_commands,
)


def test_a_pattern_has_every_spelling_of_the_manual() -> None:
    found = spellings("[SENSe:]POWer:RANGe[:UPPer]")
    assert ("POW", "RANG") in found
    assert ("SENSE", "POWER", "RANGE", "UPPER") in found
    assert ("SENS", "POWER", "RANG", "UPP") in found
    assert ("SENS", "POWE", "RANG") not in found  # neither short nor long
    assert len(found) == 2 * 2 + 2 * (2 * 2 * 2) + 2 * 2 * 2 * 2  # none, either, both of the optional nodes
    assert spellings("SOURce#:VOLTage")["SOUR", "VOLT"] == (0,)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("VOLT 1;CURR 2", ["VOLT 1", "CURR 2"]),
        ('DISP "a;b";*IDN?', ['DISP "a;b"', "*IDN?"]),
        ("A;:B;", ["A", ":B", ""]),
    ],
)
def test_commands_are_joined_by_semicolons_outside_quotes(text: str, parts: list[str]) -> None:
    assert split_commands(text) == parts


def test_arguments_are_split_outside_lists_and_quotes() -> None:
    assert split_arguments(" 10, (@101,102:104) ") == ("10", "(@101,102:104)")
    assert split_arguments("'a,b', 2") == ("'a,b'", "2")
    assert split_arguments("  ") == ()


def test_channel_lists() -> None:
    assert channel_list("(@101:103,110)") == (101, 102, 103, 110)
    assert channel_list("( @ 3:1 )") == (3, 2, 1)
    for wrong in ("101", "(101)", "(@a)", "(@1:2:3)", "(@1,)"):
        with pytest.raises(ScpiError) as refused:
            channel_list(wrong)
        assert refused.value.code == -102


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), (" -2e-3 ", -2e-3), (".5", 0.5), ("1550NM", 1550.0), ("1.55e-6 m", 1550.0), ("MAX", 9e9)]
)
def test_numbers_with_units_and_words(text: str, value: float) -> None:
    assert number(text, high=9e9, units={"NM": 1.0, "M": 1e9}) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "code"), [("abc", -104), ("1 V", -131), ("11", -222), ("-11", -222), ("DEF", -224), ("", -104), ("nan", -104)]
)
def test_numbers_that_are_refused(text: str, code: int) -> None:
    with pytest.raises(ScpiError) as refused:
        number(text, low=-10, high=10, units={"NM": 1.0})
    assert refused.value.code == code


def test_booleans_and_choices() -> None:
    assert (boolean("ON"), boolean("0")) == (True, False)
    assert choice("imm", ("IMMediate", "BUS")) == "IMMEDIATE"
    for wrong in (lambda: boolean("2"), lambda: choice("imme", ("IMMediate", "BUS"))):
        with pytest.raises(ScpiError):
            wrong()


def test_headers() -> None:
    header = parse_header("Sour12:volt")
    assert (header.mnemonics, header.suffixes) == (("SOUR", "VOLT"), (12, -1))
    for wrong in ("", "A::B", "1A", "A B"):
        with pytest.raises(ScpiError):
            parse_header(wrong)


# ---- the engine -----------------------------------------------------------------------------------------------------


def instrument(*, single_query: bool = False, depth: int = 4) -> ScpiInstrument:
    level = {"volts": 0.0}

    def set_volts(call: Call) -> None:
        level["volts"] = number(call.argument(), low=0, high=5)

    commands = [
        Command("SOURce#:VOLTage[:LEVel]", set_volts, lambda _: f"{level['volts']:g}"),
        Command("SOURce#:CURRent", query=lambda call: str(call.numbers[0])),
        Command("READ", query=lambda _: "7", takes_s=0.5),
    ]
    profile = ScpiProfile("MAKER,MODEL,1,2", plain_error, single_query=single_query, exchange_s=0.1)
    return ScpiInstrument(profile, commands, lambda: level.update(volts=0.0), ErrorQueue(depth))


def answer(device: ScpiInstrument, text: str, *, unread: bool = False) -> str:
    return device.handle(text.encode(), unread=unread).data.decode()


def test_joined_commands_keep_their_path_until_a_colon() -> None:
    device = instrument()
    assert answer(device, "sour3:volt 2;volt?;curr?;:read?;*idn?") == "2;3;7;MAKER,MODEL,1,2\n"
    assert answer(device, "SOUR3:VOLT 2;READ?") == ""  # READ? is not below SOUR3
    assert answer(device, "SYST:ERR?;ERR?") == '-113,"Undefined header";+0,"No error"\n'


def test_a_syntax_error_ends_the_line_and_an_execution_error_does_not() -> None:
    device = instrument()
    assert answer(device, "SOUR1:VOLT 9;VOLT?") == "0\n"
    assert answer(device, "SOUR1:NONE 9;VOLT?") == ""
    assert answer(device, "SOUR1:VOLT") == ""
    assert answer(device, "SOUR1:VOLT 1,2") == ""
    assert answer(device, "SOUR1:VOLT3 1") == ""
    errors = [answer(device, "SYST:ERR?").split(",")[0] for _ in range(6)]
    assert errors == [
        "-222",
        "-113",
        "-109",
        "-350",
        "+0",
        "+0",
    ]  # four errors, then an overflow


def test_status_registers_and_clearing() -> None:
    device = instrument()
    answer(device, "NONSENSE;*IDN?")
    assert answer(device, "*STB?;*ESR?;*ESR?") == "4;32;0\n"
    answer(device, "*CLS")
    assert answer(device, "SYST:ERR?;:*STB?") == '+0,"No error"\n'  # a colon before a common command is a syntax error
    assert answer(device, "SYST:ERR?;*STB?") == '-102,"Syntax error";0\n'
    device.reset()
    assert answer(device, "*ESR?") == "128\n"


def test_a_second_query_discards_the_unread_answer() -> None:
    device = instrument(single_query=True)
    assert not device.handle(b"READ?").interrupts
    second = device.handle(b"READ?", unread=True)
    assert (second.data, second.interrupts, second.takes_s) == (b"7\n", True, pytest.approx(0.6))
    assert answer(device, "SYST:ERR?").startswith("-410")
    patient = instrument()
    assert not patient.handle(b"READ?", unread=True).interrupts


def test_bytes_that_are_not_ascii_are_a_syntax_error() -> None:
    device = instrument()
    assert device.handle(b"\xff\xfe").data == b""
    assert answer(device, "SYST:ERR?").startswith("-102")
