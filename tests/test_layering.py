"""Who may import whom: the rules of docs/design.md, held by reading the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What of ours each part may import, by prefix; the most specific entry holds. Parts not named here may import
# anything but OUTER. "public" stands for the names that streamvlm/__init__.py exports.
ALLOWED = {
    "streamvlm.types": (),
    "streamvlm.errors": (),
    "streamvlm.version": (),
    "streamvlm.settings": (),
    "streamvlm.config": ("streamvlm.settings",),
    "streamvlm.memory": ("streamvlm.types", "streamvlm.errors", "streamvlm.memory"),
    "streamvlm.retrieval": ("streamvlm.types", "streamvlm.errors", "streamvlm.memory", "streamvlm.retrieval"),
    "streamvlm.demo": ("public", "streamvlm.demo", "streamvlm.world"),
    "streamvlm.benchmarks": (
        "public",
        "streamvlm.benchmarks",
        "streamvlm.world",
        "streamvlm.config",
        "streamvlm.prompts",
        "streamvlm.demo",
    ),
    "streamvlm.cli": (
        "public",
        "streamvlm.cli",
        "streamvlm.config",
        "streamvlm.errors",
        "streamvlm.version",
        "streamvlm.world",
        "streamvlm.train",
        "streamvlm.benchmarks",
        "streamvlm.demo",
    ),
}
OUTER = ("streamvlm.cli", "streamvlm.demo", "streamvlm.benchmarks")
MAY_PRINT = ("streamvlm.demo", "streamvlm.benchmarks")
TRANSFORMERS = ("streamvlm.models", "streamvlm.train", "streamvlm.benchmarks.core.whisper")
TERMINAL = ("rich", "typer")
# How the classes of a family begin, to know them in `from transformers import ...`.
FAMILIES = {"Qwen3VL": "qwen3_vl", "Qwen2_5_VL": "qwen2_5_vl", "LlavaOnevision": "llava_onevision"}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `from module import name`, or `import module` with name ''."""

    module: str
    name: str
    level: int
    line: int

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def under(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def imports(tree: ast.AST) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", 0, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(node.module or "", alias.name, node.level, node.lineno)


def exported(source: str) -> set[str]:
    """The names in `__all__`."""
    for node in ast.walk(ast.parse(source)):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            return set(ast.literal_eval(node.value))
    return set()


def family(found: Import) -> str | None:
    """The model family whose transformers code this import reaches, if any."""
    parts = found.path.split(".")
    if parts[:2] == ["transformers", "models"] and len(parts) > 2 and parts[2] != "auto":
        return parts[2]
    return next((name for start, name in FAMILIES.items() if parts[-1].startswith(start)), None)


def own_import(module: str, found: Import, modules: Mapping[str, str], public: set[str]) -> str | None:
    """What is wrong with `module` importing this part of ours."""
    target = found.path if found.path in modules else found.module
    rule = max((part for part in ALLOWED if under(module, part)), key=len, default=None)
    if rule is None:
        return f"imports {target}" if under(target, *OUTER) else None
    if "public" in ALLOWED[rule] and target == "streamvlm":
        hidden = found.name and found.name not in public
        return f"imports streamvlm.{found.name}, which streamvlm does not export" if hidden else None
    return None if under(target, *ALLOWED[rule]) else f"imports {target}"


def foreign_import(module: str, found: Import) -> str | None:
    """What is wrong with `module` importing somebody else's package."""
    if under(found.module, "transformers") and not under(module, *TRANSFORMERS):
        return f"imports {found.module}"
    if under(found.module, *TERMINAL) and not under(module, *OUTER):
        return f"imports {found.module}"
    return None


def violations(modules: Mapping[str, str]) -> list[str]:
    """Every breach in module name -> source, as 'module:line: what'."""
    public = exported(modules.get("streamvlm", ""))
    bad: list[str] = []
    homes: dict[str, set[str]] = {}
    for module, source in modules.items():
        tree = ast.parse(source)
        for found in imports(tree):
            if found.level:
                wrong: str | None = "relative import"
            elif under(found.module, "streamvlm"):
                wrong = own_import(module, found, modules, public)
            else:
                wrong = foreign_import(module, found)
            if wrong:
                bad.append(f"{module}:{found.line}: {wrong}")
            name = family(found) if under(found.module, "transformers") else None
            if name and under(module, "streamvlm.models"):
                homes.setdefault(name, set()).add(module)
        bad += [f"{module}:{line}: print" for line in prints(tree) if not under(module, *MAY_PRINT)]
    bad += [f"{name} is imported by {sorted(where)}" for name, where in homes.items() if len(where) > 1]
    return bad


def prints(tree: ast.AST) -> list[int]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def project() -> dict[str, str]:
    """Module name -> source of everything installed as streamvlm."""
    modules = {}
    folders = [ROOT / "streamvlm", *(ROOT / name for name in ("memory", "retrieval", "demo", "benchmarks"))]
    for folder in folders:
        for path in folder.rglob("*.py"):
            relative = path.relative_to(ROOT).with_suffix("")
            parts = relative.parts if relative.parts[0] == "streamvlm" else ("streamvlm", *relative.parts)
            modules[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return modules


def test_the_project_keeps_its_layers() -> None:
    modules = project()
    assert {"streamvlm", "streamvlm.types", "streamvlm.memory", "streamvlm.benchmarks.harness"} <= set(modules)
    assert violations(modules) == []


@pytest.mark.parametrize(
    ("module", "source", "breach"),
    [
        ("streamvlm.types", "from streamvlm.errors import SourceError", "imports streamvlm.errors"),
        ("streamvlm.memory.slots", "from streamvlm.config import WatchConfig", "imports streamvlm.config"),
        ("streamvlm.memory.slots", "from streamvlm import config", "imports streamvlm.config"),
        ("streamvlm.memory.slots", "def f():\n    import streamvlm.engine", "imports streamvlm.engine"),
        ("streamvlm.memory.store", "from streamvlm.retrieval import index", "imports streamvlm.retrieval"),
        ("streamvlm.engine.step", "from streamvlm.cli import main", "imports streamvlm.cli"),
        ("streamvlm.demo.app", "from streamvlm.engine import step", "imports streamvlm.engine"),
        (
            "streamvlm.demo.app",
            "from streamvlm import Secret",
            "streamvlm.Secret, which streamvlm does not export",
        ),
        ("streamvlm.cli.app", "from streamvlm import engine", "imports streamvlm.engine"),
        ("streamvlm.benchmarks.x", "from streamvlm.train import fit", "imports streamvlm.train"),
        ("streamvlm.memory.slots", "from transformers import Cache", "imports transformers"),
        ("streamvlm.engine.step", "import transformers.cache_utils", "imports transformers.cache_utils"),
        ("streamvlm.engine.step", "from rich.live import Live", "imports rich.live"),
        ("streamvlm.source.live", "import typer", "imports typer"),
        ("streamvlm.source.live", "from .clock import now", "relative import"),
        ("streamvlm.source.live", "def f():\n    print('x')", "streamvlm.source.live:2: print"),
        ("streamvlm.cli.app", "print('x')", "print"),
        (
            "streamvlm.models.base",
            "from transformers import Qwen3VLConfig",
            "qwen3_vl is imported by ['streamvlm.models.base', 'streamvlm.models.qwen3_vl']",
        ),
    ],
)
def test_a_breach_is_seen(module: str, source: str, breach: str) -> None:
    small = {
        "streamvlm": '__all__ = ["Agent"]',
        "streamvlm.config": "",
        "streamvlm.engine": "",
        "streamvlm.retrieval": "",
        "streamvlm.models.qwen3_vl": "from transformers.models.qwen3_vl import Qwen3VLModel",
        "streamvlm.demo": "from streamvlm import Agent\nprint(Agent)",
        "streamvlm.cli": "import typer\nfrom streamvlm import Agent\nfrom streamvlm.config import resolve",
        "streamvlm.train.fit": "from transformers import Qwen3VLConfig",
    }
    assert violations(small) == []
    found = violations(small | {module: source})
    assert len(found) == 1
    assert breach in found[0]
