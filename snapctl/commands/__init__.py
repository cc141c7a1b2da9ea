"""One module per verb, each with a `command`; imported only when the verb is invoked."""
