from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("memory", "retrieval", "demo", "benchmarks")
SKIPPED = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "tests", "docs")


def declared() -> set[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return set(tomllib.load(file)["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("name", LINKED)
def test_top_level_folder_is_linked_into_the_package(name: str) -> None:
    link = ROOT / "streamvlm" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"


def test_declared_packages_are_the_folders_with_python_in_them() -> None:
    folders = [ROOT / "streamvlm", *(ROOT / "streamvlm" / name for name in LINKED)]
    sources = {path for folder in folders for path in folder.rglob("*.py")}
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in sources}
    assert found == declared()
    assert [name for name in found if not (ROOT / Path(*name.split(".")) / "__init__.py").is_file()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names inside a wheel built from a copy, since a build leaves files behind in its tree."""
    copy = tmp_path_factory.mktemp("tree") / "streamvlm"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=SKIPPED)
    out = copy.parent / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(out), str(copy)], check=True, stdin=subprocess.DEVNULL)
    (built,) = out.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_wheel_holds_only_streamvlm(wheel: set[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"streamvlm"}


def test_wheel_holds_every_module_once(wheel: set[str]) -> None:
    folders = [ROOT / "streamvlm", *(ROOT / "streamvlm" / name for name in LINKED)]
    sources = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*.py")}
    assert {name for name in wheel if name.endswith(".py")} == sources


def test_wheel_holds_types_weights_and_sample(wheel: set[str]) -> None:
    data = [ROOT / "streamvlm" / "py.typed", *(ROOT / "streamvlm" / "models" / "tiny").glob("*")]
    data += [path for path in (ROOT / "streamvlm" / "demo").iterdir() if path.suffix in {".mp4", ".json"}]
    missing = [str(path.relative_to(ROOT)) for path in data if str(path.relative_to(ROOT)) not in wheel]
    assert missing == []


def test_wheel_holds_the_licence(wheel: set[str]) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
