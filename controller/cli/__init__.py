"""The `photonloop` command, a file a subcommand."""
