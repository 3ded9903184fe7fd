#!/bin/sh
# Makes the bundle models/cxr-vgg16 from VGG16's ImageNet weights and a folder of labelled radiographs: every step is a
# command of roentgen-host. What was computed before is kept in WORK and not computed again; a training that was killed goes
# on from its checkpoint.
#
#   models/make-cxr-vgg16.sh WEIGHTS DATA [WORK]
#
# The committed bundle was trained on LibTorch 2.9.0 (the PyPI wheel torch==2.9.0) on two CPU cores, in about two hours:
#
#   export LIBTORCH=…/site-packages/torch LD_LIBRARY_PATH=…/site-packages/torch/lib:…/site-packages/nvidia/*/lib
#   ROENTGEN_FEATURES=torch ROENTGEN_PRECISION=bf16 ROENTGEN_SIGN=KEY models/make-cxr-vgg16.sh WEIGHTS DATA
#
# Without these the same runs on burn's own CPU backend, in days; with ROENTGEN_FEATURES=cuda or vulkan on a GPU. Sums are
# then added up in another order: the weights differ in their last digits, and the figures by what chance allows.
# The bundle is signed with the minisign secret key in $ROENTGEN_SIGN; without one it is unsigned, and a box refuses it.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 WEIGHTS.safetensors DATA-FOLDER [WORK-FOLDER]" >&2; exit 2; }
cd "$(dirname "$0")/.."
weights=$1 data=$2 work=${3:-target/cxr-vgg16}
mkdir -p "$work"
host() { cargo run --quiet --release --features "${ROENTGEN_FEATURES:-host}" --bin roentgen-host -- "$@"; }

[ -f "$work/model.safetensors" ] ||
    host import --weights "$weights" --convention caffe --out "$work/model.safetensors"
# The head on the frozen trunk, then blocks 3 to 5 with it. A run that ended is not run again: remove the file to do so.
[ -f "$work/trained.done" ] || {
    host train --model "$work/model.safetensors" --data "$data" --out "$work/trained.safetensors" \
        --unfreeze block3 --fine-epochs 10 --precision "${ROENTGEN_PRECISION:-f32}" --seed 1 \
        --resume --log "$work/training.csv"
    touch "$work/trained.done"
}
# int8, gates, calibration, all figures, signature.
host quantize --model "$work/trained.safetensors" --data "$data" --out models/cxr-vgg16 \
    --name cxr-vgg16 --version 1.0.0 --card models/cxr-vgg16.card.md \
    --provenance "data=COVID-19 Radiography Database (Chowdhury et al. 2020, IEEE Access; Rahman et al. 2021); lung_opacity: NIH ChestX-ray8 as a stand-in (Wang et al. 2017)" \
    --provenance "weights=VGG16 ImageNet convolutions, Simonyan & Zisserman, arXiv:1409.1556, CC BY 4.0; folded to grey, fine-tuned and quantized here" \
    ${ROENTGEN_SIGN:+--sign "$ROENTGEN_SIGN"}
