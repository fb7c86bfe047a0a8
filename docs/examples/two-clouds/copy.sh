#!/bin/sh
# Copy everything from one cloud to the other. Runs anywhere that reaches Redis; needs no keys.
set -eu
set -a
# shellcheck source=/dev/null
. "$(dirname "$0")/fleet.env"
unset AWS_SHARED_CREDENTIALS_FILE

snapferry doctor --from live --to backup
snapferry sync --from live --to backup --all --limit-rate 50M
