#!/usr/bin/env bash
# What the container promises, without a container: the built wheel in an environment owned by root; a fill by user id
# 54321 with no home, no network and a read-only file system but for /tmp and the data folder. Linux, as root:
#   bash containers/try_without_docker.sh
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
make --no-print-directory wheel >/dev/null
"${PYTHON:-python3}" -m venv "$work/venv" # of a Python that other users may read
"$work/venv/bin/python" -m pip install --quiet -c constraints.txt "neuromend @ file://$(realpath dist/neuromend-*.whl)"
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from neuromend.doctor import synthetic_head

folder = Path(sys.argv[1]) / "data"
folder.mkdir()
folder.chmod(0o777)
scan, mask = synthetic_head()
nib.save(scan, folder / "T1.nii.gz")
nib.save(mask, folder / "lesion.nii.gz")
PYTHON
export WORK=$work
unshare --net --mount bash -euc '
  mount --bind "$WORK/data" "$WORK/data"
  mount -t tmpfs tmpfs /mnt
  mount -o remount,bind,ro / 2>/dev/null || mount -o remount,ro,bind /
  cd "$WORK/data"
  mount -o remount,bind,rw "$WORK/data"
  exec setpriv --reuid 54321 --regid 54321 --clear-groups env -i PATH="$WORK/venv/bin:/usr/bin:/bin" HOME=/mnt \
    XDG_CACHE_HOME=/mnt/cache MPLCONFIGDIR=/mnt/matplotlib TMPDIR=/mnt PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 \
    neuromend fill -i T1.nii.gz -m lesion.nii.gz -o filled.nii.gz
'
ls -ln "$work/data"
