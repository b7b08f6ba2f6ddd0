"""examples/deploy: right by their schemas, and right about us: flags, paths, ports and times."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from dockerfile_parse import DockerfileParser

from aiaas_sdk import settings
from aiaas_sdk.cli import serving
from aiaas_sdk.cli.app import app
from aiaas_sdk.server import serve_in_thread

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "examples" / "deploy"
KEYS = PurePosixPath("/etc/aiaas/keys/keys.toml")
KUBERNETES = "1.34"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    return next(
        document
        for name in ("kubernetes.yaml", "kserve.yaml")
        for document in documents(name)
        if document["kind"] == kind
    )


def containers() -> list[dict[str, Any]]:
    return [
        of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0],
        of_kind("ServingRuntime")["spec"]["containers"][0],
    ]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of [serve] in the image."""
    found, _ = settings.read(DEPLOY, {"AIAAS_CONFIG": str(DEPLOY / "aiaas.toml")}).serve(serving.hints())
    return found


def instructions(stage: str | None = None) -> list[dict[str, Any]]:
    """Of all of the Containerfile, or of one stage that has a name."""
    content = io.BytesIO((DEPLOY / "Containerfile").read_bytes())
    found, now = [], ""
    for one in DockerfileParser(fileobj=content).structure:
        if one["instruction"] == "FROM":
            now = one["value"].partition(" AS ")[2]
        if stage in (None, now):
            found.append(one)
    return found


def copies(stage: str | None = None) -> list[list[str]]:
    """What each COPY takes from the checkout, and where to."""
    values = [one["value"].split() for one in instructions(stage) if one["instruction"] == "COPY"]
    return [
        [word for word in words if not word.startswith("--")]
        for words in values
        if not any(word.startswith("--from=") for word in words)
    ]


def runs(stage: str) -> list[str]:
    """The commands of its RUN lines."""
    values = [one["value"] for one in instructions(stage) if one["instruction"] == "RUN"]
    return [command.strip() for value in values for command in value.split("&&")]


def page_commands() -> list[list[str]]:
    text = (DEPLOY / "README.md").read_text().replace("\\\n", " ")
    blocks = re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def image() -> dict[str, Any]:
    """The last stage of the Containerfile: each instruction's values."""
    found: dict[str, list[str]] = {}
    for instruction in instructions():
        if instruction["instruction"] == "FROM":
            found = {}
        found.setdefault(instruction["instruction"], []).append(instruction["value"])
    return found


def parsed(arguments: list[str]) -> Any:
    """What the command makes of its arguments; wrong ones end the test."""
    assert arguments[0] == "serve"
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return command.make_context("serve", arguments[1:]).params


