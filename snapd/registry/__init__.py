"""Names, stages and history: documents in a store, changed only by compare-and-swap."""
