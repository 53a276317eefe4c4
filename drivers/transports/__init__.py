"""The way to an instrument: bytes there and back, in step, within a deadline.

    driver ──ask("READ?")──▶ TextTransport ──bytes──▶ Connection ──▶ Wire (VISA, serial, replay)
                             lines, in step,          reopened        one medium: send, receive,
                             repeats                  where lost      what waits

What the media do wrong is cured here once, for every driver:

- Nagle's algorithm is off on sockets, and a peer's death is found before a byte is written to it (`visa`).
- Serial ports are read in blocks, never byte by byte (`serialport`).
- A reply that comes too late is never taken for the answer to a later question: after every silence, interruption or garbage
  the two sides are brought back into step, by a question whose answer is known (`text`) or by numbered requests (`modbus`).
- Everything has a deadline, and only what does no harm is sent twice.
"""
