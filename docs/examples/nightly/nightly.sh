#!/bin/sh
# Every night, from cron:  30 3 * * *  /etc/snapferry/nightly.sh
# Prints only errors, which cron mails. The keys of the bucket are in ~/.aws/credentials.
set -eu
SNAPFERRY_CONFIG=$(dirname "$0")/snapferry.toml
export SNAPFERRY_CONFIG

# A snapshot of the directory, with a name that tells the day.
snapferry push -q --tag "night-$(date +%F)" "${PHOTOS:-/srv/photos}" photos >/dev/null
# What the bucket does not have yet.
snapferry run -q nightly
# A thirtieth of the bucket is read again.
snapferry run -q bucket
