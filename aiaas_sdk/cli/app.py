"""The commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from aiaas_sdk._version import __version__
from aiaas_sdk.cli.commands import Commands
from aiaas_sdk.cli.describing import described
from aiaas_sdk.cli.exits import CODES, UNEQUAL, guarded
from aiaas_sdk.cli.parameters import (
    Address,
    AsJson,
    Debug,
    Device,
    Dtype,
    Imports,
    InputName,
    Inputs,
    KeyFrom,
    Resize,
    Timeout,
    import_all,
    options,
)
from aiaas_sdk.cli.printing import document, table
from aiaas_sdk.errors import AiaasError, ConfigError

__all__ = ["app"]

_EXITS = "Exit codes:\n\n    " + CODES.replace("\n", "\n    ")

app = typer.Typer(
    name="aiaas",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aiaas-sdk {__version__}")
        raise typer.Exit


@app.callback(epilog=_EXITS)
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Models here or behind an endpoint, with one address for either.

    An address is scheme:target@version, such as

        torch:models/digits            a bundle here, its newest version
        https://host/v2/models/digits  behind the Open Inference Protocol
        digits                         a name in aiaas.toml or the environment
        openai+https://host/v1#gpt-x   behind an API like OpenAI's
        echo:?x=FP32[-1,3]             gives back what it gets, to try things

    Begin with aiaas doctor ADDRESS: it shows each setting and makes one call.
    """


