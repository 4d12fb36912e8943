"""What only a real GPU shows. Skipped, with the reason printed, where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runner
from jobs.job import Job
from runner import engine
from runner.model.saved_model import read_model
from runner.model.signature import choose_metagraph, choose_signature

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA GPU on this machine: /dev/nvidiactl"),
]


def answers(model: Path, gpu: bool) -> tuple[tuple[str, ...], np.ndarray]:
    spec = read_model(str(model))
    metagraph = choose_metagraph(spec, None)
    signature = choose_signature(metagraph, "serving_default", spec.url)
    loaded = engine.load("session", spec.path, metagraph.tags, signature, engine.EngineOptions(threads=1, gpu=gpu))
    x = np.arange(1000, dtype=np.float32)
    result = loaded.run({"x": x}, ["y"])["y"]
    devices = loaded.devices
    loaded.close()
    return devices, np.asarray(result)


def test_a_session_with_a_gpu_uses_it_and_gives_the_same_numbers(half_plus_two: Path) -> None:
    without, expected = answers(half_plus_two, gpu=False)
    devices, found = answers(half_plus_two, gpu=True)
    assert not any("GPU" in device for device in without)
    assert any("GPU" in device for device in devices)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_job_runs_on_a_worker_with_the_gpu(
    tmp_path: Path,
    half_plus_two: Path,
    write_numbers: Callable[..., Path],
    require_half_plus_two: Callable[[Path, int], None],
) -> None:
    job = Job.model_validate(
        {
            "model": {"url": str(half_plus_two)},
            "input": {"url": str(write_numbers(tmp_path / "in"))},
            "columns": {"keep": ["id"]},
            "output": {"url": str(tmp_path / "out")},
            "workers": {"gpus": 1},
        }
    )
    runner.run(job, progress=False)
    require_half_plus_two(tmp_path / "out", 2000)
    (manifest,) = (tmp_path / "out").glob("_run/*/manifest-*.json")
    (numerics,) = json.loads(manifest.read_text())["numerics"]
    assert "NVIDIA" in numerics["gpu"]
    assert numerics["tf32"] in (True, False)
