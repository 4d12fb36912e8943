#!/usr/bin/env bash
# A jitted JAX call on a CPU reads its NumPy argument after it has returned. A loop that reads batch after batch into one buffer scores
# later batches in the name of earlier ones. The device is the same memory if the buffer is aligned to 64 bytes; if it is not, JAX copies it, but
# may do so late: both come out wrong, and the second by timing.
#
# jax 0.10.2, numpy 2.4.6. Guess: dispatch is asynchronous, but the argument is copied, or held, before the call returns.
# Documentation: found nothing on arguments of a jitted call. jax issue 37830 (open) has the aliasing of device_put.
# Why it matters: readers reuse their buffers (readinto, np.copyto, an Arrow or mmap pool) to be fast. The scores are numbers of real rows, only
# not of these; a small model that is done at once, or a test that waits for each result, is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import mmap, sys, jax, jax.numpy as jnp, numpy as np

ROWS, BATCHES = 1_000_000, 4

@jax.jit
def score(x):
    slow = jax.lax.fori_loop(0, 20, lambda _, y: jnp.sin(y) + 1, jnp.ones(ROWS))
    return jnp.mean(x + 0 * slow)

def run(buffer, give=lambda buffer: buffer):
    score(buffer).block_until_ready()
    results = []
    for batch in range(1, BATCHES + 1):
        buffer[:] = batch
        results.append(score(give(buffer)))
    return [round(float(result), 3) for result in results]

aligned = np.frombuffer(mmap.mmap(-1, 4 * ROWS), "float32")
whole = np.frombuffer(mmap.mmap(-1, 4 * ROWS + 64), "uint8")
shifted = whole[16 : 16 + 4 * ROWS].view("float32")
wanted = [float(batch) for batch in range(1, BATCHES + 1)]
seen = {"aligned": run(aligned), "shifted by 16 bytes": run(shifted), "copied by the caller": run(aligned, np.array)}
print("wanted              ", wanted)
for name, values in seen.items():
    print(f"{name:20}", values)
if seen["aligned"] == wanted:
    sys.exit("JAX no longer reads an aligned NumPy argument after the call has returned")
EOF
