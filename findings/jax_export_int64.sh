#!/usr/bin/env bash
# A function exported by jax.export for int32 ids takes int64 ids, and takes them modulo 2**32: id 2**40 + 5 gets the embedding of id 5. A float
# is refused with a clear sentence.
#
# jax 0.10.2, numpy 2.4.6. Guess: refused like the float, "expected int32 and called with int64"; the export fixes its types.
# Documentation: `Exported` says nothing of other types than `in_avals`; "Sharp bits" says that 64-bit values become 32-bit by default.
# Why it matters: ids of a store are int64. Rows beyond the vocabulary, which an embedding should refuse or send to its last row, get another
# user's score.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import sys, warnings, jax, jax.numpy as jnp, numpy as np
from jax import export

embedding = jnp.arange(8, dtype=jnp.float32) / 10
(batch,) = export.symbolic_shape("b")
exported = export.export(jax.jit(lambda ids: embedding[ids]))(jax.ShapeDtypeStruct((batch,), jnp.int32))

def call(ids):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            seen = [round(float(value), 3) for value in exported.call(ids)]
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
    print(f"{ids.dtype} {ids.tolist()}: {seen}, warnings {len(said)}")
    return seen

print("exported for", exported.in_avals)
call(np.array([5, 7], "int32"))
big = call(np.array([2**40 + 5, 2**32 + 7], "int64"))
call(np.array([5.5, 7.0], "float32"))
if big != [0.5, 0.7]:
    sys.exit("an exported function no longer takes int64 ids modulo 2**32")
EOF
