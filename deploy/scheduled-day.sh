#!/bin/sh
# The day (UTC) for which KubeRay scheduled this run of a RayCronJob, or one beside it: `scheduled-day yesterday`. KubeRay 1.7
# names each RayJob by the minute of its schedule, and the submission after it: 'nightly-29934330-x7k2p', which is 2026-11-30.
# A later try has the same number.
set -eu

id="${RAY_JOB_SUBMISSION_ID:-}"
minutes="$(expr "$id" : '.*-\([0-9]\{8,\}\)-[a-z0-9]*$')" || {
    echo "error: cannot tell the day: RAY_JOB_SUBMISSION_ID is '$id'; expected NAME-MINUTES-XXXXX of a RayCronJob (KubeRay 1.7)" >&2
    exit 2
}
date --utc --date="$(date --utc --date="@$((minutes * 60))" +%F) ${1:-}" +%F