# ---------------------------------------------------------------- commands
@app.command(epilog=_EXITS)
def serve(
    targets: Annotated[list[str], typer.Argument(help="Addresses; NAME=ADDRESS gives a model another name.")],
    host: Annotated[str, typer.Option(help="The interface to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Speak gRPC, too, on this port; needs aiaas-grpc.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Tell the URL and the models as one JSON document.")] = False,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Serve models over HTTP until Ctrl-C.

    For example:

        aiaas serve torch:models/digits
        aiaas serve digits=torch:models/digits far=https://host/v2/models/x
        aiaas serve torch:models/mine --import mymodels

    Any address can be served; a remote one makes this a gateway. Below /v2 it
    speaks the Open Inference Protocol, below /v1 OpenAI's API, for language
    models. Once it answers, it says where. Asked to stop, it finishes what runs and exits
    with 0.
    """

    def announce(url: str, names: tuple[str, ...]) -> None:
        urls = {"url": url} if grpc_port is None else {"url": url, "grpc": f"grpc://{host}:{grpc_port}"}
        told = f"serving {', '.join(names)} at {' and '.join(urls.values())}"
        print(document({**urls, "models": names}) if as_json else told, flush=True)

    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        from aiaas_sdk.server import serve as serving  # says which extra is missing

        serving(targets, host=host, port=port, announce=announce, grpc_port=grpc_port)


@app.command(epilog=_EXITS)
def info(
    address: Address,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    dtype: Dtype = None,
    api_key_env: KeyFrom = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Open a model and show what it says of itself.

    For example:

        aiaas info torch:models/digits@3
        aiaas info https://host/v2/models/digits --json

    Shown are its versions, inputs, outputs, labels, device and what it can do.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.api import load

        with load(address, **options(timeout, device, dtype, api_key_env)) as model:
            found = model.info()
        print(document(asdict(found)) if as_json else described(found))


@app.command(epilog=_EXITS)
def predict(
    address: Address,
    inputs: Inputs,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .npz, .npy, .json or .csv file.")] = None,
    input_name: InputName = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only the K best classes of each row.", metavar="K")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Rows in a call.")] = None,
    resize: Resize = False,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    dtype: Dtype = None,
    api_key_env: KeyFrom = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Run a model on the rows of a file.

    For example:

        aiaas predict torch:models/digits images.npy -o scores.npz
        aiaas predict torch:models/digits photos/ --resize --top 3
        aiaas predict https://host/v2/models/iris flowers.csv -o kinds.csv
        echo '[[5.1, 3.5, 1.4]]' | aiaas predict torch:models/iris -

    .npy holds one input, .npz and .json ({NAME: list}) several by name, a .csv
    one or, with the names as its header, several. Images become floats from 0
    to 1, or stay bytes for UINT8. Numbers are taken into the model's datatypes
    where they fit.

    Without -o, the outputs go to stdout as JSON: {NAME: list}. With --json the
    document also says who answered. A bar shows progress on a terminal.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.api import load
        from aiaas_sdk.cli import predicting, reading, writing

        with load(address, **options(timeout, device, dtype, api_key_env)) as model:
            info = model.info()
            if output is not None:
                writing.check(output, [spec.name for spec in info.outputs], top=top is not None)
            given = reading.read(inputs, info, input_name, resize=resize)
            answer = predicting.predict(model, given, batch_size=batch_size, top=top)
        if output is not None and answer.top is not None:
            writing.write_top(answer.top, output)
        elif output is not None:
            writing.write(answer.outputs, output)
        if output is None or as_json:
            print(document(writing.answered(answer, output, whole=as_json)))


@app.command(epilog=_EXITS)
def chat(
    address: Address,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="What it is told first.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token each time.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens of this probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest tokens.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of an answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="A text at which an answer ends.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same tokens.")] = None,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Show what it thinks, on stderr.")] = False,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    dtype: Dtype = None,
    api_key_env: KeyFrom = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Talk with a language model.

    For example:

        aiaas chat openai+https://host/v1#gpt-x --api-key-env HOST_KEY
        aiaas chat torch:models/small --system "Be brief." --temperature 0.2
        cat report.txt | aiaas chat small --system "Summarise it."

    On a terminal each line is a message. Ctrl-C stops an answer, and its
    beginning stays in the conversation; Ctrl-D or /quit ends. Elsewhere all of
    stdin is one message, and so it is with --json.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.api import load
        from aiaas_sdk.cli import chat as chatting
        from aiaas_sdk.prompts import sampling_of

        given = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "max_tokens": max_tokens, "seed": seed}
        sampling = sampling_of({**given, "stop": stop or None})
        with load(address, **options(timeout, device, dtype, api_key_env)) as model:
            talk = chatting.Conversation(model, system, sampling, reasoning)
            if sys.stdin.isatty() and not as_json:
                chatting.converse(talk)
            elif (answer := chatting.answer_stdin(talk, whole=as_json)) is not None:
                print(document(chatting.told(answer)))


@app.command(epilog=_EXITS)
def embed(
    address: Address,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts; - for the lines of stdin.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .npy, .npz, .json or .csv file.")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Of a vector, where it can be shortened.")] = None,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    dtype: Dtype = None,
    api_key_env: KeyFrom = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Turn texts into vectors.

    For example:

        aiaas embed torch:models/encoder "a text" "another"
        aiaas embed openai+https://host/v1#encoder - -o vectors.npy < lines.txt

    Shown is a table of how each vector begins; -o and --json have them in full.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.api import load
        from aiaas_sdk.cli import embed as embedding
        from aiaas_sdk.cli import writing

        if output is not None:
            writing.check(output, [embedding.NAME], top=False)
        given = embedding.texts_of(texts)
        with load(address, **options(timeout, device, dtype, api_key_env)) as model:
            found = model.embed(given, dimensions=dimensions)
        if output is not None:
            embedding.write(found, output)
        if as_json:
            print(document(embedding.told(found, output)))
        elif output is None:
            print(embedding.shown(given, found))


@app.command(epilog=_EXITS)
def compare(
    a: Annotated[str, typer.Argument(help="An address.")],
    b: Annotated[str, typer.Argument(help="Another, the reference for relative differences.")],
    inputs: Inputs,
    input_name: InputName = None,
    rtol: Annotated[float, typer.Option(min=0, help="Relative tolerance.")] = 1e-5,
    atol: Annotated[float, typer.Option(min=0, help="Absolute tolerance.")] = 1e-6,
    repeat: Annotated[int, typer.Option(min=0, help="Timed calls of each; 0 for none.")] = 20,
    resize: Resize = False,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Give two models the same inputs: equal or not, why not, and how fast each is.

    For example:

        aiaas compare torch:models/digits https://host/v2/models/digits images.npy
        aiaas compare torch:models/digits@3 torch:models/digits@4 images.npy --atol 1e-3 --json

    Exits with 1 where they aren't equal, so that it can stand in CI. --device
    concerns what runs here.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.cli.comparing import compared

        given = options(timeout, device)
        found = compared(a, b, inputs, input_name, given, rtol=rtol, atol=atol, repeat=repeat, resize=resize)
        print(document(found.to_dict()) if as_json else found)
        if not found.equal:
            raise typer.Exit(UNEQUAL)


@app.command("import", epilog=_EXITS)
def import_(
    source: Annotated[Path, typer.Argument(help="A Hugging Face folder, or a .gguf file.")],
    target: Annotated[str, typer.Argument(help="The bundle's folder; an existing one gets its next version.")],
    name: Annotated[str | None, typer.Option(help="Another name for the model than the folder's.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Turn a language model of others into a bundle.

    For example:

        aiaas import downloads/SmolLM2-135M-Instruct models/smollm2
        aiaas import model.Q8_0.gguf models/llama

    A folder holds config.json, *.safetensors and tokenizer.json of a model of
    the type llama, mistral or bert. No code of the model's is run, and no
    pickle is read.
    """
    with guarded(as_json=as_json, debug=debug):
        from aiaas_sdk.cli.importing import imported

        found = imported(source, target, name)
        print(document(found) if as_json else table([(key, str(value)) for key, value in found.items()]))


@app.command(epilog=_EXITS)
def backends(
    check: Annotated[bool, typer.Option("--check", help="Import each, and say which can't be.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the installed backends, who brought each, and whether it can be used.

    Nothing is imported, so a broken plugin can't harm; --check does import
    them, one by one.
    """
    with guarded(as_json=as_json, debug=debug):
        from aiaas_sdk.registry import available_backends

        if check:
            _import_backends()
        found = available_backends()
        if as_json:
            print(document({scheme: asdict(one) for scheme, one in found.items()}))
            return
        lines = [(one.scheme, one.distribution, one.version, one.state) for one in found.values()]
        print(table([("scheme", "distribution", "version", "state"), *lines]))


@app.command("new-backend", epilog=_EXITS)
def new_backend(
    name: Annotated[str, typer.Argument(help="The scheme of its addresses, such as my-model.")],
    local: Annotated[bool, typer.Option("--local", help="For models in this process.")] = False,
    remote: Annotated[bool, typer.Option("--remote", help="For models behind an endpoint.")] = False,
    into: Annotated[Path, typer.Option("--into", metavar="FOLDER", help="Where its folder goes.")] = Path(),
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a package for a backend of your own: code, tests, README, CI.

    For example:

        aiaas new-backend my-model --local
        cd aiaas-my-model && pip install -e ".[test]" && pytest

    Its tests pass as it is written, the conformance suite among them; change
    it step by step into yours. The documentation has the contract.
    """
    with guarded(as_json=as_json, debug=debug):
        from aiaas_sdk.cli.new_backend import write

        if local == remote:
            raise ConfigError("a backend is local or remote", hint="Give one of --local and --remote")
        folder, written = write(name, "local" if local else "remote", into)
        told = f"{folder}: {', '.join(written)}\nNext: cd {folder} && pip install -e '.[test]' && pytest"
        print(document({"folder": folder, "files": written}) if as_json else told)


@app.command(epilog=_EXITS)
def doctor(
    address: Address,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    dtype: Dtype = None,
    api_key_env: KeyFrom = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Show where each setting of a model comes from, and try it with one real call.

    For example:

        aiaas doctor digits
        aiaas doctor https://host/v2/models/digits --api-key-env HOST_KEY

    Shown are the files read, each setting with its source, backend, version
    and device, the name of the credential (never its value), and the timings
    of a call with zeros. Exits with the code of the first failure.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.cli.diagnosis import diagnose

        found = diagnose(address, options(timeout, device, dtype, api_key_env))
        print(document(found.to_dict()) if as_json else found)
        if found.exit_code:
            raise typer.Exit(found.exit_code)


# ---------------------------------------------------------------- parts
def _import_backends() -> None:
    from aiaas_sdk.registry import available_backends, backend_class

    for scheme in available_backends():
        try:
            backend_class(scheme, f"{scheme}:")
        except AiaasError:
            continue  # its state says it
