"""Server that makes any `PhotonicDevice` available over ZeroMQ."""
