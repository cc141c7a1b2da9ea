from __future__ import annotations

import json

from snapd.model.care import Proof, ProofProgress, ScrubView, TreeProblem


def test_progress_and_proof_travel() -> None:
    progress = ProofProgress(1, 2, 3, 4)
    document = json.loads(json.dumps({**progress.to_json(), "newer": 1}))
    assert document["state"] == "running"
    assert ProofProgress.from_json(document) == progress
    proof = Proof("ab" * 32, "/trees/x", 3, 10, repaired=1)
    assert Proof.from_json(json.loads(json.dumps({**proof.to_json(), "newer": 1}))) == proof


def test_the_scrub_and_problems_are_shown_with_every_field() -> None:
    view = ScrubView("running", 0.5, 7, 1.0, 2.0, 3, 4, 5, 6, 7)
    assert view.to_json()["phase"] == "running"
    assert len(view.to_json()) == 10
    assert TreeProblem("./a", "extra").to_json() == {
        "path": "./a",
        "kind": "extra",
        "object": "",
        "mode": 0,
    }
