"""The commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from aiaas_sdk import cards
from aiaas_sdk._version import __version__
from aiaas_sdk.cli.commands import Commands
from aiaas_sdk.cli.describing import described
from aiaas_sdk.cli.exits import CODES, UNEQUAL, guarded
from aiaas_sdk.cli.keys import app as keys
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
from aiaas_sdk.cli.serving import serve
from aiaas_sdk.cli.training import train
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
app.command(epilog=_EXITS)(serve)
app.command(epilog=_EXITS)(train)


@app.command(epilog=_EXITS)
def info(
    address: Address,
    card: Annotated[bool, typer.Option("--card", help="As a model card, in Markdown.")] = False,
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
        aiaas info torch:models/digits --card > CARD.md

    Shown are its versions, inputs, outputs, labels, device and what it can do;
    on a card also where it comes from and how it was trained, where somebody
    noted that.
    """
    with guarded(as_json=as_json, debug=debug):
        if card and as_json:
            raise ConfigError("--card is Markdown and --json is JSON", hint="Give one of them; --json has all facts")
        import_all(imports)
        from aiaas_sdk.api import load

        with load(address, **options(timeout, device, dtype, api_key_env)) as model:
            found = model.info()
        if card:
            print(cards.card(found), end="")
        else:
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
        echo '[[5.1, 3.5, 1.4, 0.2]]' | aiaas predict torch:models/iris -

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
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", help="Texts; - for the lines of stdin.")],
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
def explain(
    address: Address,
    inputs: Inputs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A picture (.png, .html), or .npz, .npy, .json, .csv.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="A label or an index; without, what the model predicts.")
    ] = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="auto takes one that fits.")] = "auto",
    text: Annotated[bool, typer.Option("--text", help="The inputs are texts, not files.")] = False,
    input_name: InputName = None,
    resize: Resize = False,
    as_json: AsJson = False,
    timeout: Timeout = None,
    device: Device = None,
    dtype: Dtype = None,
    api_key_env: KeyFrom = None,
    imports: Imports = None,
    debug: Debug = False,
) -> None:
    """Show what each part of the inputs did for the answer.

    For example:

        aiaas explain torch:models/digits seven.png -o seven-why.png
        aiaas explain https://host/v2/models/iris flowers.csv --method shap
        aiaas explain torch:models/encoder "a text" --text -o why.html

    Methods: integrated_gradients, saliency, smoothgrad, grad_cam, occlusion,
    shap, attention_rollout. Behind an endpoint that gives predictions alone,
    occlusion and shap work all the same. Files as for predict.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.api import load
        from aiaas_sdk.cli import explaining

        with load(address, **options(timeout, device, dtype, api_key_env)) as model:
            info = model.info()
            if output is not None:
                explaining.check(output, model)
            given = explaining.inputs_of(inputs, text, info, input_name, resize=resize)
            found = model.explain(given, target=explaining.target_of(target, info), method=method)
        if output is not None:
            explaining.write(found, output)
        print(document(explaining.told(found, output)) if as_json else explaining.shown(found))


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
        aiaas compare models/digits@3 models/digits@4 images.npy --atol 1e-3

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
        cd aiaas-my-model && pip install -e ".\\[test]" && pytest

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

    Shown are the files read, each setting with its source (those of aiaas
    serve, too, where a file has a table serve), backend, version and device,
    the name of the credential (never its value), and the timings of a call
    with zeros. Exits with the code of the first failure.
    """
    with guarded(as_json=as_json, debug=debug):
        import_all(imports)
        from aiaas_sdk.cli.diagnosis import diagnose

        found = diagnose(address, options(timeout, device, dtype, api_key_env))
        print(document(found.to_dict()) if as_json else found)
        if found.exit_code:
            raise typer.Exit(found.exit_code)


app.add_typer(keys, name="keys")


# ---------------------------------------------------------------- parts
def _import_backends() -> None:
    from aiaas_sdk.registry import available_backends, backend_class

    for scheme in available_backends():
        try:
            backend_class(scheme, f"{scheme}:")
        except AiaasError:
            continue  # its state says it
