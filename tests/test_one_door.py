"""TensorFlow's protos have one door, graph/protos.py; the linter of imports only tells that TensorFlow is imported."""

import ast
from pathlib import Path

import converter

PACKAGE = Path(converter.__file__).parent


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_protos_are_imported_in_one_place() -> None:
    paths = [*PACKAGE.rglob("*.py"), PACKAGE.parent / "cli.py"]
    doors = {p.name for p in paths if any(f"{name}.".startswith("tensorflow.core.") for name in imports_of(p))}
    assert doors == {"protos.py"}
