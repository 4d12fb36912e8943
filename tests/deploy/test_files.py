"""The files of deploy/: each against the schema or the linter of whoever will read it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from hera.workflows.models import Workflow

from jobs.errors import DataError, JobError
from jobs.load import load_job

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CRDS = Path(os.environ.get("KUBERAY_CRDS") or ROOT.parent / "shared" / "kuberay-crds")
FILES = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}
KUSTOMIZED = ("rayjob", "raycluster", "raycronjob", "example")
KUBERNETES = "1.33"


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
    # A RayCronJob holds a RayJob's spec (KubeRay 1.7, raycronjob_types.go); the folder has no file of its own for it.
    text = {"type": "string"}
    spec = {"schedule": text, "timeZone": text, "suspend": {"type": "boolean"}}
    spec["jobTemplate"] = found["RayJob"]["properties"]["spec"]
    found["RayCronJob"] = strict(
        {"type": "object", "properties": {"spec": {"type": "object", "required": ["jobTemplate"], "properties": spec}}}
    )
    found["RayCronJob"]["properties"] |= {"apiVersion": text, "kind": text, "metadata": {"type": "object"}}
    return found


@pytest.mark.parametrize("name", ["RayJob", "RayCluster", "RayCronJob"])
def test_kuberay_takes_its_files(crds: dict[str, Any], name: str) -> None:
    (document,) = documents(f"kuberay/{name.lower()}/{name.lower()}.yaml")
    jsonschema.Draft202012Validator(crds[name]).validate(document)
    document["spec"]["headgroup" if name == "RayCluster" else "raycluster"] = {}
    with pytest.raises(jsonschema.ValidationError, match="unexpected"):
        jsonschema.Draft202012Validator(crds[name]).validate(document)


def cluster_specs() -> Iterator[dict[str, Any]]:
    yield documents("kuberay/raycluster/raycluster.yaml")[0]["spec"]
    for job in job_specs().values():
        yield job["rayClusterSpec"]


def job_specs() -> dict[str, dict[str, Any]]:
    (job,), (nightly,) = documents("kuberay/rayjob/rayjob.yaml"), documents("kuberay/raycronjob/raycronjob.yaml")
    return {"rayjob": job["spec"], "raycronjob": nightly["spec"]["jobTemplate"]}


def test_all_kuberay_clusters_are_the_same_but_for_the_job_file() -> None:
    stays, *others = cluster_specs()
    for alone in others:
        head = alone["headGroupSpec"]["template"]["spec"]
        head["volumes"] = [volume for volume in head["volumes"] if volume["name"] != "job"]
        mounts = head["containers"][0]["volumeMounts"]
        head["containers"][0]["volumeMounts"] = [mount for mount in mounts if mount["name"] != "job"]
        assert stays == alone


def pods() -> Iterator[dict[str, Any]]:
    for spec in cluster_specs():
        yield spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            yield group["template"]["spec"]
    for job in job_specs().values():
        yield job["submitterPodTemplate"]["spec"]


def test_every_pod_passes_pod_security_restricted() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, level "restricted"."""
    for pod in pods():
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
        kinds = {kind for volume in pod.get("volumes", ()) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim"}
    for spec in cluster_specs():
        beside = spec["autoscalerOptions"]["securityContext"]
        assert beside == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def kustomized(name: str) -> list[dict[str, Any]]:
    """As `kubectl apply --kustomize` would send them."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("no kubectl, whose kustomize reads these files")
    done = subprocess.run(
        [kubectl, "kustomize", str(DEPLOY / "kuberay" / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("name", KUSTOMIZED)
def test_kustomize_makes_what_kubernetes_takes(crds: dict[str, Any], name: str) -> None:
    made = kustomized(name)
    kinds = sorted(document["kind"] for document in made)
    assert {"ServiceAccount", "PersistentVolumeClaim", "NetworkPolicy", "PodMonitor", "PrometheusRule"} < set(kinds)
    for document in made:
        if document["apiVersion"] == "ray.io/v1":
            jsonschema.Draft202012Validator(crds[document["kind"]]).validate(document)
        elif "coreos" not in document["apiVersion"]:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    claim = next(document for document in made if document["kind"] == "PersistentVolumeClaim")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(claim | {"spce": {}}, KUBERNETES, strict=True)


def test_an_overlay_changes_each_name_on_both_sides() -> None:
    made = {document["kind"]: document for document in kustomized("example")}
    names = {kind: document["metadata"]["name"] for kind, document in made.items()}
    assert all(name.endswith("-churn") for name in names.values())
    spec = made["RayCronJob"]["spec"]["jobTemplate"]["rayClusterSpec"]
    (group,) = spec["workerGroupSpecs"]
    for pod in (spec["headGroupSpec"]["template"]["spec"], group["template"]["spec"]):
        assert pod["serviceAccountName"] == names["ServiceAccount"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == names["PersistentVolumeClaim"]
        if "job" in volumes:
            assert volumes["job"]["configMap"]["name"] == names["ConfigMap"]
        (container,) = pod["containers"]
        assert container["image"].startswith("registry.example.com/ml/")
    asked = load_job(made["ConfigMap"]["data"]["job.yaml"], "job.yaml", vars={"dt": "2026-11-01"})
    assert asked.workers.max == group["maxReplicas"]


def test_the_network_lets_in_the_operator_prometheus_and_its_own_pods() -> None:
    (policy,) = documents("kuberay/common/network.yaml")
    own = {"app.kubernetes.io/part-of": "scores"}
    assert policy["spec"]["ingress"][0]["from"] == [{"podSelector": {"matchLabels": own}}]
    for spec in cluster_specs():
        for template in (spec["headGroupSpec"]["template"], spec["workerGroupSpecs"][0]["template"]):
            assert own.items() <= template["metadata"]["labels"].items()
    for job in job_specs().values():
        assert job["submitterPodTemplate"]["metadata"]["labels"] == own
    ports = [port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", ())]
    assert ports == [8265, 8080]


OPERATOR = """
const [kind, document] = JSON.parse(require("fs").readFileSync(0, "utf8"));
import(`${process.argv[1]}/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/${kind}.js`).then((made) =>
  new made[kind](document).validate(),
);
"""


@pytest.mark.parametrize(("name", "kind"), [("podmonitor", "PodMonitor"), ("rules", "PrometheusRule")])
def test_the_prometheus_operator_takes_its_files(name: str, kind: str) -> None:
    modules = Path(sys.prefix) / "azurite" / "node_modules"
    if shutil.which("node") is None or not (modules / "@kubernetes-models").is_dir():
        pytest.skip("no schemas of Prometheus' operator: npm did not install @kubernetes-models/prometheus-operator")
    (document,) = documents(f"kuberay/common/{name}.yaml")

    def judged(document: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", "-e", OPERATOR, str(modules)],
            input=json.dumps([kind, document]),
            capture_output=True,
            text=True,
            check=False,
        )

    done = judged(document)
    assert done.returncode == 0, done.stderr
    assert judged(document | {"spec": {"selector": 1, "groups": 1}}).returncode != 0


def rules() -> list[dict[str, Any]]:
    (document,) = documents("kuberay/common/rules.yaml")
    (group,) = document["spec"]["groups"]
    return list(group["rules"])


def test_alerts_and_panels_are_promql() -> None:
    panels = json.loads((DEPLOY / "grafana" / "runner.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    expressions = [re.sub(r"\[\$__\w+\]", "[5m]", expression) for expression in expressions]
    for expression in (*expressions, *(rule["expr"] for rule in rules())):
        promql_parser.parse(expression)
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(rate(ray_runner_rows_total[5m])")


def test_alerts_are_raised_when_they_should_and_not_otherwise(tmp_path: Path) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool (Debian's package prometheus)")
    (document,) = documents("kuberay/common/rules.yaml")
    (tmp_path / "groups.yaml").write_text(yaml.safe_dump({"groups": document["spec"]["groups"]}))
    (tmp_path / "rules.yaml").write_text((Path(__file__).parent / "rules.yaml").read_text())
    for arguments in (["check", "rules", "groups.yaml"], ["test", "rules", "rules.yaml"]):
        done = subprocess.run([promtool, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_argo_takes_its_recipe() -> None:
    (document,) = documents("recipes/argo_workflow.yaml")
    made = Workflow.model_validate(document)
    (template,) = made.spec.templates
    assert template.retry_strategy.expression == "!(asInt(lastRetry.exitCode) in [2, 65])"
    with pytest.raises(ValueError, match="limit"):
        Workflow.model_validate(document | {"spec": {"templates": [{"retryStrategy": {"limit": {"a": 1}}}]}})


@pytest.mark.parametrize("name", ["airflow_dag.py", "dagster_asset.py", "prefect_flow.py"])
def test_recipes_never_repeat_what_no_retry_mends(name: str) -> None:
    """`make cases` runs them in the engines themselves."""
    text = (DEPLOY / "recipes" / name).read_text()
    compile(text, name, "exec")
    never = sorted({kind.exit_code for kind in (JobError, DataError)})
    assert f"in ({', '.join(map(str, never))})" in text
    (command,) = re.findall(r'\["runner", "run", .*?\]', text)
    assert '"--wait-for-driver", "6m"' in command


def test_a_scheduled_day_is_that_of_the_schedule_whatever_the_try() -> None:
    def day(submission: str, *arguments: str) -> tuple[int, str]:
        command = [str(DEPLOY / "scheduled-day.sh"), *arguments]
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "RAY_JOB_SUBMISSION_ID": submission},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.strip() or done.stderr.strip()

    minutes = int(datetime(2026, 11, 30, 1, 30, tzinfo=UTC).timestamp()) // 60
    assert day(f"nightly-{minutes}-x7k2p") == (0, "2026-11-30")
    assert day(f"nightly-churn-{minutes}-9zzzz", "yesterday") == (0, "2026-11-29")
    code, told = day("nightly-x7k2p")
    assert code == 2
    assert "'nightly-x7k2p'" in told


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


@pytest.mark.parametrize("name", ["rayjob", "raycronjob"])
def test_the_job_of_a_rayjob_is_one(name: str) -> None:
    text = (DEPLOY / "kuberay" / name / "job.yaml").read_text()
    asked = load_job(text, "job.yaml", vars={"dt": "2026-11-01"} if "${dt}" in text else {})
    (group,) = job_specs()[name]["rayClusterSpec"]["workerGroupSpecs"]
    assert asked.workers.max == group["maxReplicas"]
    requested = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert asked.workers.cpus < float(requested["cpu"]), "one is left for Ray itself"


def entrypoints() -> dict[str, str]:
    slurm = (DEPLOY / "slurm" / "runner.sbatch").read_text()
    (command,) = re.findall(r"exec (runner .*)'$", slurm, re.MULTILINE)
    return {
        **{name: spec["entrypoint"].replace("$(scheduled-day yesterday)", "D") for name, spec in job_specs().items()},
        "argo": " ".join(
            ["runner", *documents("recipes/argo_workflow.yaml")[0]["spec"]["templates"][0]["container"]["args"]]
        ),
        "slurm": command.replace('"$job"', "job.yaml"),
        "image": "runner --help",
    }


@pytest.mark.parametrize("name", ["rayjob", "raycronjob", "slurm", "argo", "image"])
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
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", text, re.MULTILINE)
        for source in line.split()
    }
    everything, *lines = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert everything == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


def test_shell_scripts_please_their_linter() -> None:
    tool("shellcheck", *map(str, (*DEPLOY.glob("*.sh"), DEPLOY / "slurm" / "runner.sbatch")))


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
        if path.is_file() and path.name not in ("README.md", "kustomization.yaml", "job.yaml"):
            assert path.name.split(".")[0] in text, path
