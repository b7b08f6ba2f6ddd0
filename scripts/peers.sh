#!/bin/sh
# Makes .peers/NAME: a virtual environment with a stranger's server and client, for tests marked `peer`.
# They can't live in .venv: one wants ml_dtypes<=0.5.4, the other an older fastapi and protobuf.
# Usage: scripts/peers.sh triton|mlserver|openai2|openai3|hub|transformers|litserve     Remake one: rm -r .peers/NAME first.
# Needs Linux on x86-64.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
  triton)   needs='nvidia-pytriton==0.7.0 tritonclient[http]==2.73.0' check='import pytriton, tritonclient.http' ;;
  mlserver) needs='mlserver==1.7.1' check='import mlserver' ;;
  openai2)  needs='openai==2.54.0' check='import openai' ;;
  openai3)  needs='openai==3.57.0' check='import openai' ;;
  hub)      needs='huggingface_hub==2.4.0' check='import huggingface_hub' ;;
  # torch as in constraints.txt: any other brings several GB of CUDA packages
  transformers)
    # the second half is for `transformers serve`
    needs='transformers==5.24.0 torch==2.13.0 fastapi==0.165.0 uvicorn==0.54.0 openai==2.54.0 accelerate==1.15.0'
    check='import torch, transformers, accelerate, fastapi, uvicorn, openai' ;;
  litserve) needs='litserve==0.2.19' check='import litserve' ;;
  *) echo 'usage: scripts/peers.sh triton|mlserver|openai2|openai3|hub|transformers|litserve' >&2; exit 2 ;;
esac

folder=.peers/$1
if "$folder/bin/python" -c "$check" 2>/dev/null; then exit 0; fi
"${PYTHON:-.venv/bin/python}" -m venv "$folder"
# shellcheck disable=SC2086  # several requirements, none with a space inside
"$folder/bin/python" -m pip install -q $needs
"$folder/bin/python" -c "$check"
