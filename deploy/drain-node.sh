#!/bin/sh
# Tell Ray that this node goes away in $1 seconds (60 if omitted), and wait until the runner's workers are gone from it.
# Called before a pod or a spot instance ends: attempts that can end in time do so, all others go elsewhere at once,
# and neither uses up a try.
set -eu

seconds="${1:-60}"
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'this node is taken away' \
    --deadline-remaining-seconds "$seconds" || exit 0 # Ray is gone already: nothing to wait for

end=$(($(date +%s) + seconds))
while [ "$(date +%s)" -lt "$end" ] && grep -lsaE '^ray::(Worker|_)Actor' /proc/[0-9]*/cmdline >/dev/null; do
    sleep 1
done
