"""What no process can do for itself: when the one that holds the instruments dies, somebody else makes them safe.

    photonloop ─── starts ──▶ supervisor ─── starts ──▶ server with the bench ──▶ instruments
                                   │  ◀── a line every quarter second ──┘
                                   └── it died, or went silent: a new process makes the bench safe, another one serves again

The supervisor opens no instrument and holds no state. It ends with the process that started it, and the server ends, safe,
with the supervisor; only when both are killed at one moment, heaters stay as they are, within the limits in the instruments.
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
"""A server whose loop says nothing for this long hangs beyond recovery, and is killed."""

END_S = 120.0
"""Patience with a server that is told to end: a ramp may take a while."""

MOST_DEATHS = 5
DEATHS_WITHIN_S = 600.0
"""The server is started again unless it died this often within this time."""

SAFE_S = 120.0
"""Patience with the process that makes the bench safe."""

AGAIN_S = 10.0
"""Between attempts to make safe what did not follow, once no server is started any more."""


@dataclass(frozen=True)
class Commands:
    """What the supervisor starts.

    Parameters
    ----------
    serve
        Returns the command that serves the bench at an address, and prints a line now and then.
    make_safe
        The command that makes safe what answers and ends: with 0 where that is the whole bench.
    """

    serve: Callable[[str], Sequence[str]]
    make_safe: Sequence[str]


def supervise(commands: Commands, bind: str, stop: StopRequest, alive: Callable[[], bool]) -> int:
    """Keep a server running until a signal, or until `alive` says no; return the exit code.

    What the first server refuses to start for is for a person, and not tried again: its exit code is returned. Its own sentence
    is on standard error, which all processes share.
    """
    deaths: deque[float] = deque(maxlen=MOST_DEATHS)
    address = ""
    while True:
        server = _start(commands.serve(address or bind))
        try:
            said = _attend(server, lambda: stop.asked or not alive(), None if address else announce)
        finally:
            _end(server)
        code = server.returncode
        if code == 0:
            return 0
        if code > 0 and not (said or address):
            return code
        log.error("the server of the bench %s: making the bench safe", _cause(code))
        safe = _make_safe(commands.make_safe)
        address = said or address
        if stop.asked or not alive() or not address:
            return 1
        deaths.append(time.monotonic())
        if len(deaths) == MOST_DEATHS and deaths[-1] - deaths[0] < DEATHS_WITHIN_S:
            log.error(
                "the server of the bench died %d times within %.0f s: it is not started again", MOST_DEATHS, DEATHS_WITHIN_S
            )
            # Nobody else watches over what may still be hot: it is not left before it is safe, or before somebody says so.
            while not safe and not stop.asked and alive():
                stop.wait(AGAIN_S)
                safe = _make_safe(commands.make_safe)
            return 1
        stop.wait(2.0 ** (len(deaths) - 1) - 1)  # at once the first time: an instrument may need a moment to come back


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, bufsize=1)


def _attend(server: subprocess.Popen[str], ended: Callable[[], bool], tell: Callable[[dict[str, object]], None] | None) -> str:
    """Listen to a server until it ends, hangs, or `ended` says so; return its address, or nothing where it never told one.

    Its announcement goes on to `tell`.
    """
    assert server.stdout is not None
    os.set_blocking(server.stdout.fileno(), False)
    address, heard_s, text = "", time.monotonic(), ""
    while True:
        ready, _, _ = select.select([server.stdout], [], [], 0.25)
        chunk = os.read(server.stdout.fileno(), 65536).decode(errors="replace") if ready else ""
        if chunk:
            heard_s = time.monotonic()
            text += chunk
        while "\n" in text:
            line, _, text = text.partition("\n")
            if not address and (message := _announcement(line)):
                address = str(message["address"])
                if tell is not None:
                    tell({**message, "supervisor": os.getpid()})
        if server.poll() is not None or ended():
            return address
        # Opening a bench may take long, and says nothing; instruments that do not answer have deadlines of their own.
        if address and time.monotonic() - heard_s > SILENCE_S:
            log.error("the server of the bench said nothing for %g s and is killed", SILENCE_S)
            server.kill()
            server.wait()
            return address


def _announcement(line: str) -> dict[str, object]:
    """Return what a line says where it tells an address; nothing where it is some library's word, or only a sign of life."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) and "address" in message else {}


def _end(server: subprocess.Popen[str]) -> None:
    """End a server in order; by force only where it does not end."""
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
    """Run the command that makes the bench safe; return whether all of it is. What is not is told by the command itself."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=SAFE_S, check=False)
    except subprocess.TimeoutExpired:
        log.error("making the bench safe took longer than %g s", SAFE_S)  # noqa: TRY400 - the traceback says nothing more
        return False
    if done.returncode != 0:
        log.error("not all of the bench could be made safe: it is tried again")
    return done.returncode == 0


def _cause(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def server_command(*arguments: str) -> list[str]:
    """Return `python -m photonloop.drivers` with `arguments`."""
    return module_command("photonloop.drivers", *arguments)
