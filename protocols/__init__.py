"""The contract between what decides and what shines light: device interface, limits, errors, wire, server, client."""
