"""`python -m optimscheduler`, with and without the extra that it needs."""

from __future__ import annotations

import sys

import pytest

from optimscheduler.__main__ import main


def test_main_is_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["optimscheduler", "--version"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("optimscheduler ")


@pytest.mark.parametrize("package", ["typer", "pydantic", "yaml", "rich", "matplotlib", "numpy"])
def test_without_the_extra_it_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.startswith("optimscheduler.run") or name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)

    class Missing:
        """Finds nothing where the package would be."""

        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=package)

    monkeypatch.setattr(sys, "argv", ["optimscheduler", "plot", "train.yaml"])
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        f"error: the command line needs {package!r}, which is not installed: "
        "pip install 'optimscheduler[run]'\n"
    )


def test_a_mistake_of_the_packages_own_is_not_blamed_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimscheduler.run.commands.cli", None)
    with pytest.raises(ModuleNotFoundError):
        main()
