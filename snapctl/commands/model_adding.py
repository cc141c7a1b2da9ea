"""`snapctl model add`."""

from __future__ import annotations

from pathlib import Path

import click

from snapctl.context import Context
from snapctl.frame import config_option, id_option, store_option, verb
from snapctl.references import resolve_here
from snapctl.registering import author_of, author_options, certified, read_values
from snapd.actions.publish import Certifier, publish_model
from snapd.model.errors import UsageError
from snapd.model.models import Model, check_stages
from snapd.model.names import CARD_MAX_CHARACTERS
from snapd.model.references import parse_version_reference
from snapd.model.stages import NewVersion
from snapd.model.values import read_number, read_value
from snapd.registry.names import Registry


@verb(
    "add",
    examples=[
        "snapctl model add iris_clf@v0.2.0 --id ID --store s3://models/prod",
        "snapctl model add iris_clf@v0.2.0 --id ID --run RUN --metric accuracy=0.93 --param lr=0.1",
        "snapctl model add iris_clf@v0.2.0 --id ID --card MODEL_CARD.md --alias champion",
    ],
)
@click.argument("version", metavar="NAME@VERSION")
@id_option()
@store_option()
@click.option("--stage", metavar="STAGE", default="", help="Where it begins; the first stage.")
@click.option("--run", metavar="RUN", default="", help="The ID of the run that made it.")
@click.option("--metric", "metrics", metavar="NAME=NUMBER", multiple=True, help="May be repeated.")
@click.option("--param", "parameters", metavar="NAME=VALUE", multiple=True, help="Likewise.")
@click.option("--card", metavar="FILE", type=click.Path(), help="What people should know of it.")
@click.option("--alias", "aliases", metavar="ALIAS", multiple=True, help="Leads to it from now on.")
@click.option(
    "--stages",
    metavar="A,B,C",
    help="The stages of a new model, in the order of promotion; the last but one is production, the"
    " last is where versions end.  [default: dev,staging,production,archived]",
)
@click.option("--deep", is_flag=True, help="Read and hash every object first, not only look.")
@author_options
@config_option
def add(
    context: Context,
    version: str,
    snapshot_id: str,
    store: str,
    stage: str,
    run: str,
    metrics: tuple[str, ...],
    parameters: tuple[str, ...],
    card: str | None,
    aliases: tuple[str, ...],
    stages: str | None,
    deep: bool,
    by: str | None,
    note: str,
) -> None:
    """Add a snapshot as a version of a model. It begins in the first stage: promote it then.

    The snapshot has to be in the same store: its manifest intact, and all its objects there. NAME
    need not exist yet. Versions are semantic: v0.2.0.
    """
    name, number = parse_version_reference(version, "model")
    author = author_of(by, note)
    wanted_stages = None if stages is None else check_stages(stages.split(","))
    measured = read_values(metrics, "--metric")
    given = read_values(parameters, "--param")
    described = _read_card(card) if card is not None else ""
    new = NewVersion(
        resolve_here(context, snapshot_id, store),
        stage=stage,
        run=run,
        metrics={key: read_number(f"--metric {key[:80]}", text) for key, text in measured.items()},
        parameters={key: read_value(text) for key, text in given.items()},
        card=described,
        aliases=aliases,
    ).checked()

    async def publish(registry: Registry, certifier: Certifier) -> Model:
        return await publish_model(
            registry, name, number, new, author, certifier, stages=wanted_stages
        )

    added = certified(context, store, version, deep, publish).find(number)
    if context.output.as_json:
        context.output.print_json({"name": name, "store": store, **added.to_json()})
    else:
        context.output.line(f"{name}@{added.version} is {added.snapshot_id}, in {added.stage}")


def _read_card(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(4 * CARD_MAX_CHARACTERS + 1)
        return data.decode().replace("\r\n", "\n")
    except OSError as error:
        raise UsageError(f"can't read the card {path!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the card {path!r} is no UTF-8 text",
            hint=f"A card is text of at most {CARD_MAX_CHARACTERS} characters.",
        ) from error
