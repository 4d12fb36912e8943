"""The files of deploy/: each against the schema or the linter of whoever will read it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jobs.load import load_job

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CRDS = Path(os.environ.get("KUBERAY_CRDS") or ROOT.parent / "shared" / "kuberay-crds")
FILES = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}


def tool(name: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).parent / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def strict(schema: Any) -> Any:
    """The schema as `kubectl apply --validate=strict` reads it: a key that it does not know is a mistake."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", bool(made.get("x-kubernetes-preserve-unknown-fields")))
    return made


@pytest.fixture(scope="session")
def crds() -> dict[str, Any]:
    """Kind -> its schema."""
    if not CRDS.is_dir():
        pytest.skip(f"no KubeRay schemas in {CRDS}; name their folder in KUBERAY_CRDS")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for kind, name in FILES.items():
        crd = yaml.load((CRDS / name).read_text(), loader)
        (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        found[kind] = schema
    return found


@pytest.mark.parametrize("name", ["kuberay/rayjob.yaml", "kuberay/raycluster.yaml"])
def test_kuberay_takes_its_files(crds: dict[str, Any], name: str) -> None:
    ours = [document for document in documents(name) if document["apiVersion"] == "ray.io/v1"]
    assert ours
    for document in ours:
        jsonschema.Draft202012Validator(crds[document["kind"]]).validate(document)
        document["spec"]["raycluster" if document["kind"] == "RayJob" else "headgroup"] = {}
        with pytest.raises(jsonschema.ValidationError, match="unexpected"):
            jsonschema.Draft202012Validator(crds[document["kind"]]).validate(document)


def cluster_specs() -> Iterator[dict[str, Any]]:
    yield documents("kuberay/raycluster.yaml")[0]["spec"]
    yield documents("kuberay/rayjob.yaml")[1]["spec"]["rayClusterSpec"]


def test_both_kuberay_clusters_are_the_same_but_for_the_job_file() -> None:
    stays, alone = cluster_specs()
    head = alone["headGroupSpec"]["template"]["spec"]
    head["volumes"] = [volume for volume in head["volumes"] if volume["name"] != "job"]
    mounts = head["containers"][0]["volumeMounts"]
    head["containers"][0]["volumeMounts"] = [mount for mount in mounts if mount["name"] != "job"]
    assert stays == alone


def test_a_kuberay_cluster_spares_its_head_scales_and_drains() -> None:
    for spec in cluster_specs():
        assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
        assert spec["enableInTreeAutoscaling"]
        (group,) = spec["workerGroupSpecs"]
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "drain-node"
        assert int(seconds) < pod["terminationGracePeriodSeconds"]
        assert any(toleration["value"] == "spot" for toleration in pod["tolerations"] if "value" in toleration)
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/dev/shm", "/tmp"} <= mounts


def test_the_job_in_the_rayjob_is_one() -> None:
    config, job = documents("kuberay/rayjob.yaml")
    text = config["data"]["job.yaml"]
    asked = load_job(text, "job.yaml")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert asked.workers.max == group["maxReplicas"]
    requested = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert asked.workers.cpus < float(requested["cpu"]), "one is left for Ray itself"


def entrypoints() -> dict[str, str]:
    slurm = (DEPLOY / "slurm" / "runner.sbatch").read_text()
    (command,) = re.findall(r"exec (runner .*)'$", slurm, re.MULTILINE)
    return {
        "rayjob": documents("kuberay/rayjob.yaml")[1]["spec"]["entrypoint"],
        "slurm": command.replace('"$job"', "job.yaml"),
        "image": "runner --help",
    }


@pytest.mark.parametrize("name", ["rayjob", "slurm", "image"])
def test_entrypoints_are_commands_of_ours(name: str) -> None:
    program, *arguments = shlex.split(entrypoints()[name])
    assert program == "runner"
    command = [sys.executable, "-m", "runner", *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)
    assert done.returncode == 0, done.stderr
    assert all(flag in done.stdout for flag in arguments if flag.startswith("--"))


def test_the_cluster_launcher_takes_its_file() -> None:
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    (document,) = documents("cluster-launcher/aws.yaml")
    jsonschema.validate(document, schema)
    assert document["available_node_types"]["head"]["resources"] == {"CPU": 0}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"max_wrokers": 1}, schema)


def test_the_dockerfile_pleases_its_linter_and_copies_what_is_there() -> None:
    tool("hadolint", str(DEPLOY / "Dockerfile"))
    text = (DEPLOY / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split()), sources
    assert text.rindex("USER 1000") < text.index("AS cpu")
    assert "--compile" in text
    assert "--constraint constraints.txt" in text


def test_shell_scripts_please_their_linter() -> None:
    tool("shellcheck", str(DEPLOY / "drain-node.sh"), str(DEPLOY / "slurm" / "runner.sbatch"))


def test_policies_give_no_right_to_delete() -> None:
    s3 = json.loads((DEPLOY / "policies" / "s3.json").read_text())
    allowed = [statement["Action"] for statement in s3["Statement"] if statement["Effect"] == "Allow"]
    assert "Delete" not in str(allowed)
    azure = json.loads((DEPLOY / "policies" / "azure.json").read_text())
    assert "delete" not in str(azure["DataActions"] + azure["Actions"])
    (gcs,) = documents("policies/gcs.yaml")
    may_delete = [one for one in gcs["bindings"] if one["role"] == "roles/storage.objectUser"]
    assert len(may_delete) == 1
    assert "/_run/" in may_delete[0]["condition"]["expression"]


def test_the_readme_speaks_of_every_file() -> None:
    text = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert path.name.split(".")[0] in text, path
