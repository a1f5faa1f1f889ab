#!/usr/bin/env bash
# The same as auto_torchrun, for scripts that call this name: bash tools/torchrun.sh -m vq.train NAME CONFIG ...
set -euo pipefail
exec "${PYTHON:-python}" -m vq.launch.main "$@"
