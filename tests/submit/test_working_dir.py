"""What of a folder goes along with a job: compared with what Ray packs, and refused where that is not enough."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env import packaging

from jobs.errors import JobError
from runner.cluster.working_dir import Package, packed

MODEL = ("model/saved_model.pb", "model/variables/variables.index")
FILES = (*MODEL, "job.yaml", ".env", "sub/a.txt", "sub/b.log", ".git/config", "venv/x", "sub/__pycache__/a.pyc")
Folder = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """folder({name: text}): a working directory with FILES of 10 bytes, and these."""
    monkeypatch.delenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", raising=False)

    def make(more: Mapping[str, str]) -> Path:
        for name, text in (dict.fromkeys(FILES, "0123456789") | dict(more)).items():
            path = tmp_path / "work" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "work"

    return make


def looked_at(folder: Path) -> Package:
    package = packed(folder)
    assert package is not None, "this Ray packs folders in another way"
    return package


IGNORED: list[Mapping[str, str]] = [
    {},
    {".gitignore": "*.pb\nmodel/variables/\n", ".rayignore": "a.txt\n"},
    {".gitignore": "*.log\n!b.log\nsub/\n", "sub/.gitignore": "*.txt\n"},
    {".rayignore": "# a note\n\n/model\n"},
]


@pytest.mark.parametrize("ignored", IGNORED, ids=["nothing", "two-files", "nested-and-negated", "a-folder"])
@pytest.mark.parametrize("gitignore", [True, False])
def test_what_is_listed_is_what_ray_packs(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: Mapping[str, str], gitignore: bool
) -> None:
    work = folder(ignored)
    if not gitignore:
        monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    package = looked_at(work)
    zipped = tmp_path / "package.zip"
    packaging.create_package(
        str(work),
        zipped,
        include_gitignore=gitignore,
        excludes=get_runtime_env_default_excludes(),
        logger=logging.getLogger("silent"),
    )
    with zipfile.ZipFile(zipped) as archive:
        assert package.files == {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}


@pytest.mark.parametrize(
    ("ignored", "rule"),
    [
        (
            {".gitignore": "*.h5\n*.pb\n"},
            r"\.gitignore line 2 \('\*\.pb'\); change that line, or set RAY_RUNTIME_ENV_IGN",
        ),
        ({"model/.gitignore": "saved_*\n"}, r"model/\.gitignore line 1 \('saved_\*'\)"),
        ({".rayignore": "!model\nmodel/\n"}, r"\.rayignore line 2 \('model/'\); change that line$"),
    ],
    ids=["git", "nested", "ray"],
)
def test_a_model_that_stays_at_home_is_refused_with_the_line_that_keeps_it(
    folder: Folder, ignored: Mapping[str, str], rule: str
) -> None:
    package = looked_at(folder(ignored))
    with pytest.raises(JobError, match=f"model file 'model/saved_model.pb'.* would stay at home, by {rule}"):
        package.require("model file", MODEL)


def test_more_than_one_file_that_stays_is_counted(folder: Folder) -> None:
    with pytest.raises(JobError, match=r"'model/saved_model\.pb' and 1 more would stay at home, by \.gitignore line 1"):
        looked_at(folder({".gitignore": "model"})).require("model file", MODEL)


def test_rays_own_list_is_named(folder: Folder) -> None:
    with pytest.raises(
        JobError, match=r"by Ray's own list; name what else .* in RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCL"
    ):
        looked_at(folder({})).require("job file", ["venv/x"])


def test_what_goes_along_is_enough(folder: Folder) -> None:
    package = looked_at(folder({}))
    package.require("model file", MODEL)
    package.require("job file", ["job.yaml"])
    package.bound()
    assert package.bytes == 60
    assert package.entries[:2] == [("model/", 20), ("sub/", 20)]
    assert {".git", "venv", "sub/__pycache__"} == set(package.stays)


def test_more_than_ray_takes_is_refused_with_the_largest(tmp_path: Path) -> None:
    files = {"model/variables/data": 700 * 2**20, "a.csv": 2**20, "job.yaml": 300}
    with pytest.raises(JobError, match=r"its 3 files have 701 MiB, and Ray takes less than 500 MiB; the largest are "):
        Package(tmp_path, files, (), most_bytes=500 * 2**20).bound()


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *(
            (name, True)
            for name in (".env", "conf/.env.prod", "tls/a.pem", "id_rsa", "gcp-credentials-1.json", ".netrc")
        ),
        *((name, True) for name in (".aws/config", "api.key", "credentials", "service_account.json", "Secrets.yaml")),
        *((name, False) for name in (".env.example", "id_rsa.pub", "model/keys.txt", "tokenizer.json", "environment")),
    ],
)
def test_what_looks_like_a_secret_is_told_by_its_name(tmp_path: Path, name: str, secret: bool) -> None:
    assert Package(tmp_path, {name: 1}, (), 10).secrets == [name] * secret
