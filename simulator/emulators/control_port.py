"""The control port of a virtual bench, for tests and scripts: one JSON object per line, over TCP on this machine.

    {"do": "inject", "instrument": "labjack-t7", "fault": {"kind": "late", "delay_s": 0.5}}
                                schedule a fault                -> {"ok": true}
    {"do": "clear"}             remove the pending faults       -> {"ok": true}
    {"do": "state"}             voltages, light and counters    -> {"ok": true, "heater_v": […], …}
    {"do": "log", "since": 41}  measurements after number 41    -> {"ok": true, "log": […]}

A request that is refused is answered {"ok": false, "error": "one sentence"}.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic import ValidationError

from photonloop.protocols.config import ConfigError, suggestion, validate
from photonloop.simulator.emulators.servers import LOOPBACK
from photonloop.simulator.emulators.unit_faults import UnitFault
from photonloop.simulator.emulators.virtual_bench import VirtualBench


def answer(bench: VirtualBench, line: bytes) -> dict[str, Any]:
    """Carry out the request in one line; return the answer."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ConfigError("expected one JSON object per line")
        return {"ok": True, **_carry_out(bench, request)}
    except json.JSONDecodeError as error:
        return {"ok": False, "error": f"not JSON: {error}"}
    except (ConfigError, ValidationError, ValueError) as error:
        return {"ok": False, "error": str(error)}


def inject(bench: VirtualBench, instrument: str, fault: UnitFault) -> None:
    """Schedule a fault of an instrument.

    Raises
    ------
    ConfigError
        There is no such instrument, or a fault marked `now` is of a kind that needs a message.
    """
    unit = bench.units.get(instrument)
    if unit is None:
        raise ConfigError(f"there is no instrument {instrument!r} on the bench{suggestion(instrument, list(bench.units))}")
    try:
        unit.inject(fault)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def state(bench: VirtualBench) -> dict[str, Any]:
    """Return voltages, light and counters as plain data."""
    laboratory = bench.laboratory
    return {
        "heater_v": laboratory.heater_v.tolist(),
        "modulator_v": laboratory.modulator_v.tolist(),
        "lit_port": laboratory.lit_port,
        "laser": {
            "is_on": laboratory.light.is_on,
            "power_w": laboratory.light.power_w,
            "wavelength_nm": laboratory.light.wavelength_nm,
        },
        "peak_v": float(laboratory.peak_v.max()),
        "peak_power_w": laboratory.peak_power_w,
        "clock_s": laboratory.chip.status().clock_s,
        "measurements": laboratory.measurements,
        "physics_s": laboratory.physics_s,
        "instruments": {
            name: {
                "messages": unit.counters.messages,
                "answers": unit.counters.answers,
                "connections": unit.counters.connections,
                "faults": dict(unit.counters.faults),
                "working_s": unit.counters.working_s,
                "pending_faults": len(unit.faults),
            }
            for name, unit in bench.units.items()
        },
    }


def _carry_out(bench: VirtualBench, request: dict[str, Any]) -> dict[str, Any]:
    match request.get("do"):
        case "inject":
            inject(bench, str(request.get("instrument")), validate(UnitFault, dict(request.get("fault") or {}), "fault"))
            return {}
        case "clear":
            for unit in bench.units.values():
                unit.faults.clear()
            return {}
        case "state":
            return state(bench)
        case "log":
            since = int(request.get("since", 0))
            entries = [entry for entry in bench.laboratory.log if entry.sequence > since]
            return {
                "log": [
                    {
                        "sequence": entry.sequence,
                        "stage": entry.stage,
                        "heater_v": entry.heater_v.tolist(),
                        "modulator_v": entry.modulator_v.tolist(),
                        "lit": entry.lit,
                        "current_a": entry.current_a.tolist(),
                    }
                    for entry in entries
                ]
            }
        case other:
            raise ConfigError(f"do is {other!r}, expected inject, clear, state or log")


class ControlServer:
    """The control port of a bench."""

    def __init__(self, bench: VirtualBench) -> None:
        self._bench = bench
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; return "HOST:PORT"."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=1 << 20)
        return f"{LOOPBACK}:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(answer(self._bench, line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # the client has left, or a line is too long
            pass
        finally:
            writer.close()
