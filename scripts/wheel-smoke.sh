#!/bin/sh
# Builds the wheel, installs it in a fresh environment outside the checkout, and uses it as a user would.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
unset PYTHONPATH

"$python" -m build --wheel --no-isolation --outdir "$work/dist" . >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
set -- "$work"/dist/aiaas_sdk-*.whl
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q -c "$root/constraints.txt" "$1"

cd "$work"
export AIAAS_HOME="$work/home" XDG_CONFIG_HOME="$work/config"
cat >smoke.py <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import aiaas_sdk as aiaas

heavy = {"torch", "numpy", "httpx", "httpx2", "pydantic"} & set(sys.modules)
assert not heavy, f"import aiaas_sdk loaded {sorted(heavy)}"
assert aiaas.__version__ == version("aiaas-sdk")
assert Path(aiaas.__file__).is_relative_to(sys.prefix), aiaas.__file__
assert (Path(aiaas.__file__).parent / "py.typed").exists()

import numpy as np

x = np.arange(6, dtype=np.float32).reshape(2, 3)
with aiaas.load("echo:") as model:
    back = model.predict(x)
assert np.array_equal(back.array, x)
print(f"wheel ok: aiaas-sdk {aiaas.__version__} on Python {sys.version.split()[0]}")
PYTHON
"$work/venv/bin/python" smoke.py

# The command says what it lacks, and works once that is there; then a server and a client, both from the wheel.
if "$work/venv/bin/aiaas" --version >lacking.txt 2>&1; then echo 'aiaas ran without its extra' >&2; exit 1; fi
grep -q 'aiaas-sdk\[cli\]' lacking.txt || { cat lacking.txt >&2; exit 1; }
"$work/venv/bin/python" -m pip install -q -c "$root/constraints.txt" "$1[cli,serve]"
"$work/venv/bin/aiaas" --version
"$work/venv/bin/aiaas" serve 'e=echo:?x=FP32[-1,3]' --port 0 >serve.txt 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
url=
for _ in $(seq 100); do
  url=$(grep -o "http://127[0-9.:]*" serve.txt | head -n 1)
  [ -z "$url" ] || break
  kill -0 $server 2>/dev/null || break
  sleep 0.2
done
[ -n "$url" ] || { cat serve.txt >&2; exit 1; }
echo '[[1, 2, 3]]' | "$work/venv/bin/aiaas" predict "$url/v2/models/e" - | tee answer.txt
grep -q '3' answer.txt
kill $server
wait $server
echo "wheel ok: aiaas serve and aiaas predict"

# pytest finds the plugin by itself.
"$work/venv/bin/python" -m pip install -q -c "$root/constraints.txt" pytest
cat >test_smoke.py <<'PYTHON'
import aiaas_sdk as aiaas


def test_recorded(aiaas_recording, aiaas_no_network):
    assert aiaas.load("echo:").predict([1.0]).array.tolist() == [1]


def test_scripted(aiaas_scripted):
    aiaas_scripted.answer([2.0])
    assert aiaas.load(aiaas_scripted.address).predict([1.0]).array.tolist() == [2]
PYTHON
"$work/venv/bin/python" -W error -m pytest -q -p no:cacheprovider --aiaas=record test_smoke.py
"$work/venv/bin/python" -W error -m pytest -q -p no:cacheprovider --aiaas=replay --aiaas-strict test_smoke.py
test -f recordings/test_smoke/test_recorded.jsonl
echo "wheel ok: pytest --aiaas=replay"
