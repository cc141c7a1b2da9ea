"""`snapctl model add`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from snapctl.context import Context
from snapctl.frame import config_option, id_option, store_option, verb
from snapctl.references import resolve_here
from snapctl.registering import author_of, author_options, certified, read_values
from snapd.actions.publish import Certifier, publish_model
from snapd.model.errors import UsageError
from snapd.model.ids import SnapshotId
from snapd.model.models import Model, check_stages
from snapd.model.names import CARD_MAX_CHARACTERS
from snapd.model.references import parse_version_reference
from snapd.model.stages import NewVersion
from snapd.model.values import read_number, read_value
from snapd.registry.names import Registry
from snapd.registry.runs import Runs

NO_SNAPSHOT = SnapshotId("")
"""Stands for the snapshot until everything else that was typed has been checked."""


@verb(
    "add",
    examples=[
        "snapctl model add iris_clf@v0.2.0 --id ID --store s3://models/prod",
        "snapctl model add iris_clf@v0.2.0 --id ID --run RUN --metric accuracy=0.93 --param lr=0.1",
        "snapctl model add iris_clf@v0.2.0 --id ID --card MODEL_CARD.md --alias champion",
        "snapctl model add iris_clf@v0.3.0 --from models:/iris_clf/3 --store s3://models/prod",
    ],
)
@click.argument("version", metavar="NAME@VERSION")
@id_option(required=False)
@click.option(
    "--from",
    "source",
    metavar="URI",
    help="Instead of --id: a model of MLflow, as models:/NAME/3, models:/NAME@ALIAS or"
    " runs:/RUN/PATH. It is downloaded and pushed; metrics and parameters of its run are kept.",
)
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
    snapshot_id: str | None,
    source: str | None,
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
    told = NewVersion(
        NO_SNAPSHOT,
        stage=stage,
        run=run,
        metrics={key: read_number(f"--metric {key[:80]}", text) for key, text in measured.items()},
        parameters={key: read_value(text) for key, text in given.items()},
        card=_read_card(card) if card is not None else "",
        aliases=aliases,
    ).checked()
    if source is None:
        if snapshot_id is None:
            raise UsageError("name the snapshot with --id, or a model of MLflow with --from")
        new = replace(told, snapshot_id=resolve_here(context, snapshot_id, store))
    else:
        _refuse_both()
        from snapctl.mlflow_models import take_from_mlflow

        taken = take_from_mlflow(context, source, store, (name, number), author.by)
        author = author_of(by, note or taken.note)
        new = replace(
            told,
            snapshot_id=taken.snapshot_id,
            metrics={**taken.metrics, **told.metrics},
            parameters={**taken.parameters, **told.parameters},
        ).checked()

    async def publish(registry: Registry, certifier: Certifier) -> Model:
        if run and not (await Runs(registry).run(run)).makes(new.snapshot_id):
            context.output.note(f"the run {run} does not name this snapshot among its outputs")
        return await publish_model(
            registry, name, number, new, author, certifier, stages=wanted_stages
        )

    added = certified(context, store, version, deep, publish).find(number)
    if context.output.as_json:
        context.output.print_json({"name": name, "store": store, **added.to_json()})
    else:
        context.output.line(f"{name}@{added.version} is {added.snapshot_id}, in {added.stage}")


def _refuse_both() -> None:
    """Refuse an --id beside --from; one of the environment does not count then."""
    named = click.get_current_context().get_parameter_source("snapshot_id")
    if named is ParameterSource.COMMANDLINE:
        raise UsageError("--id and --from exclude each other")


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
