"""Where the programs of a repo start: main guards, `__main__.py`, declared console scripts, notebooks.

Declarations are read (TOML, INI, and `setup.py` by its syntax tree), never run.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from neural_coder.files import Listing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

Kind = Literal["console_script", "gui_script", "script", "main_module", "main_guard", "notebook"]
NOTEBOOK_NOTE = "listed only; notebooks are neither analysed nor patched"
_GROUPS: Mapping[str, Kind] = {"console_scripts": "console_script", "gui_scripts": "gui_script"}
_TARGET = re.compile(r"\s*([\w.]+)\s*(?::\s*([\w.]+))?\s*(?:\[.*\])?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPoint:
    """A place where a program starts."""

    kind: Kind
    """`script`: a file that is installed as a command as it is; `main_module`: what `python -m PACKAGE` runs."""
    path: Path | None
    """The file; None when the declaration leads to none of the project's files."""
    line: int | None = None
    """Of the main guard, or of the function that a command calls."""
    name: str = ""
    """The command, or the package behind `python -m`."""
    target: str = ""
    """As declared: `package.module:function`."""
    declared_in: Path | None = None
    note: str = ""


def main_guard(tree: ast.Module) -> int | None:
    """The line of the first `if __name__ == "__main__":` at a file's top level."""
    return next((node.lineno for node in tree.body if isinstance(node, ast.If) and _compares_name(node.test)), None)


def entry_points(listing: Listing, guards: Mapping[Path, int]) -> tuple[tuple[EntryPoint, ...], tuple[str, ...]]:
    """List the entry points of a repo.

    Args:
        listing: Its files.
        guards: Lines of main guards, by file.

    Returns:
        Declared commands first, then files, then notebooks, without repetitions; and one sentence for each declaration
        that could not be read.
    """
    problems: list[str] = []
    declared = (point for file in _manifests(listing) for point in _declared(file, problems))
    files = (point for file in listing.python if (point := _of_file(file, guards.get(file))) is not None)
    notebooks = (EntryPoint(kind="notebook", path=file, note=NOTEBOOK_NOTE) for file in listing.notebooks)
    # The same command is often declared in setup.cfg and setup.py alike.
    unique = {(point.kind, point.name, point.target, point.path): point for point in (*declared, *files, *notebooks)}
    return tuple(unique.values()), tuple(problems)


def _compares_name(test: ast.expr) -> bool:
    """Whether a condition compares `__name__` with `"__main__"`, in either order."""
    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and len(node.comparators) == 1 and isinstance(node.ops[0], ast.Eq):
            sides = (node.left, node.comparators[0])
            named = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
            if named and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides):
                return True
    return False


def _of_file(file: Path, guard: int | None) -> EntryPoint | None:
    if file.name == "__main__.py":
        return EntryPoint(kind="main_module", path=file, line=guard, name=_package_name(file.parent))
    return EntryPoint(kind="main_guard", path=file, line=guard) if guard is not None else None


def _package_name(folder: Path) -> str:
    parts = [folder.name]
    while (folder / "__init__.py").is_file() and (folder.parent / "__init__.py").is_file():
        folder = folder.parent
        parts.insert(0, folder.name)
    return ".".join(parts)


# --- declarations ---------------------------------------------------------------------------------------------------


def _manifests(listing: Listing) -> list[Path]:
    return [*listing.manifests, *(file for file in listing.python if file.name == "setup.py")]


def _declared(file: Path, problems: list[str]) -> list[EntryPoint]:
    read = {"pyproject.toml": _in_pyproject, "setup.cfg": _in_setup_cfg, "setup.py": _in_setup_py}[file.name]
    try:
        found = list(read(file))
    except (OSError, ValueError, SyntaxError, RecursionError, configparser.Error) as error:
        # TOML and Unicode errors are ValueErrors. What it declares is unknown; the files are analysed all the same.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        problems.append(f"{file}: entry points could not be read: {reason}")
        return []
    return [_located(replace(point, declared_in=file), file.parent) for point in found]