# ---------------------------------------------------------------- schemas
@pytest.mark.parametrize("document", documents("kubernetes.yaml"), ids=lambda document: document["kind"])
def test_kubernetes_takes_them(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_kubernetes_takes_the_container_of_the_runtime() -> None:
    spec = {"containers": of_kind("ServingRuntime")["spec"]["containers"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


CHECK = """
import json, sys
import kserve

def check(kind, value):
    "By kserve's own models; what is Kubernetes' in it, that one's schema has checked."
    if kind.startswith("list["):
        for one in value:
            check(kind[5:-1], one)
    elif (model := getattr(kserve.models, kind, None)) is not None:
        names = {wire: name for name, wire in model.attribute_map.items()}
        assert value.keys() <= names.keys(), (kind, value.keys() - names.keys())
        model(**{names[wire]: one for wire, one in value.items()})  # what must be there
        for wire, one in value.items():
            check(model.openapi_types[names[wire]], one)

for document in json.load(sys.stdin):
    kind = document["apiVersion"].rpartition("/")[2].capitalize() + document["kind"]
    check(kind, document)
    print(kind)
"""


@pytest.mark.peer
@pytest.mark.slow
def test_kserves_own_models_take_all_of_it() -> None:
    python = Path(__file__).parents[1] / ".peers/kserve/bin/python"
    if not python.exists():
        pytest.skip("scripts/peers.sh kserve makes the environment")
    given = json.dumps(documents("kserve.yaml"))
    result = subprocess.run([python, "-c", CHECK], input=given, capture_output=True, text=True, timeout=100)
    assert result.stdout.split() == ["V1alpha1ServingRuntime", "V1beta1InferenceService"], result.stderr


# ---------------------------------------------------------------- the image
def test_the_image_runs_the_command_as_its_first_process_without_rights(image: dict[str, Any]) -> None:
    assert json.loads(image["ENTRYPOINT"][0]) == ["aiaas"]
    assert parsed(json.loads(image["CMD"][0]))["targets"] in (None, [], ())
    (user,) = image["USER"]
    assert int(user) > 0
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    for context in (pod["securityContext"], of_kind("ServingRuntime")["spec"]["containers"][0]["securityContext"]):
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, int(user))


def test_the_image_stands_on_one_release_and_holds_no_secret() -> None:
    (base,) = [one["value"].partition("=")[2] for one in instructions() if one["value"].startswith("BASE=")]
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)  # not whatever is newest on the day
    stages = [one["value"].split()[0] for one in instructions() if one["instruction"] == "FROM"]
    assert stages == ["${BASE}", "needs", "${BASE}"]
    given = [one["value"] for one in instructions() if one["instruction"] in ("ARG", "ENV")]
    assert not re.search(r"key|token|secret|password", " ".join(given), re.IGNORECASE)
    assert not {".", "./"} & {word for words in copies() for word in words}  # nothing comes along by chance


def test_what_the_image_copies_is_there_and_let_in(image: dict[str, Any]) -> None:
    sources = {source for words in copies() for source in words[:-1]}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"constraints.txt", "pyproject.toml", "aiaas_sdk"} <= sources
    assert ["examples/deploy/aiaas.toml", "/etc/aiaas/aiaas.toml"] in copies()
    assert "AIAAS_CONFIG=/etc/aiaas/aiaas.toml" in " ".join(image["ENV"])
    nothing, *more = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert nothing == "*"  # no environments, no models: many GB would be sent to the engine
    let_in = {line[1:] for line in more if line[0] == "!"}
    assert let_in == sources - {source for source in sources if str(Path(source).parent) in let_in}


def test_the_images_user_may_read_what_is_there_and_write_keys(image: dict[str, Any]) -> None:
    assert all("--chmod=644" in value for value in image["COPY"] if not value.startswith("--from="))
    (user,) = image["USER"]
    assert f"--uid {user} " in image["RUN"][0]
    assert f"--mode 700 {KEYS.parent}" in image["RUN"][0]


@pytest.mark.slow
def test_the_steps_of_the_build_do_what_they_should(tmp_path: Path) -> None:
    """Without an engine and without a network: what the requirements bring is here already."""
    source, ours = tmp_path / "src", tmp_path / "ours"
    steps = {"/src": source, "/ours": ours, "/opt/aiaas/bin/pip": f"{sys.executable} -m pip"}
    steps["pip install"] = "pip install --no-index --no-build-isolation --no-compile"

    def run(step: str) -> None:
        for path, here in steps.items():
            step = step.replace(path, str(here))
        subprocess.run(["sh", "-euc", step], check=True, timeout=100, stdout=subprocess.DEVNULL)

    def copy(stage: str) -> None:
        for *sources, target in copies(stage):
            for name in sources:
                place = tmp_path / target.lstrip("/")
                if (ROOT / name).is_dir():
                    shutil.copytree(
                        ROOT / name, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, place)

    copy("needs")
    touched, _, install, uninstall = runs("needs")
    run(touched)
    assert '"/src[${EXTRAS}]"' in install
    run(install.replace('"/src[${EXTRAS}]"', "--no-deps --target /ours/needs /src"))  # the package without its code
    assert uninstall.endswith("aiaas-sdk")
    (facts,) = ours.glob("needs/aiaas_sdk-*.dist-info/METADATA")
    extras = set(re.findall(r"Provides-Extra: (.+)", facts.read_text()))
    (chosen,) = [one["value"].partition("=")[2] for one in instructions("needs") if one["value"].startswith("EXTRAS=")]
    assert set(chosen.split(",")) <= extras
    assert (facts.parents[1] / "aiaas_sdk" / "_version.py").exists()

    copy("build")
    (install,) = runs("build")
    run(install.replace(" --root", " --ignore-installed --root"))
    made = ours / Path(sys.prefix).relative_to("/")
    assert (made / "bin" / "aiaas").exists()
    assert list(made.glob("lib/python*/site-packages/aiaas_sdk/server/app.py"))


