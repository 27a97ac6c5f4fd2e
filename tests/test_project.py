"""The project around the code: packaging, import order, and documents that must be current."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt2

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings tomli along
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "gpt2"
TOP = ("gpt2", "__main__", "commands", "api")  # the rooms that show something, and gpt2 itself
MODULES = sorted(PACKAGE.rglob("*.py"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line.split("#")[0].strip() for line in lines} - {""}


# --- packaging ---


def test_requirements_txt_equals_the_dependencies_in_pyproject() -> None:
    assert requirements("requirements.txt") == set(project()["project"]["dependencies"])


def test_requirements_extras_txt_equals_the_extras_in_pyproject() -> None:
    extras = project()["project"]["optional-dependencies"]
    assert requirements("requirements-extras.txt") == {
        one for every in extras.values() for one in every
    }


def test_the_tests_have_the_packages_of_the_page() -> None:
    web = set(project()["project"]["optional-dependencies"]["web"])
    assert web <= requirements("requirements-dev.txt")


def test_the_version_is_a_plain_string_and_the_newest_in_the_changelog() -> None:
    assert project()["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "gpt2.version.__version__"
    }
    assert f'__version__ = "{gpt2.__version__}"' in (PACKAGE / "version.py").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)[0] == gpt2.__version__


def test_the_entry_point_exists_and_only_gpt2_is_installed() -> None:
    module, function = project()["project"]["scripts"]["gpt2"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    settings = project()["tool"]["setuptools"]
    assert settings["packages"]["find"]["include"] == ["gpt2", "gpt2.*"]
    assert settings["py-modules"] == []


def test_every_package_folder_has_an_init_file() -> None:
    folders = {path.parent for path in MODULES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


# --- import order ---


def room_of(module: str) -> str:
    """Return the room that a module belongs to.

    Example:
        >>> room_of("gpt2.data.readers"), room_of("gpt2.files"), room_of("gpt2")
        ('data', 'files', 'gpt2')
    """
    return module.split(".")[1] if "." in module else module


def levels() -> dict[str, int]:
    """Return the level of each room, as the table in docs/architecture.md has it."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("<!-- levels -->")[1].split("<!-- /levels -->")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", table, re.MULTILINE)
    return {room: int(level) for level, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each module of gpt2 that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = node.module == "gpt2" and alias.name not in ("__version__", "load")
                yield node.lineno, name if is_module else node.module or ""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_room_has_a_level_in_architecture_md() -> None:
    assert {room_of(module_name(path)) for path in MODULES} == set(levels())


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_its_own_room_and_lower_levels(path: Path) -> None:
    known, own = levels(), room_of(module_name(path))
    wrong = [
        f"line {line} imports {name}"
        for line, name in imports(path)
        if name.split(".")[0] == "gpt2" and room_of(name) != own
        if known[room_of(name)] >= known[own]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room_of(module_name(path)) not in TOP], ids=module_name
)
def test_the_library_neither_prints_nor_exits_nor_reads_flags(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls & {"print", "input", "exit", "quit", "sys.exit"} == set()
    assert {name for _, name in imports(path)} & {"argparse", "fire", "tqdm"} == set()


# --- documents ---


def test_the_command_reference_is_current() -> None:
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools/make_command_reference.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == tool.page(), "run: python tools/make_command_reference.py"


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in found if path.is_file()] or [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
    ]


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


def names_in(path: Path) -> set[str]:
    """Return all names that a module defines or imports, with its own name in front."""
    module, tree = module_name(path), ast.parse(path.read_text(encoding="utf-8"))
    found = {module}

    def collect(node: ast.AST, name: str) -> None:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.ClassDef | ast.FunctionDef):
                found.add(f"{name}.{inner.name}")
                collect(inner, f"{name}.{inner.name}")
            elif isinstance(inner, ast.Assign | ast.AnnAssign):
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                found.update(f"{name}.{ast.unparse(target)}" for target in targets)

    collect(tree, module)
    if path.name == "__init__.py":  # whose imports are the names that users write
        imported = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
        found.update(f"{module}.{alias.name}" for node in imported for alias in node.names)
    return found


@functools.cache
def all_names() -> set[str]:
    return set().union(*map(names_in, MODULES))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_name_of_the_code_in_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"(?:`|::: )(gpt2(?:\.\w+)+)", text))
    paths = set(re.findall(r"`((?:src|tests|docs|tools|benchmarks|examples)/[\w./-]+\.\w+)`", text))
    assert sorted(names - all_names()) == []
    assert sorted(name for name in paths if not (ROOT / name).exists()) == []


def test_every_page_of_the_docs_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    docs = ROOT / "docs"
    assert listed == {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}


def test_the_checks_in_github_workflows_are_those_of_make() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("lint", "test", "test-slow"):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
        for command in re.findall(r"\$\(PYTHON\) (.*)", recipe):
            assert f"python {command}" in workflow


def public_names(tree: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the public module, classes and functions of a file; none that are inside a function."""
    yield name, tree
    if isinstance(tree, ast.FunctionDef):
        return
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield from public_names(node, f"{name}.{node.name}")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = public_names(tree, module_name(path))
    assert [name for name, node in names if not ast.get_docstring(node)] == []
