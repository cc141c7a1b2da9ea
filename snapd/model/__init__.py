"""Pure rules and words: nothing here does I/O, reads a clock or knows an event loop."""
