#!/usr/bin/env bash
#SBATCH --job-name=alpacare
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --exclusive
# Runs any verb of alpacare on the GPU nodes of a Slurm job: one task a node, each with all GPUs of its node.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: sbatch [SBATCH OPTIONS] launch/slurm.sh VERB ARGS...

Options of sbatch given before the script override those at its top, for example:

  sbatch --nodes=2 --partition=gpu launch/slurm.sh train --config configs/train/llama2_7b_v5e16.yaml mesh.fsdp=16

ALPACARE names the program to run on the nodes (default: .venv/bin/alpacare in the folder the job was submitted from,
else the one on PATH).
TEXT
}

case "${1:-}" in
  -h | --help) usage && exit 0 ;;
  "") usage >&2 && exit 2 ;;
esac
if [[ -z ${SLURM_JOB_ID:-} ]]; then
  echo "slurm.sh: not inside a Slurm job; submit it with sbatch (see launch/slurm.sh --help)" >&2
  exit 2
fi

alpacare=${ALPACARE:-}
if [[ -z $alpacare ]]; then
  alpacare="${SLURM_SUBMIT_DIR:-$PWD}/.venv/bin/alpacare"
  [[ -x $alpacare ]] || alpacare=alpacare
fi

# The processes find each other through Slurm's own variables.
export ALPACARE_DISTRIBUTED=1
# One failed task ends the job; the others would wait for it in a collective.
exec srun --kill-on-bad-exit=1 --label "$alpacare" "$@"
