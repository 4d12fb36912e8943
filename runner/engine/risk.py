"""Settings under which native code may end the process where it should refuse: they are tried in a process of its own.

Knows names only. The invariant: what is set by default is no risk, so that an ordinary worker is tried nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.engine import ModelOptions

# Limits of instruction sets and of precision that oneDNN reads: it has no kernel for each combination of them.
_VARIABLES = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    "TF_SET_ONEDNN_FPMATH_MODE",
)


def risks(model: ModelOptions, environment: Mapping[str, str]) -> list[str]:
    """What is set of these, as a user writes it; empty: nothing."""
    precision = model.mixed_precision
    return [
        *([f"`model: {{mixed_precision: {precision}}}`"] if precision else []),
        *(["`model: {op_libraries: ...}`"] if model.op_libraries else []),
        *(f"{name}={environment[name]} in the environment" for name in _VARIABLES if environment.get(name)),
    ]
