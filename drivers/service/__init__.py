"""The server process that holds the instruments, and the supervisor that makes them safe if it dies."""
