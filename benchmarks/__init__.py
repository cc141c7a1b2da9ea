"""Side-by-side timings of whole commands; never part of the tests."""
