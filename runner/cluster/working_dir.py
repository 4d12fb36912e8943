"""What of a working directory goes to a cluster: ignore files decide, and a list of Ray's own.

Owns the question to Ray's packaging, which has no public way to be asked, and what speaks against sending; refuses to
know jobs. The invariant: what is listed here is what Ray packs.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.errors import JobError

_ALL = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"  # '1': .gitignore is not looked at
_MOST_NAMED = 5
# By name alone, as tools for secrets call their files.
_SECRETS = (
    *(".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "id_rsa", "id_dsa", "id_ecdsa"),
    *("id_ed25519", ".netrc", "_netrc", ".pgpass", ".npmrc", ".pypirc", ".htpasswd", "credentials", "credentials.*"),
    *("*credentials*.json", "service[-_]account*.json", "secrets.*", "kubeconfig", "auth_token", "*.tfstate"),
)
_SECRET_FOLDERS = (".aws", ".ssh", ".gnupg", ".kube", ".azure")
_SAMPLES = ("*.example", "*.sample", "*.template", "*.dist")


@dataclass(frozen=True)
class Package:
    """What goes along of `folder`.

    files:      name relative to the folder -> bytes.
    stays:      what does not, without what is below it.
    most_bytes: that Ray takes.
    """

    folder: Path
    files: dict[str, int]
    stays: tuple[str, ...]
    most_bytes: int

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def entries(self) -> list[tuple[str, int]]:
        """What lies in the folder itself, with its bytes, largest first."""
        sizes = Counter[str]()
        for name, size in self.files.items():
            first, below, _ = name.partition("/")
            sizes[first + below] += size
        return sizes.most_common()

    @property
    def secrets(self) -> list[str]:
        """What looks like a secret, as far as a name can tell."""
        return [name for name in self.files if _secret(PurePosixPath(name))]

    def require(self, what: str, names: Iterable[str]) -> None:
        """raises: JobError where one of `names`, which is `what` to people, stays, with the line that keeps it."""
        missing = [name for name in names if name not in self.files]
        if missing:
            rule, cure = _rule(self.folder, missing[0])
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise JobError(
                f"cannot send '{self.folder}' along: {what} '{missing[0]}'{more} would stay at home, by {rule}; {cure}"
            )

    def bound(self) -> None:
        """raises: JobError where Ray would not take so much."""
        if self.bytes < self.most_bytes:
            return
        largest = sorted(self.files.items(), key=lambda pair: -pair[1])[:_MOST_NAMED]
        named = ", ".join(f"'{name}' ({size / 2**20:,.0f} MiB)" for name, size in largest)
        raise JobError(
            f"cannot send '{self.folder}' along: its {len(self.files):,} files have {self.bytes / 2**20:,.0f} MiB, and"
            f" Ray takes less than {self.most_bytes / 2**20:,.0f} MiB; the largest are {named}; keep at home what is"
            " not needed, with a line in .rayignore, or put the model on a store"
        )


def packed(folder: Path) -> Package | None:
    """What Ray would pack of `folder`; None where this Ray does it in a way that is not known.

    raises: JobError where a file cannot be looked at.
    cost:   a look at every file and at every ignore file.
    """
    try:
        from ray._private.ray_constants import get_runtime_env_default_excludes
        from ray._private.runtime_env import packaging

        files, folders = dict[str, int](), list[Path]()

        def handle(path: Path) -> None:
            if path.is_dir():
                folders.append(path)
            elif path.is_file():
                files[path.relative_to(folder).as_posix()] = path.stat().st_size

        excludes = [packaging._get_excludes(folder, get_runtime_env_default_excludes())]
        quiet = logging.getLogger(f"{__name__}.silent")
        quiet.disabled = True
        packaging._dir_travel(folder, excludes, handle, include_gitignore=_gitignore_counts(), logger=quiet)
        most = int(packaging.GCS_STORAGE_MAX_SIZE)
    except (ImportError, AttributeError, TypeError):
        return None
    except OSError as error:
        raise JobError(f"cannot send '{folder}' along: {error.strerror} ('{error.filename}')") from error
    kept = {*folders, *(folder / name for name in files)}
    stays = (path for parent in folders for path in parent.iterdir() if path not in kept)
    return Package(folder, files, tuple(sorted(path.relative_to(folder).as_posix() for path in stays)), most)


def _gitignore_counts() -> bool:
    return os.environ.get(_ALL, "0") != "1"


def _rule(folder: Path, name: str) -> tuple[str, str]:
    """What keeps `name` at home, and what is to be done about it."""
    parts = PurePosixPath(name).parts
    for depth in range(len(parts)):
        for ignore in (".gitignore", ".rayignore") if _gitignore_counts() else (".rayignore",):
            file = folder.joinpath(*parts[:depth], ignore)
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
            for end in range(depth + 1, len(parts) + 1):
                if (number := _line(lines, "/".join(parts[depth:end]))) is not None:
                    where = f"{file.relative_to(folder).as_posix()} line {number} ({lines[number - 1].strip()!r})"
                    all_of_git = f", or set {_ALL}=1, which looks at no .gitignore" if ignore == ".gitignore" else ""
                    return where, f"change that line{all_of_git}"
    if not folder.joinpath(name).exists():
        return "its absence", "put it there"
    return "Ray's own list", "name what else is to stay in RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"


def _line(lines: list[str], name: str) -> int | None:
    """The number of the last line that leaves `name` out, if these lines do."""
    from ray._private.runtime_env.packaging import PathSpec

    def match(some: list[str]) -> Any:
        return PathSpec.from_lines("gitwildmatch", some).match_file(name)

    if not match(lines):
        return None
    return max((n for n, line in enumerate(lines, 1) if not line.startswith("!") and match([line])), default=None)


def _secret(name: PurePosixPath) -> bool:
    file = name.name.lower()
    if any(fnmatch(file, sample) for sample in _SAMPLES):
        return False
    return any(fnmatch(file, kind) for kind in _SECRETS) or any(part in _SECRET_FOLDERS for part in name.parts[:-1])
