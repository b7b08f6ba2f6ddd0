#!/bin/sh
# Makes .peers/NAME: a virtual environment with a stranger's server and client, for tests marked `peer`.
# They can't live in .venv: one wants ml_dtypes<=0.5.4, the other an older fastapi and protobuf.
# Usage: scripts/peers.sh triton|mlserver|openai2|openai3|hub|transformers|kserve|litserve|bentoml|schemathesis|llamacpp|mlflow|browser|keras
# Remake one: rm -r .peers/NAME first.
# Needs Linux on x86-64.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
  triton)   needs='nvidia-pytriton==0.7.0 tritonclient[http]==2.73.0' check='import pytriton, tritonclient.http' ;;
  mlserver) needs='mlserver==1.7.1' check='import mlserver' ;;
  openai2)  needs='openai==2.54.0' check='import openai' ;;
  openai3)  needs='openai==3.57.0' check='import openai' ;;
  hub)      needs='huggingface_hub==2.4.0 numpy==2.4.6' check='import huggingface_hub, numpy' ;;
  # torch as in constraints.txt, which says how to have it without several GB of CUDA packages
  transformers)
    # the second half is for `transformers serve`
    needs='transformers==5.24.0 torch==2.13.0 fastapi==0.165.0 uvicorn==0.54.0 openai==2.54.0 accelerate==1.15.0'
    check='import torch, transformers, accelerate, fastapi, uvicorn, openai' ;;
  # its server for V2 over gRPC, and the messages that it registers
  kserve)   needs='kserve==0.21.0' check='import kserve' ;;
  litserve) needs='litserve==0.2.19 numpy==2.4.6' check='import litserve, numpy' ;;
  # asks our servers by their OpenAPI description
  schemathesis) needs='schemathesis==4.32.5' check='import schemathesis' ;;
  bentoml)  needs='bentoml==1.4.39' check='import bentoml' ;;
  # has no wheel: it is compiled, four minutes on two cores
  llamacpp) needs='llama-cpp-python[server]==0.3.36' check='import llama_cpp.server.app' ;;
  # its scoring server without the tracking server: 25 seconds, 300 MB
  mlflow)   needs='mlflow-skinny==3.17.2 numpy==2.4.6 pandas==3.1.1' check='import mlflow.pyfunc.scoring_server' ;;
  # drives the Chromium of scripts/browser.sh
  browser)  needs='playwright==1.65.2' check='import playwright.sync_api' ;;
  # on torch, as for transformers
  keras)    needs='keras==3.15.1 torch==2.13.0 numpy==2.4.6' check='import os; os.environ["KERAS_BACKEND"] = "torch"; import keras, numpy' ;;
  *) echo 'usage: scripts/peers.sh triton|mlserver|openai2|openai3|hub|transformers|kserve|litserve|bentoml|schemathesis|llamacpp|mlflow|browser|keras' >&2; exit 2 ;;
esac

folder=.peers/$1
if "$folder/bin/python" -c "$check" 2>/dev/null; then exit 0; fi
"${PYTHON:-.venv/bin/python}" -m venv "$folder"

if [ "$1" = llamacpp ]; then
  # what runs on any x86-64 with AVX2, and no vision; OpenMP would want a library that not every compiler brings
  export CMAKE_ARGS='-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF'
  if ! command -v c++ >/dev/null; then
    # no compiler on this machine: a wheel has one. CMake wants each tool to be one file.
    "$folder/bin/python" -m pip install -q ziglang==0.16.0
    zig=$("$folder/bin/python" -c 'import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).resolve().with_name("zig"))')
    for tool in cc c++ ar ranlib; do
      printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$zig" "$tool" >"$folder/bin/zig-$tool"
      chmod +x "$folder/bin/zig-$tool"
    done
    export CC="$PWD/$folder/bin/zig-cc" CXX="$PWD/$folder/bin/zig-c++"
    CMAKE_ARGS="$CMAKE_ARGS -DCMAKE_AR=$PWD/$folder/bin/zig-ar -DCMAKE_RANLIB=$PWD/$folder/bin/zig-ranlib"
  fi
fi
# shellcheck disable=SC2086  # several requirements, none with a space inside
"$folder/bin/python" -m pip install -q $needs
"$folder/bin/python" -c "$check"