# ---------------------------------------------------------------- what the page says
def test_the_pages_commands_are_ours(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text("")
    told = [words for words in page_commands() if words[:2] == ["podman", "run"]]
    assert len(told) == 3
    for words in told:
        arguments = [str(keys) if word == str(KEYS) else word for word in words[words.index("aiaas") + 1 :]]
        command = typer.main.get_command(app)
        for _ in range(2 if arguments[0] == "keys" else 1):
            command = command.commands[arguments.pop(0)]  # type: ignore[attr-defined]
        command.make_context("x", arguments)


def test_what_is_replaced_while_it_runs_is_never_mounted_as_a_file() -> None:
    """A mount of the file goes on showing the old one."""
    mounted = [
        mount.split(":")[1]
        for words in page_commands()
        for option, mount in itertools.pairwise(words)
        if option == "-v"
    ]
    assert str(KEYS.parent) in mounted
    assert [path for path in mounted if Path(path).suffix] == []


def test_an_engine_waits_as_long_as_the_server_takes_to_end(served: dict[str, Any]) -> None:
    patience = [int(words[words.index("--stop-timeout") + 1]) for words in page_commands() if "serve" in words]
    assert patience
    assert min(patience) > served["drain_delay"] + served["grace"] + 4


@pytest.mark.parametrize("container", containers(), ids=["deployment", "runtime"])
def test_the_arguments_are_ours(container: dict[str, Any]) -> None:
    assert parsed(container["args"])["targets"]


def test_one_port_stands_everywhere(image: dict[str, Any], served: dict[str, Any]) -> None:
    assert image["EXPOSE"] == [str(served["port"])]
    assert f"127.0.0.1:{served['port']}/" in image["HEALTHCHECK"][0]
    for container in containers():
        assert container["ports"][0]["containerPort"] == served["port"]


def test_the_end_fits_into_kubernetes_patience(served: dict[str, Any]) -> None:
    patience = of_kind("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert served["drain_delay"] + served["grace"] + 4 < patience
    assert served["drain_delay"] > 2 * containers()[0]["readinessProbe"]["periodSeconds"]


def test_what_is_probed_is_there() -> None:
    probes = [
        container[probe]["httpGet"]["path"]
        for container in containers()
        for probe in ("readinessProbe", "livenessProbe")
    ]
    template = of_kind("Deployment")["spec"]["template"]
    probes.append(template["metadata"]["annotations"]["prometheus.io/path"])
    with serve_in_thread(["echo:"]) as url:
        for path in {*probes, "/ping"}:
            with urllib.request.urlopen(url + path, timeout=10) as reply:
                assert reply.status == 200


@pytest.mark.slow
def test_with_the_images_settings_it_serves_and_is_healthy(image: dict[str, Any], served: dict[str, Any]) -> None:
    environment = {**os.environ, "AIAAS_CONFIG": str(DEPLOY / "aiaas.toml")}
    # the image's own but for the address, which others would reach here
    command = [sys.executable, "-m", "aiaas_sdk.cli", "serve", "echo:", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        _, _, check = image["HEALTHCHECK"][0].partition("CMD ")
        _, option, program = json.loads(check)
        program = program.replace(f"http://127.0.0.1:{served['port']}", url)
        assert subprocess.run([sys.executable, option, program], timeout=20).returncode == 0
    finally:
        process.kill()
        process.communicate()
