"""The arrows between the packages, read off the import statements."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import analysis
from oracle.types import SHAPES

ROOT = Path(__file__).resolve().parents[1]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path for folder in ("oracle", "analysis", "figures") for path in (ROOT / folder).rglob("*.py")}


@cache
def tree(module: str) -> ast.Module:
    """A module with the names that its stub file imports on first use."""
    stub = SOURCES[module].with_suffix(".pyi")
    text = SOURCES[module].read_text(encoding="utf-8") + (stub.read_text(encoding="utf-8") if stub.exists() else "")
    return ast.parse(text)


def _statements(node: ast.AST, *, deferred: bool) -> Iterator[ast.AST]:
    """All statements, imports for type checkers included; those in functions only if `deferred`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and not deferred:
            continue
        yield child
        yield from _statements(child, deferred=deferred)


@cache
def imports(module: str, deferred: bool = True) -> frozenset[str]:
    """Full names of the modules that a module imports, and of what it takes out of them."""
    found: set[str] = set()
    for node in _statements(tree(module), deferred=deferred):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == SOURCES[module].with_suffix(".pyi").exists(), f"{module} imports relatively"
            source = f"{module}.{node.module}" if node.level else str(node.module)
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def importers(*names: str) -> set[str]:
    """Modules of the project that import one of these, or something in it."""
    return {
        module
        for module in SOURCES
        if any(found == name or found.startswith(f"{name}.") for found in imports(module) for name in names)
    }


def within(package: str) -> set[str]:
    return {module for module in SOURCES if module == package or module.startswith(f"{package}.")}


def reached(package: str) -> set[str]:
    """Whatever is imported, at once or later, by a package or by what it imports."""
    found: set[str] = set()
    waiting = within(package)
    while waiting:
        module = waiting.pop()
        new = imports(module) - found
        found |= new
        waiting |= new & set(SOURCES)
    return found


def _packages(names: set[str]) -> set[str]:
    return {".".join(name.split(".")[:2]) if name.startswith("oracle.") else name.split(".")[0] for name in names}


def test_the_imports_are_seen() -> None:
    assert len(SOURCES) > 40
    assert "oracle.pipeline.scheduler" in importers("oracle.search")
    assert "oracle.search.enumeration.Spread" in imports("oracle.search")
    assert {"torch", "oracle.models"} <= _packages(reached("oracle.engine"))
    assert "oracle.pipeline.run" in imports("oracle"), "those of stub files count"
    assert "oracle.pipeline.run" in imports("oracle.cli.search") - imports("oracle.cli.search", deferred=False)


def test_search_imports_no_model_and_no_files() -> None:
    forbidden = {"oracle.engine", "oracle.store", "oracle.models", "analysis", "torch", "transformers", "pyarrow"}
    assert not forbidden & _packages(reached("oracle.search"))


def test_the_store_imports_no_algorithm() -> None:
    allowed = {"oracle.store", "oracle.allocations", "oracle.types", "oracle.errors", "oracle.utils"}
    assert {name for name in _packages(reached("oracle.store")) if name.startswith("oracle.")} == allowed


@pytest.mark.parametrize(
    "package", ["oracle.metrics", "oracle.sequences", "oracle.config", "analysis.queries", "analysis"]
)
def test_what_needs_no_model_reaches_none(package: str) -> None:
    assert not {"oracle.engine", "oracle.models", "oracle.search", "torch", "transformers"} & _packages(
        reached(package)
    )


def test_analysis_reaches_only_what_needs_no_model() -> None:
    reads = {"allocations", "costs", "errors", "metrics", "store", "types", "utils"}
    found = {
        name.split(".")[1] for module in within("analysis") for name in imports(module) if name.startswith("oracle.")
    }
    assert found <= reads


def test_figures_reach_oracle_only_through_the_analysis() -> None:
    assert importers("oracle") & within("figures") == set()


def test_nothing_imports_the_command_line() -> None:
    assert importers("oracle.cli") <= within("oracle.cli") | {"oracle.__main__"}


def test_search_and_engine_meet_where_sequences_are_searched() -> None:
    both = importers("oracle.search") & importers("oracle.engine")
    assert both <= {"oracle.pipeline.setup", "oracle.static.curve", *within("oracle.executors")}
    assert "oracle.executors.searcher" in both
    assert importers("oracle.pipeline.setup") == {"oracle.pipeline.run"}


