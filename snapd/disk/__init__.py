"""Everything that touches the local file system; blocking calls, made from worker threads."""
