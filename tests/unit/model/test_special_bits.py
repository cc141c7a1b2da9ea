from __future__ import annotations

from snapd.model.special_bits import ids_without_special_bits
from tests.samples import sample

FILES = {"a": b"1", "d/b": b"2"}


def test_a_snapshot_without_special_bits_has_one_id() -> None:
    assert ids_without_special_bits(sample(FILES).manifest) == frozenset()


def test_each_way_to_lay_a_snapshot_out_has_its_id() -> None:
    made = sample(FILES, modes={"a": 0o7755, "d/": 0o7775, "d/b": 0o600})
    found = ids_without_special_bits(made.manifest)
    tree = sample(FILES, modes={"a": 0o755, "d/": 0o1775, "d/b": 0o600})
    linked = sample(FILES, modes={"a": 0o755, "d/": 0o7775, "d/b": 0o600})
    copied = sample(FILES, modes={"a": 0o1755, "d/": 0o7775, "d/b": 0o600})
    assert found == {tree.id, linked.id, copied.id}
    assert made.id not in found


def test_no_other_bit_is_forgiven() -> None:
    found = ids_without_special_bits(sample(FILES, modes={"a": 0o4755}).manifest)
    assert found == {sample(FILES, modes={"a": 0o755}).id}
    assert sample(FILES, modes={"a": 0o744}).id not in found
