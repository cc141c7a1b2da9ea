"""The control API on the Unix socket; health and metrics on TCP."""