def _in_pyproject(file: Path) -> Iterator[EntryPoint]:
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    project, tools = _table(data, "project"), _table(data, "tool")
    yield from _commands("console_script", _table(project, "scripts"))
    yield from _commands("gui_script", _table(project, "gui-scripts"))
    yield from _commands("console_script", _table(_table(tools, "poetry"), "scripts"))
    yield from _commands("console_script", _table(_table(tools, "flit"), "scripts"))
    yield from _scripts(_table(tools, "setuptools").get("script-files"))


def _in_setup_cfg(file: Path) -> Iterator[EntryPoint]:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read_string(file.read_text(encoding="utf-8"))
    for section in ("options.entry_points", "entry_points"):
        if config.has_section(section):
            yield from _grouped({group: lines.splitlines() for group, lines in config[section].items()})
    yield from _scripts(config.get("options", "scripts", fallback="").split())


def _in_setup_py(file: Path) -> Iterator[EntryPoint]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(file.read_bytes())
    known = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last_name(node.func) == "setup":
            for keyword in node.keywords:
                if keyword.arg == "entry_points":
                    yield from _grouped(_as_groups(_literal(keyword.value, known)))
                elif keyword.arg == "scripts":
                    yield from _scripts(_literal(keyword.value, known))


def _grouped(groups: Mapping[str, Iterable[object]]) -> Iterator[EntryPoint]:
    for group, lines in groups.items():
        if group in _GROUPS:
            pairs = (line.partition("=")[::2] for line in lines if isinstance(line, str) and "=" in line)
            yield from _commands(_GROUPS[group], {name.strip(): target.strip() for name, target in pairs})


def _as_groups(value: object) -> Mapping[str, Iterable[object]]:
    """Groups of lines, however they were written: a dict of lists or texts, or one text in INI form."""
    if isinstance(value, str):
        config = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
        config.optionxform = str  # type: ignore[assignment, method-assign]
        config.read_string("\n".join(line.strip() for line in value.splitlines()))
        return {group: [f"{name} = {target}" for name, target in config[group].items()] for group in config.sections()}
    groups = value if isinstance(value, dict) else {}
    return {
        group: lines.splitlines() if isinstance(lines, str) else lines
        for group, lines in groups.items()
        if isinstance(group, str) and isinstance(lines, str | list)
    }


def _commands(kind: Kind, table: Mapping[str, object]) -> Iterator[EntryPoint]:
    for name, value in table.items():
        # Poetry also writes {reference = "package.module:function", type = "console"}.
        target = value.get("reference") if isinstance(value, Mapping) else value
        if isinstance(target, str):
            yield EntryPoint(kind=kind, path=None, name=name, target=target)


def _scripts(paths: object) -> Iterator[EntryPoint]:
    for path in paths if isinstance(paths, list) else ():
        if isinstance(path, str):
            yield EntryPoint(kind="script", path=None, name=Path(path).name, target=path)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _literal(node: ast.expr, known: Mapping[str, ast.expr], depth: int = 0) -> object:
    """The value of an expression as far as it is written out; None for parts that only running would tell."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item, known, depth) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: _literal(value, known, depth) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Name) and node.id in known and depth < 5:
        return _literal(known[node.id], known, depth + 1)
    return None


# --- files behind declarations --------------------------------------------------------------------------------------


def _located(point: EntryPoint, folder: Path) -> EntryPoint:
    """The entry point with the file that it leads to, and the line of its function."""
    if point.kind == "script":
        path = folder / point.target
        return replace(point, path=path.resolve()) if path.is_file() else replace(point, note="there is no such file")
    match = _TARGET.fullmatch(point.target)
    path_of_module = _module_file(folder, match[1]) if match else None
    if match is None or path_of_module is None:
        return replace(point, note="it leads to no file of this project")
    return replace(point, path=path_of_module.resolve(), line=_line_of(path_of_module, match[2] or ""))


def _module_file(folder: Path, module: str) -> Path | None:
    parts = module.split(".")
    for base in (folder, folder / "src", folder / "lib", folder / "python"):
        target = base.joinpath(*parts)
        for path in (target.with_name(f"{parts[-1]}.py"), target / "__init__.py"):
            if path.is_file():
                return path
    return None


def _line_of(file: Path, name: str) -> int | None:
    """Where a file defines or binds a function; None when it cannot be seen there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        # The analysis of that file reports what is wrong with it.
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return node.lineno
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.lineno
    return None
