#!/usr/bin/env bash
# Runs any verb of alpacare on every worker of a Google Cloud TPU VM slice. Needs only gcloud on this machine.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/tpu_vm.sh --name NAME --zone ZONE [--project PROJECT] [--folder FOLDER] [--setup] [-- VERB ARGS...]

  --name NAME        name of the TPU VM
  --zone ZONE        its zone, for example us-central2-b
  --project PROJECT  its project (default: gcloud's own)
  --folder FOLDER    the project's folder on the workers (default: alpacare-jax)
  --setup            first copy this checkout's last commit to every worker and install it there

The verb runs on all workers at once and this script waits for them, for example:

  launch/tpu_vm.sh --name my-pod --zone us-central2-b --setup
  launch/tpu_vm.sh --name my-pod --zone us-central2-b -- train --config configs/train/llama2_7b_v5e16.yaml
TEXT
}

fail() {
  echo "tpu_vm.sh: $1 (see launch/tpu_vm.sh --help)" >&2
  exit 2
}

name="" zone="" project="" folder="alpacare-jax" setup=false
while (($#)); do
  case "$1" in
    --name | --zone | --project | --folder)
      (($# >= 2)) || fail "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --setup) setup=true && shift ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) fail "unknown argument: $1" ;;
  esac
done
[[ -n $name && -n $zone ]] || fail "--name and --zone are needed"
[[ $setup == true || $# -gt 0 ]] || fail "nothing to do: name a verb after --, or give --setup"

where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")
place=$(printf '%q' "$folder")

if [[ $setup == true ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$work/alpacare-jax.tar.gz" HEAD
  gcloud compute tpus tpu-vm scp "$work/alpacare-jax.tar.gz" "$name:alpacare-jax.tar.gz" "${where[@]}" --worker=all
  # Some TPU VM images bring a Python older than 3.11.
  install="mkdir -p $place && tar -xzf alpacare-jax.tar.gz -C $place && cd $place"
  install+=" && { command -v python3.11 || { sudo apt-get update && sudo apt-get install -y python3.11-venv; }; }"
  install+=" && python3.11 -m venv .venv && .venv/bin/pip install -e '.[tpu]'"
  gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all "--command=$install"
fi

if (($#)); then
  words=$(printf ' %q' "$@")
  gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all \
    "--command=cd $place && ALPACARE_DISTRIBUTED=1 .venv/bin/alpacare$words"
fi
