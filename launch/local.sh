#!/usr/bin/env bash
# Runs any verb of alpacare as several joined processes on this machine.
set -euo pipefail

if [[ ${1:-} == -h || ${1:-} == --help || $# -lt 3 ]]; then
  echo "Usage: launch/local.sh PROCESSES DEVICES_PER_PROCESS VERB ARGS..."
  echo "For example: launch/local.sh 2 4 doctor"
  [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0 || exit 2
fi
processes=$1 devices=$2
shift 2
alpacare="$(dirname "$0")/../.venv/bin/alpacare"
[[ -x $alpacare ]] || alpacare=alpacare
exec "$alpacare" launch local --processes "$processes" --devices-per-process "$devices" -- "$@"
