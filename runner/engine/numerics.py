"""What of this process changes numbers: TensorFlow's version and switches, the CPU, the GPU, the environment.

Reads, and sets nothing. The invariant: what cannot be found out is left out, and no job fails for it.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.numerics import Numerics
from runner.engine import EngineOptions, pool_threads
from runner.engine.capi import answer_of, version

# Variables by which TensorFlow, XLA, oneDNN and CUDA's libraries choose other kernels or another precision.
_VARIABLES = (
    *("TF_ENABLE_ONEDNN_OPTS", "TF_DISABLE_MKL", "TF_SET_ONEDNN_FPMATH_MODE", "TF_XLA_FLAGS", "XLA_FLAGS"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("NVIDIA_TF32_OVERRIDE", "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_CUDNN_USE_AUTOTUNE"),
)
# Of the instruction sets those by which kernels are chosen, as Linux names them.
_ISA = (
    *("avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_fp16", "asimd", "sve", "sve2", "bf16", "i8mm"),
)
# Functions of TensorFlow's that are no part of its C API: tensorflow::IsMklEnabled() and
# tsl::tensor_float_32_execution_enabled(), by the names that the linker knows.
_ONEDNN, _TF32 = "_ZN10tensorflow12IsMklEnabledEv", "_ZN3tsl33tensor_float_32_execution_enabledEv"


def numerics(options: EngineOptions, devices: Sequence[str]) -> Numerics:
    """What changes the numbers of an engine. devices: its own."""
    gpu = any("GPU" in device for device in devices)
    cpu, isa = processor(_first_processor(), platform.machine())
    rounded = answer_of(_TF32) if gpu else None
    return Numerics(
        tensorflow=version(),
        onednn=answer_of(_ONEDNN),
        xla=options.model.xla,
        mixed_precision=options.model.mixed_precision or "",
        tf32=rounded and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0",
        threads=pool_threads(options.threads),
        cpu=cpu,
        isa=isa,
        gpu=_gpu() if gpu else "",
        environment=variables(os.environ),
    )


def variables(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Those that change numbers, as far as they are set, by name."""
    return tuple(sorted((name, environment[name]) for name in _VARIABLES if environment.get(name)))


def processor(facts: Mapping[str, str], machine: str) -> tuple[str, str]:
    """The kind of a CPU, and its instruction sets.

    facts: of one processor, as Linux tells them: x86 has a 'model name' and 'flags', ARM numbers and 'Features'.
    """
    part = " ".join(facts[name] for name in ("CPU implementer", "CPU part") if name in facts)
    sets = {*facts.get("flags", "").split(), *facts.get("Features", "").split()}
    return facts.get("model name") or f"{machine} {part}".strip(), " ".join(name for name in _ISA if name in sets)


def _first_processor() -> dict[str, str]:
    facts: dict[str, str] = {}
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
        for line in file:
            name, colon, value = line.partition(":")
            if not colon:  # an empty line: the next one follows
                break
            facts[name.strip()] = value.strip()
    return facts


def _gpu() -> str:
    """The kind of the first GPU that this process sees."""
    name, device = ctypes.create_string_buffer(100), ctypes.c_int()
    with suppress(OSError, AttributeError):
        cuda = ctypes.CDLL("libcuda.so.1")
        failed = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(name, 100, device)
        return "" if failed else name.value.decode("utf-8", "replace")
    return ""
