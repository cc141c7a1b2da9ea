"""A daemon of root that follows for an ordinary user writes only where that user could."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.following import QuickModels, error_code, follows, served, until, until_live
from tests.e2e.installed import Host
from tests.ordinary_user import NOBODY, as_ordinary_user, nobodys_directory
from tests.security.test_hostile_clients import answers_to


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_somebody_elses_directory_is_not_followed_at(tmp_path: Path) -> None:
    with nobodys_directory() as directory:
        host = Host(directory / "host")
        host.environment()
        for place in (host.root, host.root / "run", host.socket.parent):
            place.mkdir(exist_ok=True)
            place.chmod(0o755)
        models = QuickModels(host, f"file://{tmp_path}/store", tmp_path)
        models.add("v1.0.0")
        models.promote("v1.0.0")
        mine, roots, closed = (directory / name for name in ("mine", "roots", "closed"))
        for place, owner, mode in ((mine, NOBODY, 0o755), (roots, 0, 0o755), (closed, 0, 0o700)):
            place.mkdir()
            os.chown(place, owner, owner)
            place.chmod(mode)
        (closed / "inside").mkdir()
        (closed / "inside").chmod(0o777)
        (directory / "link").symlink_to(directory)
        config = (
            f'[daemon]\nlisten = ""\nsocket_mode = "0666"\nstores = ["{models.store}"]\n'
            '[access]\nadminister = ["owner"]\n'
        )

        def asked_by_nobody(*lines: str) -> list[tuple[int, Any]]:
            report = directory / "report"
            report.unlink(missing_ok=True)
            as_ordinary_user(
                lambda: report.write_text(json.dumps(answers_to(host.socket, list(lines))))
            )
            found: list[tuple[int, Any]] = json.loads(report.read_text())
            return found

        def follow(dest: Path, **more: object) -> str:
            body = {"reference": "iris_clf@production", "dest": str(dest), "poll_seconds": 1}
            return f"POST /v1/follows {json.dumps(body | more)}"

        with host.daemon(config=config):
            answers = asked_by_nobody(
                follow(roots),
                follow(closed / "inside"),
                follow(directory / "link" / "mine"),
                follow(Path("/proc/1/root") / str(mine).strip("/")),
                follow(directory / "absent"),
                follow(mine, hook=["/bin/sh", "-c", "id"]),
                follow(mine, store="file:///etc"),
            )
            codes = [(status, document["code"]) for status, document in answers]
            assert codes == [
                (403, "access_denied"),
                (403, "access_denied"),
                (404, "destination_missing"),
                (404, "destination_missing"),
                (404, "destination_missing"),
                (403, "not_allowed"),
                (403, "store_not_allowed"),
            ]
            assert list(roots.iterdir()) == list((closed / "inside").iterdir()) == []
            assert list(mine.iterdir()) == []
            assert follows(host) == []
            [(status, document)] = asked_by_nobody(follow(mine))
            assert (status, document["uid"]) == (201, NOBODY)
            until_live(host, "v1.0.0")
            assert served(mine) == "v1.0.0"
            _a_link_in_its_place_is_not_followed(host, models, mine, roots)
            ended = asked_by_nobody(f"DELETE /v1/follows/{document['follow_id']}")
            assert ended[0][0] == 200


def _a_link_in_its_place_is_not_followed(
    host: Host, models: QuickModels, mine: Path, roots: Path
) -> None:
    def swap() -> None:
        os.rename(mine, f"{mine}.old")
        os.symlink(roots, mine)

    as_ordinary_user(swap)
    models.add("v2.0.0")
    models.promote("v2.0.0")
    view = until(host, lambda view: view["error"])
    assert error_code(view) == "destination_taken"
    assert list(roots.iterdir()) == []
