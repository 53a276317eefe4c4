"""The supervisor: makes the bench safe if the process that holds the instruments dies, and starts it again.

    photonloop ─── starts ──▶ supervisor ─── starts ──▶ server with the bench ──▶ instruments
                                   │  ◀── heartbeat: a line every 0.25 s ──┘
                                   └── server died or hangs: one process makes the bench safe, the next one serves again

The supervisor opens no instrument. It ends when the process that started it ends. When the supervisor ends, the server
makes the bench safe and ends. Only if both are killed at the same time do heaters keep their voltages, within the
limits in the instruments.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from photonloop.protocols.process import announce, module_command
from photonloop.protocols.stop_request import StopRequest

log = logging.getLogger(__name__)

SILENCE_S = 20.0
"""A server without a heartbeat for this long hangs, and is killed."""

END_S = 120.0
"""Longest time for a server to end after SIGTERM, ramps included."""

MOST_DEATHS = 5
DEATHS_WITHIN_S = 600.0
"""The server is not started again if it has died `MOST_DEATHS` times within this time."""

SAFE_S = 120.0
"""Longest time for the process that makes the bench safe."""

AGAIN_S = 10.0
"""Time between attempts to make the bench safe, once no server is started any more."""


@dataclass(frozen=True)
class Commands:
    """The commands that the supervisor runs.

    Parameters
    ----------
    serve
        Returns the command that serves the bench at an address and prints a heartbeat.
    make_safe
        The command that makes safe every instrument that answers; exit code 0 if that is the whole bench.
    """

    serve: Callable[[str], Sequence[str]]
    make_safe: Sequence[str]


def supervise(commands: Commands, bind: str, stop: StopRequest, alive: Callable[[], bool]) -> int:
    """Keep a server running until a signal, or until `alive` returns False; return the exit code.

    If the first server cannot start, it is not tried again, and its exit code is returned. Its error message is on
    standard error, which all processes share.
    """
    deaths: deque[float] = deque(maxlen=MOST_DEATHS)
    address = ""
    while True:
        server = _start(commands.serve(address or bind))
        try:
            served_at = _monitor(server, lambda: stop.asked or not alive(), None if address else announce)
        finally:
            _end(server)
        code = server.returncode
        if code == 0:
            return 0
        if code > 0 and not (served_at or address):
            return code
        log.error("the server of the bench %s: making the bench safe", _cause(code))
        safe = _make_safe(commands.make_safe)
        address = served_at or address
        if stop.asked or not alive() or not address:
            return 1
        deaths.append(time.monotonic())
        if len(deaths) == MOST_DEATHS and deaths[-1] - deaths[0] < DEATHS_WITHIN_S:
            log.error(
                "the server of the bench died %d times within %.0f s: it is not started again", MOST_DEATHS, DEATHS_WITHIN_S
            )
            # No other process makes the bench safe, so go on until it is safe or a signal arrives.
            while not safe and not stop.asked and alive():
                stop.wait(AGAIN_S)
                safe = _make_safe(commands.make_safe)
            return 1
        stop.wait(2.0 ** (len(deaths) - 1) - 1)  # no wait the first time; later an instrument may need time to recover


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, bufsize=1)


def _monitor(
    server: subprocess.Popen[str], ended: Callable[[], bool], forward: Callable[[dict[str, object]], None] | None
) -> str:
    """Read the output of a server until it ends, hangs, or `ended` returns True.

    Returns its address, empty if it never announced one. The announcement is passed on to `forward`.
    """
    assert server.stdout is not None
    os.set_blocking(server.stdout.fileno(), False)
    address, last_output_s, text = "", time.monotonic(), ""
    while True:
        ready, _, _ = select.select([server.stdout], [], [], 0.25)
        chunk = os.read(server.stdout.fileno(), 65536).decode(errors="replace") if ready else ""
        if chunk:
            last_output_s = time.monotonic()
            text += chunk
        while "\n" in text:
            line, _, text = text.partition("\n")
            if not address and (message := _announcement(line)):
                address = str(message["address"])
                if forward is not None:
                    forward({**message, "supervisor": os.getpid()})
        if server.poll() is not None or ended():
            return address
        # There is no heartbeat while the bench is opened, which may take long; instruments have timeouts of their own.
        if address and time.monotonic() - last_output_s > SILENCE_S:
            log.error("no heartbeat from the server of the bench for %g s: it is killed", SILENCE_S)
            server.kill()
            server.wait()
            return address


def _announcement(line: str) -> dict[str, object]:
    """Return the announcement in a line; empty if the line is a heartbeat or the output of a library."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) and "address" in message else {}


def _end(server: subprocess.Popen[str]) -> None:
    """End a server with SIGTERM, or kill it if it does not end."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    if server.stdout is not None:
        server.stdout.close()


def _make_safe(command: Sequence[str]) -> bool:
    """Run the command that makes the bench safe; return whether all of it is safe. The command reports what is not."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=SAFE_S, check=False)
    except subprocess.TimeoutExpired:
        log.error("making the bench safe took longer than %g s", SAFE_S)  # noqa: TRY400 - the traceback adds nothing
        return False
    if done.returncode != 0:
        log.error("not all of the bench could be made safe: trying again")
    return done.returncode == 0


def _cause(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def server_command(*arguments: str) -> list[str]:
    """Return the command `python -m photonloop.drivers` with `arguments`."""
    return module_command("photonloop.drivers", *arguments)
