"""Build ffmerge: as a wheel the tool alone, as an editable install the whole workflow.

The tool imports a few modules of `provenance`. A wheel must not install a top-level package of so
common a name, so it gets a private copy of them, `ffmerge._provenance`. An editable install exposes
all of workflow/, and its command `ffmerge` also has the commands about a run's numbers.
"""

import ast
import re
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

WORKFLOW = Path(__file__).resolve().parent / "workflow"
PRIVATE = "ffmerge._provenance"
IMPORT = re.compile(r"^(\s*)(from|import) provenance\b", flags=re.MULTILINE)


def add_provenance(build: Path) -> None:
    """Copy the modules of `provenance` that ffmerge imports, and rename the imports of them.

    build: the folder that has a copy of ffmerge. Raises SystemExit naming an import that the wheel
    could not satisfy.
    """
    sys.path.insert(0, str(WORKFLOW))
    from provenance.sources import closure

    needed = {file for module in (WORKFLOW / "ffmerge").rglob("*.py") for file in closure(module)}
    for file in sorted(needed):
        package, *inside = file.relative_to(WORKFLOW).parts
        if package not in ("ffmerge", "provenance"):
            sys.exit(f"ffmerge imports {file}, which is not part of the tool")
        if package == "provenance":
            copy = build.joinpath(*PRIVATE.split("."), *inside)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    for file in build.rglob("*.py"):
        text = IMPORT.sub(rf"\1\2 {PRIVATE}", file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")
        for name in private_imports(text):
            module = build.joinpath(*name.split("."))
            if not (module.with_suffix(".py").exists() or (module / "__init__.py").exists()):
                sys.exit(f"{file} imports {name}, which the wheel would lack")


def private_imports(text: str) -> list[str]:
    """The modules of the private copy that a module imports, by their dotted names."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            # without `as`, it would bind the name `ffmerge` in place of `provenance`
            names += [
                alias.name if alias.asname else f"{alias.name} without `as`"
                for alias in node.names
                if alias.name.startswith(PRIVATE)
            ]
        elif isinstance(node, ast.ImportFrom) and node.module == PRIVATE:
            names += [f"{PRIVATE}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PRIVATE}."):
            names.append(node.module)
    return names


class BuildWheel(build_py):
    """Build ffmerge with its private copy of `provenance`."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(Path(self.build_lib, "ffmerge"), ignore_errors=True)  # an earlier build's
        super().run()
        add_provenance(Path(self.build_lib))


class InstallWorkflow(editable_wheel):
    """Install the workflow where it lies, with all commands."""

    def run(self) -> None:
        self.distribution.entry_points = {"console_scripts": ["ffmerge = experiment.cli:main"]}
        self.dist_info_dir = None  # pip has prepared one with the tool's entry point
        super().run()


setup(cmdclass={"build_py": BuildWheel, "editable_wheel": InstallWorkflow})
