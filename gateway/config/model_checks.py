"""What the classes' types cannot say of models: their targets, fallbacks, weights and hedges.

As in :mod:`gateway.config.checks`, holes are stepped over, and nothing stops at the first fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gateway.config.faults import HOLE, shown, suggest
from gateway.config.tree import Model, Target

FaultSink = Callable[[str, str], object]
Models = Sequence[tuple[str, Model]]  # with their paths


def check_models(models: Models, providers: list[str] | None, names: list[str] | None, fault: FaultSink) -> None:
    """Tell ``fault(path, message)`` everything that is wrong with the models.

    Args:
        models: Those that could be read, each with its path.
        providers: Their names; None if one could not be read.
        names: All models' names; None if one could not be read.
    """
    for path, model in models:
        _check_name_and_targets(model, path, providers, fault)
        _check_weights(model, path, fault)
        _check_fallbacks(model, path, names, fault)
    if names is None:
        return
    by_name = {model.name: model for _, model in models}
    _check_cycles(models, by_name, fault)
    for path, model in models:
        if model.hedge is not None and model.hedge is not HOLE:
            _check_hedge(model, path, by_name, fault)


def _readable(array: Any) -> Iterator[tuple[int, Any]]:
    if array is not HOLE:
        yield from ((index, value) for index, value in enumerate(array) if value is not HOLE)


def _check_name_and_targets(model: Model, path: str, providers: list[str] | None, fault: FaultSink) -> None:
    wildcard: bool | None = None
    if model.name is not HOLE:
        wildcard = model.name.endswith("*")
        if "*" in model.name[:-1]:
            fault(f"{path}.name", f"{shown(model.name)} may hold one '*', at its end")
    if model.targets == ():
        fault(f"{path}.targets", "is empty; a model needs at least one target { provider, model }")
    for index, target in _readable(model.targets):
        where = f"{path}.targets[{index}]"
        if target.provider is not HOLE and providers is not None and target.provider not in providers:
            known = suggest(target.provider, providers, otherwise="; there is no [[provider]]")
            fault(f"{where}.provider", f"no provider is called {shown(target.provider)}{known}")
        if target.model is not HOLE:
            _check_target_model(target.model, wildcard, f"{where}.model", fault)


def _check_target_model(name: str, wildcard: bool | None, path: str, fault: FaultSink) -> None:
    if not name or not all("!" <= char <= "~" for char in name):
        fault(path, "goes into a header: at least one character, ASCII without spaces only")
    elif "*" in name[:-1]:
        fault(path, f"{shown(name)} may hold one '*', at its end")
    elif name.endswith("*") and wildcard is False:
        fault(path, "ends in '*', which stands for what the model's name leaves open; that name must end in '*', too")


def _check_weights(model: Model, path: str, fault: FaultSink) -> None:
    weights = [target.weight for _, target in _readable(model.targets)]
    if weights and not any(weight is HOLE or weight for weight in weights):
        fault(f"{path}.targets", "every weight is 0; at least one target needs a weight above 0")


def _check_fallbacks(model: Model, path: str, names: list[str] | None, fault: FaultSink) -> None:
    for index, name in _readable(model.fallback):
        where = f"{path}.fallback[{index}]"
        if name == model.name:
            fault(where, f"{shown(name)} is the model itself")
        elif name.endswith("*"):
            fault(where, f"{shown(name)} leaves open which model; write a model with a whole name")
        elif names is not None and name not in names:
            known = suggest(
                name, [one for one in names if one != model.name], otherwise="; there is no other [[model]]"
            )
            fault(where, f"no model is called {shown(name)}{known}")


def _check_cycles(models: Models, by_name: Mapping[str, Model], fault: FaultSink) -> None:
    """Each circle once, at the model of it that stands first."""
    found: set[frozenset[str]] = set()
    for path, model in models:
        circle = _circle(model.name, by_name)
        if circle and frozenset(circle) not in found:
            found.add(frozenset(circle))
            fault(f"{path}.fallback", "goes round in a circle: " + " → ".join(shown(name) for name in circle))


def _circle(start: str, by_name: Mapping[str, Model]) -> list[str]:
    """The shortest way of fallbacks from a model back to it, both ends included; empty if there is none."""
    ways, seen = [[start]], {start}
    for way in ways:  # grows as it is walked
        if way[-1] not in by_name:
            continue
        for _, name in _readable(by_name[way[-1]].fallback):
            if name == start and len(way) > 1:
                return [*way, start]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def _check_hedge(model: Model, path: str, by_name: Mapping[str, Model], fault: FaultSink) -> None:
    targets: set[tuple[str, str]] = set()
    for one in _with_fallbacks(model, by_name):
        if one.targets is HOLE or HOLE in one.targets:
            return
        targets.update(_identity(target) for target in one.targets)
    if len(targets) == 1:
        fault(f"{path}.hedge", "needs a second target to ask; there is one, and no fallback with another")


def _identity(target: Target) -> tuple[str, str]:
    return str(target.provider), str(target.model)


def _with_fallbacks(model: Model, by_name: Mapping[str, Model]) -> list[Model]:
    found, seen = [model], {model.name}
    for one in found:  # grows as it is walked
        for _, name in _readable(one.fallback):
            if name in by_name and name not in seen:
                seen.add(name)
                found.append(by_name[name])
    return found
