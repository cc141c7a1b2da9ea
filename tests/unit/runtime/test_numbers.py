from __future__ import annotations

from dataclasses import fields

from snapd.runtime.numbers import NodeNumbers, NumbersCollector


def test_sums_and_shares_of_a_node() -> None:
    numbers = NodeNumbers(
        pulls={"running": 1, "queued": 2, "waiting_for_space": 3}, cache={"linked": 5, "new": 2}
    )
    assert (numbers.pulls_running, numbers.pulls_queued, numbers.cache_bytes) == (1, 2, 7)


def test_every_number_is_shown_under_a_name_of_its_own() -> None:
    families = list(NumbersCollector().collect())
    assert len({family.name for family in families}) == len(fields(NodeNumbers))
    assert all(family.samples and family.documentation for family in families)


def test_the_numbers_given_last_are_shown() -> None:
    collector = NumbersCollector()
    collector.numbers = NodeNumbers(snapshots=3, leases={"pin": 2})
    shown = {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }
    assert shown[("snapd_snapshots",)] == 3
    assert shown["snapd_leases", "pin"] == 2
    assert ("snapd_leases", "pod") not in shown
