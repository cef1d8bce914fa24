#!/usr/bin/env bash
#SBATCH --job-name=bids_sr
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --output=bids_sr_%A_%a.log
#SBATCH --signal=B:TERM@120
#
# One subject, or one session, per task of a SLURM array.
#
#   bash slurm_array.sh --list BIDS_DIR > tasks.txt              a line per subject; --list-sessions: a line per session
#   sbatch --array=1-$(wc -l < tasks.txt)%50 slurm_array.sh tasks.txt BIDS_DIR OUTPUT_DIR --output-resolution 1.25
#
# %50 keeps at most 50 tasks running. Words after OUTPUT_DIR are options of bids_sr. The list is written once, when the
# array is submitted: a dataset that grows meanwhile cannot shift the tasks. BIDS_SR may hold another way to start the
# program, for example a container (its -B must name the same folders inside and outside):
#
#   export BIDS_SR="apptainer run --cleanenv --containall -B /data,/scratch bids_sr.sif"
set -euo pipefail

usage() {
    echo "usage: $0 --list|--list-sessions BIDS_DIR, or as a task: TASKS BIDS_DIR OUTPUT_DIR [options of bids_sr]" >&2
    exit 2
}

# Subjects with a diffusion series, one a line; with a second argument their sessions too: "01 1", or "01" without one.
list() {
    local series subject session
    for series in "$1"/sub-*/dwi/*_dwi.nii* "$1"/sub-*/ses-*/dwi/*_dwi.nii*; do
        # A link whose content has not been fetched (DataLad) counts too.
        [ -e "$series" ] || [ -L "$series" ] || continue
        series=${series#"$1"/sub-}
        subject=${series%%/*}
        session=${series#*/}
        case "$session" in
            ses-*) session=${session%%/*} ;;
            *) session= ;;
        esac
        echo "$subject${2:+${session:+ ${session#ses-}}}"
    done | sort -u
}

case "${1:-}" in
    --list) [ $# = 2 ] || usage; list "${2%/}"; exit ;;
    --list-sessions) [ $# = 2 ] || usage; list "${2%/}" sessions; exit ;;
esac
[ $# -ge 3 ] || usage
tasks=$1 bids_dir=$2 output_dir=$3
shift 3

read -r subject session < <(sed -n "${SLURM_ARRAY_TASK_ID:?is set in tasks of a SLURM array}p" "$tasks") || {
    echo "$0: $tasks has no line $SLURM_ARRAY_TASK_ID" >&2
    exit 2
}
read -ra program <<< "${BIDS_SR:-bids_sr}"

# Each task has a work folder of its own, if possible on a disk of the node, and of the same name when it is requeued.
work_dir=${BIDS_SR_WORK:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}}/bids_sr_${SLURM_ARRAY_JOB_ID:-job}_$SLURM_ARRAY_TASK_ID
# SLURM's variables do not reach a container with --cleanenv, so what was granted is said here; options given go before.
limits=(--nprocs "${SLURM_CPUS_PER_TASK:-1}")
if [ "${SLURM_MEM_PER_NODE:-0}" -gt 0 ]; then
    limits+=(--mem "${SLURM_MEM_PER_NODE}M")
fi

# In place of this shell, so that the signal before the time limit reaches the program, which then ends in good order.
exec "${program[@]}" "$bids_dir" "$output_dir" participant --participant-label "$subject" \
    ${session:+--session-label "$session"} -w "$work_dir" --clean-workdir "${limits[@]}" "$@"
