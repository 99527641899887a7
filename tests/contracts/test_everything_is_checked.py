"""Every built-in name of every kind stands under its contract, and every contract has seeded defects."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from apportion import testing
from apportion.hooks.manager import BUILT_INS, load_plugins
from apportion.hooks.registry import KINDS

HERE = Path(__file__).parent
CONTRACTS = {
    f"{name.removesuffix('Contract').lower()}s": getattr(testing, name)
    for name in testing.__all__
    if "Contract" in name
}


def classes(file: str) -> list[type]:
    spec = importlib.util.spec_from_file_location(f"checked_{file}", HERE / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [thing for name, thing in vars(module).items() if name.startswith("Test") and isinstance(thing, type)]


def test_every_kind_has_a_contract() -> None:
    assert set(CONTRACTS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_keeps_it(kind: str) -> None:
    built_in = {entry.name for entry in load_plugins()[kind] if entry.plugin in BUILT_INS}
    file = HERE / f"test_{kind}.py"
    found = classes(file.stem) if file.exists() else []
    checked = {thing.name for thing in found if issubclass(thing, CONTRACTS[kind]) and hasattr(thing, "name")}
    assert built_in == checked, f"{kind} without a contract: {built_in - checked}; gone: {checked - built_in}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_contract_has_mutants(kind: str) -> None:
    mutants = [thing for thing in classes("mutants") if issubclass(thing, CONTRACTS[kind])]
    assert len(mutants) >= 4, f"{len(mutants)} classes under {CONTRACTS[kind].__name__}"
