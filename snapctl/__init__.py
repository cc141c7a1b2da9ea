"""The command line: thin, starts fast, and loads heavy parts only where a command needs them."""
