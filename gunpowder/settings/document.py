"""Writes .env.example and docs/settings.md from the settings themselves: `python -m gunpowder.settings.document`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gunpowder.settings.environment import Environment, variable_name

ROOT = Path(__file__).resolve().parents[2]
# What the stack sets by itself; shown in the page, not offered in .env.example.
INTERNAL = frozenset({"settings_mode", "database_pool", "secrets_dir", "instance", "workspace_mount"})


def _default(name: str) -> str:
    value: Any = Environment.model_fields[name].default
    if name == "memory":
        return f"{value // 2**20}m"
    if name == "port_range":
        return f"{value[0]}-{value[1]}"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def env_example() -> str:
    """Every setting as a comment with its default, so that a copy changes nothing."""
    lines = [
        "# Copy to .env and change what you need. The environment wins over this file; empty is unset.",
        "",
    ]
    for name, field in Environment.model_fields.items():
        if name not in INTERNAL:
            lines += [f"# {field.description}", f"#{variable_name(name)}={_default(name)}", ""]
    return "\n".join(lines)


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Read from the environment in one place, `gunpowder/settings/environment.py`, from which this page and",
        "`.env.example` are written (`make settings`). A wrong value stops the process with a sentence that names it.",
        "Durations accept fractions. With `make up`, put them into `.env` or on the command line, which wins.",
        "",
        "| variable | default | what it is | example |",
        "|---|---|---|---|",
    ]
    for name, field in Environment.model_fields.items():
        example = (field.examples or [""])[0]
        inner = " (set by the stack itself)" if name in INTERNAL else ""
        default = f"`{_default(name)}`" if _default(name) else ""
        lines.append(f"| `{variable_name(name)}` | {default} | {field.description}{inner} | `{example}` |")
    return "\n".join([*lines, ""])


def main() -> None:
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")
    (ROOT / "docs" / "settings.md").write_text(settings_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