def test_only_the_adapter_touches_the_model_library() -> None:
    # Plain generation is the library's own: it is what the engine is checked against. `apply` works inside a user's
    # own model, and a checkpoint is one that the library loads.
    outside = {"oracle.engine.reference", "oracle.engine.confirm", "oracle.engine.apply", "oracle.export.checkpoint"}
    assert importers("transformers") <= within("oracle.models") | outside
    assert importers("transformers") & within("oracle.models")


def test_imports_form_no_cycle() -> None:
    # `from package import module` depends on the module, not on all that the package offers.
    graph = {module: (imports(module, deferred=False) & set(SOURCES)) - {module} for module in SOURCES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(SOURCES)


def test_nothing_is_unpickled() -> None:
    assert importers("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal") == set()
    risky = {"torch.load", "torch.save", "np.load", "numpy.load", "pd.read_pickle", "eval", "exec"}
    for module in SOURCES:
        calls = {ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)}
        assert not calls & risky, module
        assert not [call for call in calls if call.endswith((".to_pickle", ".read_pickle"))], module
        keywords = {node.arg for node in ast.walk(tree(module)) if isinstance(node, ast.keyword)}
        assert "allow_pickle" not in keywords, module


def test_packages_form_no_circle() -> None:
    """`oracle.X` and `analysis` as wholes point one way, imports in functions and for type checkers included."""
    graph: dict[str, set[str]] = {}
    for module in SOURCES:
        if module != "oracle":  # offers names of its own packages
            mine = _packages({module})
            graph.setdefault(*mine, set()).update(_packages(set(imports(module) & set(SOURCES))) - mine)
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_the_tests_mirror_the_folders() -> None:
    for folder in ("oracle", "analysis"):
        tests = ROOT / "tests" if folder == "oracle" else ROOT / "tests" / "analysis"
        for path in (ROOT / folder).rglob("__init__.py"):
            mirrored = tests / path.parent.relative_to(ROOT / folder)
            assert list(mirrored.glob("test_*.py")), f"{path.parent} has no tests in {mirrored}"


def test_no_module_of_the_analysis_bears_the_name_of_a_public_function() -> None:
    modules = {path.stem for path in (ROOT / "analysis").glob("*.py")} | {
        path.name for path in (ROOT / "analysis").iterdir() if path.is_dir()
    }
    assert not modules & {name for name in analysis.__all__ if callable(getattr(analysis, name))}


def test_packages_say_what_is_public() -> None:
    for package in (module for module, path in SOURCES.items() if path.name == "__init__.py"):
        assigned = [
            ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            for node in tree(package).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
        ]
        assert "__all__" in assigned, package


LIGHT = """
import sys

def check(what):
    heavy = {"torch", "transformers", "datasets", "matplotlib"} & set(sys.modules)
    assert not heavy, f"{what} imports {heavy}"

def help(*arguments):
    try:
        oracle.cli.main([*arguments, "--help"])
    except SystemExit as left:
        assert left.code == 0
    check(f"oracle {' '.join(arguments)} --help")

import oracle
check("import oracle")
import analysis
from oracle.types import SHAPES
check("import analysis")
import oracle.cli
help()
for command in oracle.cli.COMMANDS:
    help(command)
"""


def test_what_needs_no_model_does_not_wait_for_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: oracle") == 19


SUFFIX = re.compile(r"_?[a-z]\w*?_([A-Z0-9]*[A-Z][A-Z0-9]*)")


def _shapes(module: str, *, own: bool = False) -> set[str]:
    """Letters of the shapes at the ends of a module's names; with `own` not those of attributes and keywords."""
    nodes = list(ast.walk(tree(module)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    if not own:
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {str(node.arg) for node in nodes if isinstance(node, ast.keyword)}
    return {letter for name in names if (found := SUFFIX.fullmatch(name)) for letter in found[1] if letter.isalpha()}


def test_every_shape_letter_is_in_the_one_legend() -> None:
    used = {module: _shapes(module) for module in SOURCES}
    assert set().union(*used.values()) == set(SHAPES), "a letter without meaning, or a meaning without use"
    assert {"N", "C"} <= used["analysis.knapsack.items"], "letters are seen"
    for module in SOURCES:
        assert "Shapes:" not in (ast.get_docstring(tree(module)) or ""), f"{module} has a legend of its own"


def test_local_axes_are_explained_where_they_stand() -> None:
    for module in SOURCES:
        text = ast.get_docstring(tree(module)) or ""
        local = sorted(_shapes(module, own=True) & {"X", "Y"})
        missing = [letter for letter in local if not re.search(rf"\b{letter}\b", text)]
        assert not missing, f"{module} does not explain {missing}"
