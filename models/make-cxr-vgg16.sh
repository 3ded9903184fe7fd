#!/bin/sh
# Makes the bundle models/cxr-vgg16 from VGG16's ImageNet weights and a folder of labelled radiographs: every step is a
# command of roentgen-host. What was computed before from the same weights, images and options is kept in WORK and not
# computed again; a training that was killed goes on from its checkpoint.
#
#   models/make-cxr-vgg16.sh WEIGHTS DATA [WORK [BUNDLE]]        (WORK: target/cxr-vgg16, BUNDLE: models/cxr-vgg16)
#
# The committed bundle was trained on LibTorch 2.9.0 (the PyPI wheel torch==2.9.0) on two Zen 5 cores: ten passes, in
# three hours beside other work; a pass alone on the machine takes 9.3 minutes.
#
#   site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
#   export LIBTORCH="$site/torch" LD_LIBRARY_PATH="$(ls -d "$site"/torch/lib "$site"/nvidia/*/lib | paste -sd: -)"
#   ROENTGEN_FEATURES=torch ROENTGEN_PRECISION=bf16 ROENTGEN_SIGN=KEY models/make-cxr-vgg16.sh WEIGHTS DATA
#
# Without these the same runs on burn's own CPU backend, three to four times slower (the figures stand in
# src/bin/roentgen_host/finetune.rs); with ROENTGEN_FEATURES=cuda or wgpu on a GPU. Sums are then added up in another
# order: the weights differ in their last digits, and the figures by what chance allows.
#
#   ROENTGEN_SIGN       the minisign secret key to sign with; without one the bundle is unsigned, and a box refuses it
#   ROENTGEN_NEGATIVES  a folder of pictures that are no radiographs: the report then says how many are not judged
#   ROENTGEN_HOST       a built roentgen-host, instead of `cargo run`
#   ROENTGEN_TRAIN      options of `train`, instead of those of the committed bundle
#   ROENTGEN_QUANTIZE   more options of `quantize`, e.g. "--version 1.0.1"
set -eu
[ $# -ge 2 ] && [ $# -le 4 ] ||
    { echo "usage: $0 WEIGHTS.safetensors DATA-FOLDER [WORK-FOLDER [BUNDLE-FOLDER]]" >&2; exit 2; }

# As seen from where this was called, before leaving there.
absolute() { case $1 in /* | '') echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
weights=$(absolute "$1") data=$(absolute "$2") work=$(absolute "${3:-}") bundle=$(absolute "${4:-}")
sign=$(absolute "${ROENTGEN_SIGN:-}") negatives=$(absolute "${ROENTGEN_NEGATIVES:-}")
tool=$(absolute "${ROENTGEN_HOST:-}")
[ -f "$weights" ] || { echo "$0: there is no file $weights" >&2; exit 1; }
[ -d "$data" ] || { echo "$0: there is no folder $data" >&2; exit 1; }
cd "$(dirname "$0")/.."
work=${work:-$PWD/target/cxr-vgg16} bundle=${bundle:-$PWD/models/cxr-vgg16}
mkdir -p "$work"

host() {
    if [ -n "$tool" ]; then "$tool" "$@"; else
        cargo run --quiet --release --features "${ROENTGEN_FEATURES:-host}" --bin roentgen-host -- "$@"
    fi
}
# made NAME STAMP: whether NAME was made from just what STAMP stands for.
made() { [ -f "$work/$1" ] && [ -f "$work/$1.stamp" ] && [ "$(cat "$work/$1.stamp")" = "$2" ]; }
sum() { sha256sum | cut -c1-64; }

# The head on the frozen trunk, then blocks 3 to 5 with it.
train=${ROENTGEN_TRAIN:-"--unfreeze block3 --fine-epochs 10 --precision ${ROENTGEN_PRECISION:-f32} --seed 1"}
of_weights=$(sum < "$weights")
of_data=$(cd "$data" && find -L . -type f -exec cksum {} + | LC_ALL=C sort | sum)
of_training=$(echo "$of_weights $of_data $train" | sum)

made model.safetensors "$of_weights" || {
    host import --weights "$weights" --convention caffe --out "$work/model.safetensors"
    echo "$of_weights" > "$work/model.safetensors.stamp"
}
# shellcheck disable=SC2086  # options are split at spaces
made trained.safetensors "$of_training" || {
    host train --model "$work/model.safetensors" --data "$data" --out "$work/trained.safetensors" $train \
        --resume --log "$work/training.csv"
    echo "$of_training" > "$work/trained.safetensors.stamp"
}
asked=" ${ROENTGEN_QUANTIZE:-}"
case $asked in *" --version"*) version= ;; *) version="--version 1.0.0" ;; esac
case $asked in *" --calibration-images"*) images= ;; *) images="--calibration-images 400" ;; esac
# int8, gates, calibration, all figures, signature.
# shellcheck disable=SC2086
host quantize --model "$work/trained.safetensors" --data "$data" --out "$bundle" \
    --name cxr-vgg16 $version $images --card models/cxr-vgg16.card.md \
    --provenance "data=COVID-19 Radiography Database (Chowdhury et al. 2020, IEEE Access; Rahman et al. 2021); lung_opacity: NIH ChestX-ray8 as a stand-in (Wang et al. 2017)" \
    --provenance "weights=VGG16 ImageNet convolutions, Simonyan & Zisserman, arXiv:1409.1556, CC BY 4.0; folded to grey, fine-tuned and quantized here" \
    ${negatives:+--negatives "$negatives"} ${sign:+--sign "$sign"} $asked
