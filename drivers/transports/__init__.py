"""Transports to instruments: requests and replies over a stream, resynchronised after every failure, within a deadline.

    driver ──query("READ?")──▶ TextTransport ──bytes──▶ Connection ──▶ Stream (VISA, serial, replay)
                               lines, synchronised,     reopened        one medium: send, receive,
                               retries                  if lost         read what is available

Problems of the media are solved here once, for all drivers:

- Nagle's algorithm is off on sockets, and a closed connection is detected before a byte is written to it (`visa`).
- Serial ports are read in blocks, not byte by byte (`serial_port`).
- A late reply is never taken for the answer to a later query. After every timeout, interruption or invalid answer, both
  sides are resynchronised: by a query whose answer is known (`text`), or by numbered requests (`modbus`).
- Everything has a deadline, and only what is harmless when repeated is sent twice.
"""
