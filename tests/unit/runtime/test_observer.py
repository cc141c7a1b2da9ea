from __future__ import annotations

from snapd.runtime.observer import Observer, Observers, SilentObserver


class Ear(Observer):
    """Hears retries only."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def on_retry(self, operation: str, reason: str) -> None:
        self.heard.append((operation, reason))


class OtherEar(Ear):
    """Hears verification failures as well."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    def on_verification_failure(self) -> None:
        self.failures += 1


def test_everybody_who_listens_is_told() -> None:
    one, two = Ear(), OtherEar()
    observers = Observers(one, two, SilentObserver())
    observers.on_retry("get", "stalled")
    observers.on_verification_failure()
    observers.on_repaired(3)
    assert one.heard == two.heard == [("get", "stalled")]
    assert two.failures == 1


def test_what_one_listens_to_goes_there_directly() -> None:
    two = OtherEar()
    observers = Observers(Ear(), two)
    assert observers.on_verification_failure == two.on_verification_failure


def test_observers_of_observers_hear_the_same() -> None:
    one, two, three = Ear(), OtherEar(), Ear()
    observers = Observers(Observers(one, two), three)
    observers.on_retry("get", "stalled")
    observers.on_verification_failure()
    assert one.heard == two.heard == three.heard == [("get", "stalled")]
    assert two.failures == 1


def test_the_silent_one_hears_everything_and_does_nothing() -> None:
    observer = SilentObserver()
    observer.on_requests("get", "ok", 1, 0.1, 5)
    observer.on_credentials("s3://b", None)
    assert vars(observer) == {}
