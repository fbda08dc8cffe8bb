"""The drawing in docs/architecture.md is the import contract, and each room says what it is for."""

import ast
import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = sorted(p.parent for p in (ROOT / "converter").rglob("__init__.py"))
# What the drawing shows because it is on its way.
COMING = {"exports", "serving"}


def drawn_layers() -> list[set[str]]:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawing = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert drawing
    lines = drawing[1].splitlines()
    inside = lines[lines.index("converter/") + 1 :]
    first = re.split(r"\s{2,}", inside[0].strip())[0]
    return [{first}, *(set(re.split(r"\s*\|\s*", line.strip())) for line in inside[1:])]


def contract_layers() -> list[set[str]]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    layers = config["importlinter:contract:rooms"]["layers"].strip().splitlines()
    return [{room.strip() for room in line.split("|")} for line in layers]


def test_the_drawing_is_the_contract() -> None:
    assert [layer - COMING for layer in drawn_layers()] == contract_layers()


def test_every_room_and_module_has_a_place() -> None:
    placed = {room for layer in contract_layers() for room in layer}
    found = {p.stem for p in (ROOT / "converter").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert found - {"__init__", "data"} == placed


def test_every_room_says_what_it_never_does() -> None:
    for room in ROOMS[1:]:
        doc = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert doc, room
        assert re.search(r"\b[Nn]ever\b", doc), f"{room.name}: {doc}"
