"""The `photonloop` command; one file per subcommand."""
