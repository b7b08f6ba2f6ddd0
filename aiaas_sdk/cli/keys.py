"""`aiaas keys`: the file of API keys that `aiaas serve --api-keys` reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from aiaas_sdk.cli.exits import CODES, guarded
from aiaas_sdk.cli.parameters import AsJson, Debug
from aiaas_sdk.cli.printing import document, table
from aiaas_sdk.errors import ConfigError

__all__ = ["app"]

_EXITS = "Exit codes:\n\n    " + CODES.replace("\n", "\n    ")

app = typer.Typer(no_args_is_help=True, help="Make, list and remove the API keys of a server.")

File = Annotated[
    Path, typer.Option("--file", "-f", help="The file of keys, hashed; a server reads it again by itself.")
]
Name = Annotated[str, typer.Argument(help="Whose key it is; it stands in logs.")]


@app.command(epilog=_EXITS)
def add(
    name: Name,
    file: File = Path("keys.toml"),
    models: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these; llm-* for several, '' for none.")
    ] = None,
    days: Annotated[float | None, typer.Option(help="Days after which it ends.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Requests in a minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Tokens in a minute.")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Requests at once.")] = None,
    queue_share: Annotated[
        float | None, typer.Option(metavar="PART", help="Of each model's queue; 0.5 if not given.")
    ] = None,
    management: Annotated[bool, typer.Option("--management", help="It may load and unload models.")] = False,
    training: Annotated[bool, typer.Option("--training", help="It may train its models, for all.")] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="It may read /metrics.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a key, and show it this once: only its hash is kept.

    For example:

        aiaas keys add alice --file keys.toml --models digits,llm-* --requests-per-minute 600
        aiaas keys add prometheus --models '' --metrics

    A server that runs lets it in within a second. To change a key without a
    pause, add one under another name, use it, and remove the first.
    """
    with guarded(as_json=as_json, debug=debug):
        from aiaas_sdk.server.allowances import Limits
        from aiaas_sdk.server.keys import add_key, made

        given = {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "concurrency": concurrency,
            "queue_share": queue_share,
        }
        text, key = made(
            name,
            expires=_end(days),
            models=None if models is None else [one.strip() for one in models.split(",") if one.strip()],
            management=management,
            training=training,
            metrics=metrics,
            limits=Limits(**{limit: value for limit, value in given.items() if value is not None}),  # type: ignore[arg-type]
        )
        add_key(file, key)
        if as_json:
            print(document({"name": name, "key": text, "file": str(file)}))
        else:
            typer.echo(f"{file} has it hashed; keep it now, it can't be shown again", err=True)
            print(text)


@app.command("list", epilog=_EXITS)
def list_(file: File = Path("keys.toml"), as_json: AsJson = False, debug: Debug = False) -> None:
    """List the keys: whose they are and what they may do, never what they are."""
    with guarded(as_json=as_json, debug=debug):
        from aiaas_sdk.server.keys import keys_in

        rows = [_told(key) for key in keys_in(file)]
        if as_json:
            print(document(rows))
        else:
            print(table([("name", "created", "expires", "models", "more"), *map(_cells, rows)]))


@app.command(epilog=_EXITS)
def remove(name: Name, file: File = Path("keys.toml"), as_json: AsJson = False, debug: Debug = False) -> None:
    """Remove a key. A server that runs refuses it within a second."""
    with guarded(as_json=as_json, debug=debug):
        from aiaas_sdk.server.keys import remove_key

        remove_key(file, name)
        print(document({"removed": name}) if as_json else f"removed {name}")


# ---------------------------------------------------------------- parts
def _end(days: float | None) -> datetime | None:
    if days is None:
        return None
    if not 0 < days < 36525:
        raise ConfigError(f"{days} isn't a number of days", hint="Give days from now, above 0, up to a century")
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def _told(key: Any) -> dict[str, Any]:
    limits, caller = key.caller.limits, key.caller
    return {
        "name": key.name,
        "created": key.created.isoformat(),
        "expires": None if key.expires is None else key.expires.isoformat(),
        "expired": key.expired,
        "models": None if caller.models is None else list(caller.models),
        "management": caller.management,
        "training": caller.training,
        "metrics": caller.metrics,
        **{name: getattr(limits, name) for name in limits.names()},
    }


def _cells(told: dict[str, Any]) -> Sequence[str]:
    more = [name for name in ("expired", "management", "training", "metrics") if told[name]]
    more += [
        f"{name.replace('_', ' ')} {told[name]}"
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency", "queue_share")
        if told[name] is not None
    ]
    models = "all" if told["models"] is None else ", ".join(told["models"]) or "none"
    expires = "never" if told["expires"] is None else told["expires"][:16]
    return told["name"], told["created"][:16], expires, models, ", ".join(more)
