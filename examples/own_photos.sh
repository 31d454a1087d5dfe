#!/bin/sh
# Your own photos, from a folder to files for a server and for a phone:
#
#     sh examples/own_photos.sh photos runs/photos
#
# The first argument holds train/CLASS/*.jpg (docs/images.md), the second becomes the
# directory of the run. Further arguments go to the training, such as --set=epochs=100.
# It needs pip install -e ".[train,export]". Started again, it goes on where it stopped.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: sh $0 PHOTOS RUN [--set=FIELD=VALUE ...]" >&2
    exit 2
fi
if ! python -c "import train, ai_edge_litert" 2>/dev/null; then
    echo "error: expected pip install -e '.[train,export]' to have been run" >&2
    exit 1
fi
photos=$1
run=$2
shift 2

python -m train.prepare --data="folder:$photos"  # counts what is left out
python -m train --recipe=photos --data="folder:$photos" --workdir="$run" "$@"
python -m train.evaluate --workdir="$run" --split=validation
python -m train.predict "$run" "$photos/train" --csv="$run/predictions.csv"
[ -e "$run/mobile" ] ||
    python -m train.export --workdir="$run" --out="$run/mobile" --format=litert
