"""Stores: one contract, several backends, and wrappers that add powers to any of them."""
