"""Every built-in name of every kind stands under its contract, and every contract has seeded defects."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pytest

from apportion import testing
from apportion.hooks.manager import BUILT_INS, load_plugins
from apportion.hooks.registry import KINDS
from apportion.protocols.backend import WHITE_BOX

HERE = Path(__file__).parent
CONTRACTS = [getattr(testing, name) for name in testing.__all__ if name.endswith("Contract")]
INSIDE = testing.WhiteBoxMethodContract


def kind_of(contract: type) -> str:
    return "methods" if contract is INSIDE else f"{contract.__name__.removesuffix('Contract').lower()}s"


@functools.cache
def classes(pattern: str) -> list[type]:
    found: list[type] = []
    for path in sorted(HERE.glob(f"{pattern}.py")):
        if path.stem == Path(__file__).stem:
            continue
        spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += [thing for name, thing in vars(module).items() if name.startswith("Test") and isinstance(thing, type)]
    return found


def checked(contract: type) -> set[str]:
    return {one.name for one in classes("test_*") if issubclass(one, contract) and hasattr(one, "name")}


def test_every_kind_has_a_contract() -> None:
    assert {kind_of(contract) for contract in CONTRACTS} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_keeps_it(kind: str) -> None:
    built_in = {entry.name for entry in load_plugins()[kind] if entry.plugin in BUILT_INS}
    found = set().union(*(checked(contract) for contract in CONTRACTS if kind_of(contract) == kind))
    assert built_in == found, f"{kind} without a contract: {built_in - found}; gone: {found - built_in}"


def test_methods_that_look_inside_keep_theirs() -> None:
    entries = [entry for entry in load_plugins()["methods"] if entry.plugin in BUILT_INS]
    assert checked(INSIDE) == {entry.name for entry in entries if entry.make().requires & WHITE_BOX}


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_contract_has_mutants(contract: type) -> None:
    mutants = [thing for thing in classes("*mutants") if issubclass(thing, contract)]
    assert len(mutants) >= 4, f"{len(mutants)} classes under {contract.__name__}"
