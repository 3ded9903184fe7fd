#!/bin/sh
# Makes the bundle models/cxr-vgg16 from VGG16's ImageNet weights and a folder of labelled radiographs. Takes about half an
# hour on two cores; what was computed before is kept in WORK and not computed again. The bundle is signed with the minisign
# secret key in $ROENTGEN_SIGN; without one it is unsigned, and a box refuses it.
#
#   models/make-cxr-vgg16.sh WEIGHTS DATA [WORK]
set -eu
[ $# -ge 2 ] || { echo "usage: $0 WEIGHTS.safetensors DATA-FOLDER [WORK-FOLDER]" >&2; exit 2; }
cd "$(dirname "$0")/.."
weights=$1 data=$2 work=${3:-target/cxr-vgg16}
mkdir -p "$work"
host() { cargo run --quiet --release --features host --bin roentgen-host -- "$@"; }

host import --weights "$weights" --convention caffe --out "$work/model.safetensors"
host train --model "$work/model.safetensors" --data "$data" --out "$work/trained.safetensors"
host quantize --model "$work/trained.safetensors" --data "$data" --out models/cxr-vgg16 \
    --name cxr-vgg16 --version 0.1.0 --card models/cxr-vgg16.card.md \
    --provenance "data=COVID-19 Radiography Database (Chowdhury et al. 2020, IEEE Access; Rahman et al. 2021); lung_opacity: NIH ChestX-ray8 as a stand-in (Wang et al. 2017)" \
    ${ROENTGEN_SIGN:+--sign "$ROENTGEN_SIGN"} \
    --provenance "weights=VGG16 ImageNet convolutions, Simonyan & Zisserman, arXiv:1409.1556, CC BY 4.0; folded to grey and quantized here"
