"""The layers, the docs and the code agree."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command

from gunpowder.settings.environment import Environment, variable_name
from tests.suite.programs import attempt

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = {variable_name(field) for field in Environment.model_fields}


def test_the_import_contracts_are_kept(tmp_path: Path) -> None:
    cache = os.environ.get("IMPORT_LINTER_CACHE_DIR", str(tmp_path))
    answer = attempt("lint-imports", "--cache-dir", cache, cwd=ROOT, within=100)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def _rows_of_the_docs() -> dict[str, str]:
    docs = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([A-Z_]+)` (.*)$", docs, re.MULTILINE))


def test_every_setting_is_in_the_docs() -> None:
    missing = VARIABLES - set(_rows_of_the_docs())
    assert not missing, f"docs/settings.md lacks {sorted(missing)}"


def test_every_setting_that_a_person_gives_is_in_the_example_file() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    given = {name for name, rest in _rows_of_the_docs().items() if "set by the stack itself" not in rest}
    missing = VARIABLES & given - named
    assert not missing, f".env.example lacks {sorted(missing)}"


def test_the_stack_gives_no_worker_a_setting_that_does_not_exist() -> None:
    """A misspelt name in the compose file would be ignored silently."""
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    passed = set(re.findall(r"\b(GUNPOWDER_[A-Z_]+):", compose))
    # The last two are read by Compose itself.
    scripts = {"GUNPOWDER_WEB_WORKERS", "GUNPOWDER_WEB_SOCKETS", "GUNPOWDER_TEST_RESTART", "GUNPOWDER_HEALTH_INTERVAL"}
    unknown = {name for name in passed - VARIABLES - scripts if name not in _text_of("deploy", "nginx")}
    assert not unknown, f"docker-compose.yml passes {sorted(unknown)}, which nothing reads"


def _text_of(*folders: str) -> str:
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


@pytest.mark.parametrize("module", ["lifecycle.py", "sweeps.py", "gate.py", "querysets.py", "ports.py"])
def test_the_domain_never_mentions_the_engine(module: str) -> None:
    """A runtime for another platform must fit without touching these."""
    tree = ast.parse((ROOT / "workspaces" / module).read_text(encoding="utf-8"))
    words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    words |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    words |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {word for word in words if "docker" in word.lower()}


def test_a_state_is_written_in_one_function_only() -> None:
    """Everything else goes through `change_state`."""
    writes = []
    for path in (ROOT / "workspaces").rglob("*.py"):
        if "migrations" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
                writes += [f"{path.name}:{node.lineno}" for keyword in node.keywords if keyword.arg == "state"]
            if isinstance(node, ast.Assign):
                writes += [
                    f"{path.name}:{node.lineno}"
                    for target in node.targets
                    if isinstance(target, ast.Attribute) and target.attr == "state"
                ]
    assert writes == []


# What may wait for ever, and what bounds it instead.
ENDLESS = {
    "subprocess": "tests.suite.programs",
    "os.system": "tests.suite.programs",
    "os.popen": "tests.suite.programs",
    "time.sleep": "tests.suite.waiting",
    "threading.Barrier": "tests.suite.waiting.together",
    "concurrent.futures": "tests.suite.waiting.together (a pool waits for its threads when it is left)",
    "pytest.mark.timeout": "pytest.mark.patient, which asks for a reason",
}


def _names(tree: ast.Module) -> set[str]:
    """Every dotted name that a module imports or mentions."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    return found


def test_nothing_in_the_tests_can_wait_for_ever() -> None:
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        # What runs inside a workspace ends with it.
        if path.is_relative_to(ROOT / "tests" / "suite") or path == ROOT / "tests" / "attacks" / "greed.py":
            continue
        names = _names(ast.parse(path.read_text(encoding="utf-8")))
        where = path.relative_to(ROOT)
        found += [f"{where}: {name}; use {instead}" for name, instead in ENDLESS.items() if name in names]
    assert found == []


def test_make_up_names_the_image_of_every_service() -> None:
    """A service that it forgets starts here, where tests name the images, and in no new checkout."""
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    below = compose.partition("\nservices:\n")[2].partition("\nnetworks:\n")[0]
    services = re.findall(r"^  ([a-z]+):$", below, re.MULTILINE)
    written = (ROOT / "deploy" / "up.sh").read_text(encoding="utf-8").partition("printf '\\nservices:\\n'")[2]
    together = re.search(r"for service in ([a-z ]+);", written)
    assert together
    named = {*re.findall(r"printf '  ([a-z]+):", written), *together[1].split()}
    assert len(services) >= 8
    assert named == set(services)


def test_no_service_of_the_product_stays_down() -> None:
    """What the stacks of the tests switch off, because they must not come back with the engine."""
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert re.findall(r"^ *restart: (\S+)", compose, re.MULTILINE) == [
        "${GUNPOWDER_TEST_RESTART:-unless-stopped}",
        '"no"',  # init and migrate end by themselves
        '"no"',
    ]


@pytest.mark.django_db
def test_the_migrations_say_what_the_models_say() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_every_model_says_what_it_is() -> None:
    for model in apps.get_app_config("workspaces").get_models():
        assert "__str__" in vars(model), model
