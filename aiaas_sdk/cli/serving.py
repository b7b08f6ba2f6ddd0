"""`aiaas serve`: its options, from the command line, aiaas.toml, and the place where it runs."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from aiaas_sdk.cli.exits import guarded
from aiaas_sdk.cli.parameters import Debug, Device, Dtype, Imports, KeyFrom, import_all
from aiaas_sdk.cli.printing import document
from aiaas_sdk.errors import ConfigError

__all__ = ["HOST", "PORT", "hints", "serve"]

logger = logging.getLogger("aiaas_sdk.server")

NONE = "none"
HOST, PORT = "127.0.0.1", 8000
"""Where it is served, unless something else is said."""
SAGEMAKER_MODEL = Path("/opt/ml/model")
"""Where SageMaker lays a model's files; it calls port 8080, and nothing else reaches the container."""


def _number(text: Any) -> Any:
    if str(text).lower() == NONE:
        return NONE
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor {NONE}") from None


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--jwt {pair!r} isn't NAME=VALUE", hint="Give --jwt issuer=... --jwt audience=...")
        before = found.get(name)
        found[name] = value if before is None else [*([before] if isinstance(before, str) else before), value]
    return {name: _number(value) if name in _JWT_NUMBERS else value for name, value in found.items()}


_JWT_NUMBERS = ("leeway", "requests_per_minute", "tokens_per_minute", "concurrency", "queue_share")


