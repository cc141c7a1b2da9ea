"""One use case a module: the verbs that connect stores, cache and directories."""