def serve(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Addresses, folders of bundles, or NAME=ADDRESS; without any, aiaas.toml says."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="The interface to listen on; 0.0.0.0 for all.", show_default=HOST)
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; 0 for any free one.", show_default=str(PORT))
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Speak gRPC, too, on this port; needs aiaas-grpc.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that serve, each with all models.")] = None,
    # ------------------------------------------------------------ the models
    device: Device = None,
    dtype: Dtype = None,
    timeout: Annotated[
        Any, typer.Option(parser=_number, metavar="SECONDS", help="Limit for a call of a model, or none.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Calls that a model does at once.")] = None,
    api_key_env: KeyFrom = None,
    queue: Annotated[int | None, typer.Option(min=1, help="Calls of a model that wait or run; more get 503.")] = None,
    max_batch_rows: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="Rows of several calls that share a pass; 1 for none.")
    ] = None,
    max_batch_delay: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="How long a call may wait for others.")
    ] = None,
    warm_up: Annotated[
        bool | None, typer.Option("--warm-up/--no-warm-up", help="Run each model once before it is ready.")
    ] = None,
    memory: Annotated[
        Any, typer.Option(parser=_number, metavar="BYTES", help="For all models together, or none: no limit.")
    ] = None,
    watch: Annotated[
        Any, typer.Option(parser=_number, metavar="SECONDS", help="Between two looks for new versions, or none.")
    ] = None,
    management: Annotated[
        bool | None, typer.Option("--management/--no-management", help="Clients may load and unload models.")
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Let clients train bundles; files and jobs are kept there.")
    ] = None,
    # ------------------------------------------------------------ who may call, and how
    api_keys: Annotated[Path | None, typer.Option(metavar="FILE", help="Ask for one of these API keys.")] = None,
    jwt: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Take tokens: issuer, audience, key or jwks, algorithms."),
    ] = None,
    public: Annotated[
        bool | None, typer.Option("--public/--no-public", help="Others may reach it, and anybody may use it.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="A certificate (PEM), for HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    hosts: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name under which it may be called; may be repeated.")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Pages from there may call it; may be repeated.")
    ] = None,
    max_body: Annotated[int | None, typer.Option(min=1, metavar="BYTES", help="Of a request's body.")] = None,
    max_bodies: Annotated[
        int | None, typer.Option(min=1, metavar="BYTES", help="Of the bodies of all requests under way.")
    ] = None,
    max_inflated: Annotated[
        int | None, typer.Option(min=1, metavar="BYTES", help="What a compressed body may become.")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At more, the longest idle one is closed.")
    ] = None,
    # ------------------------------------------------------------ running it
    drain_delay: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Asked to end, go on accepting for so long.")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Then give running requests so long.")
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log/--no-access-log", help="A line of JSON on stdout for each request.")
    ] = None,
    metrics: Annotated[bool | None, typer.Option("--metrics/--no-metrics", help="/metrics for Prometheus.")] = None,
    page: Annotated[bool | None, typer.Option("--page/--no-page", help="The page at /.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Tell the URL and the models as one JSON document.")] = False,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Serve models over HTTP until Ctrl-C.

    For example:

        aiaas serve torch:models/digits
        aiaas serve digits=torch:models/digits far=https://host/v2/models/x
        aiaas serve models --workers 2 --access-log --drain-delay 5
        aiaas serve torch:models/mine --import mymodels

    Any address can be served; a remote one makes this a gateway. Below /v2 it
    speaks the Open Inference Protocol, below /v1 OpenAI's API, for language
    models. Each option can stand in the table serve of aiaas.toml, too, with _
    for -; the command line goes first. Once it answers, it says where. Asked to
    stop, it finishes what runs and exits with 0.
    """
    with guarded(as_json=as_json, debug=debug):
        prepare = functools.partial(_prepare, imports)
        prepare()
        from aiaas_sdk.server import serve as serving  # says which extra is missing

        options = _options(context.params)
        grpc, on = options.get("grpc_port"), options.get("host", HOST)
        scheme = "grpcs" if options.get("tls_cert") else "grpc"

        def announce(url: str, names: tuple[str, ...]) -> None:
            urls = {"url": url} if grpc is None else {"url": url, "grpc": f"{scheme}://{on}:{grpc}"}
            told = f"serving {', '.join(names)} at {' and '.join(urls.values())}"
            print(document({**urls, "models": names}) if as_json else told, flush=True)

        serving(options.pop("targets"), announce=announce, prepare=prepare, **options)


def _prepare(imports: list[str] | None) -> None:
    """What each process of the server does first. The access log has stdout, where the announcement came before it."""
    import_all(imports)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    access = logging.getLogger("aiaas_sdk.server.access")
    if not access.handlers:
        access.addHandler(logging.StreamHandler(sys.stdout))
        access.setLevel(logging.INFO)
        access.propagate = False


# ---------------------------------------------------------------- where each option comes from
def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `serve`: the command line's before those of aiaas.toml before those of the place."""
    from aiaas_sdk import settings

    found, sources = settings.read().serve(hints())
    mine = {name: value for name, value in given.items() if value not in (None, [], ()) and name in hints()}
    if given["jwt"]:
        mine["jwt"] = _pairs(given["jwt"])
    for name in ("device", "dtype", "timeout", "concurrency"):
        if given[name] is not None:
            mine[name] = given[name]
    if given["api_key_env"] is not None:
        mine["api_key"] = functools.partial(_credential, given["api_key_env"])  # which can be sent to other processes
    options = {**found, **{name: None if value == NONE else value for name, value in mine.items()}}
    for name in sorted(found.keys() - mine.keys()):
        logger.info("option %s is from %s", name, sources[name])
    if not options.get("targets"):
        options = {**_place(), **{name: value for name, value in options.items() if name != "targets"}}
    return options


def _credential(variable: str) -> str:
    from aiaas_sdk.records.secret import env

    return env(variable).reveal()


def hints() -> dict[str, Any]:
    """The server's options and their types."""
    from aiaas_sdk.records.options import OPTION_NAMES
    from aiaas_sdk.server.serving import ServeOptions

    own = {name: hint for name, hint in get_type_hints(ServeOptions).items() if name not in OPTION_NAMES}
    return {"targets": list[str], "host": str, "port": int, **own}


def _place() -> dict[str, Any]:
    """What is served where nothing was said: in a container of SageMaker, which is started as `IMAGE serve`, its model.

    Source: "Custom Inference Code with Hosting Services" in its developer guide.

    Raises:
        ConfigError: this is no such place.
    """
    if not SAGEMAKER_MODEL.is_dir():
        raise ConfigError(
            "there is nothing to serve", hint='Give addresses, or targets = ["..."] under [serve] in aiaas.toml'
        )
    logger.info("serving %s, as SageMaker has it", SAGEMAKER_MODEL)
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT") or 8080)
    return {"targets": [str(SAGEMAKER_MODEL)], "host": "0.0.0.0", "port": port, "public": True}
