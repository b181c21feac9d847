"""The catalogue: a policy spelled in a params file to the policy, and a policy to its name and settings.

A spelling is a call from the outside in, `ITW(PFLP(period=40), start=0.7)`: the innermost policy acts on the base
weights, and a setting that is not spelled has the value of its flat key (`pflp_period` ...) or its default.
To add a policy write its class in a file of this folder and its name in `POLICIES`; ADDING.md here says more.
"""

import ast
import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from lungmtl.policies.contract import Policy, Wrapper, require

POLICIES = {  # name in params -> module of this folder that has the class
    **dict.fromkeys(("BW", "PFLP", "ITW", "Alone"), "schedules"),
    **dict.fromkeys(("RLW", "UW", "DWA", "IMTLL", "GeometricMean", "FAMO"), "losses"),
    **dict.fromkeys(("GCS", "OLAUX", "GradNorm", "DBMTL"), "gradients"),
    **dict.fromkeys(("AutoLambda",), "bilevel"),
    **dict.fromkeys(("MGDA", "PCGrad", "IMTLG", "AlignedMTL", "ConFIG", "GradVac", "PCD"), "borrowed"),
    **dict.fromkeys(("UPGrad", "FairGrad", "CAGrad"), "borrowed"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighting:
    """How an experiment weighs its losses, as flat settings named like the keys of a params file."""

    tasks: Sequence[str]
    weights: Sequence[float]
    policy: str = ""  # a spelling; empty is that of `pflp` and `itw`
    pflp: bool = False
    pflp_factor: float = 0.1
    pflp_period: int = 20
    pflp_unit: str = "step"
    pflp_order: Sequence[str] = ()
    pflp_keep_mean: bool = False
    pflp_shuffle: bool = False
    itw: bool = False
    itw_start: float = 0.6
    itw_factor: float = 0.01
    itw_restart: bool = False
    seed: int = 0  # of the run, for policies that draw

    @property
    def spelling(self) -> str:
        """The policy as a call, e.g. `ITW(PFLP)`."""
        flags = ("PFLP" if self.pflp else "BW") if not self.itw else ("ITW(PFLP)" if self.pflp else "ITW(BW)")
        return self.policy or flags

    def settings(self, name: str) -> dict[str, Any]:
        """What the flat keys say of a policy by this name: those that begin with it, with this run's seed."""
        prefix = f"{name.lower()}_"
        values = dataclasses.asdict(self)
        found = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        if "shuffle" in found:
            found["shuffle_seed"] = self.seed if found.pop("shuffle") else None
        return found | {"seed": self.seed}


def build(weighting: Weighting) -> Policy:
    """Compose the policy of an experiment.

    Raises:
        ValueError: If the spelling names a policy or a setting that is not there, or a value is outside its range.
    """
    return _built(parse(weighting.spelling), weighting)


def describe(policy: Policy) -> dict[str, Any]:
    """Name and settings of a policy, as a record keeps them.

    Returns:
        `name`, e.g. `ITW(PFLP(BW))`, and `settings`, a mapping of every policy in it to its values, the tasks left out;
        of a seed only whether there is one, since it is another in every run.
    """
    values = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    values |= {name: value is not None for name, value in values.items() if name.endswith("seed")}
    inner = describe(values.pop("before")) if isinstance(policy, Wrapper) else {"name": "", "settings": {}}
    values.pop("tasks", None)
    name = type(policy).__name__
    return {
        "name": f"{name}({inner['name']})" if inner["name"] else name,
        "settings": {name: values} | inner["settings"],
    }


def names(spelling: str) -> list[str]:
    """Names of the policies in a spelling, from the outside in."""
    node = parse(spelling)
    found = [node.func.id]
    while node.args:
        node = _call(node.args[0], spelling)
        found.append(node.func.id)
    return found


def with_setting(spelling: str, name: str, value: Any) -> str:
    """The spelling with one setting of its outermost policy changed."""
    call = parse(spelling)
    others = [word for word in call.keywords if word.arg != name]
    return ast.unparse(ast.Call(call.func, call.args, [*others, ast.keyword(name, ast.Constant(value))]))


def parse(spelling: str) -> ast.Call:
    """Read a spelling; raises a ValueError if it is not one call of known policies."""
    try:
        node = ast.parse(spelling, mode="eval").body
    except SyntaxError:
        node = None
    return _call(node, spelling)


def find(name: str) -> type[Policy]:
    """Class of a policy by its name in the catalogue."""
    require(name in POLICIES, f"A policy must be one of {', '.join(POLICIES)}", name)
    return getattr(importlib.import_module(f"lungmtl.policies.{POLICIES[name]}"), name)


def _call(node: ast.expr | None, spelling: str) -> ast.Call:
    call = ast.Call(node, [], []) if isinstance(node, ast.Name) else node
    proper = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and len(call.args) < 2
    require(proper, "`policy` must be a call such as ITW(PFLP(period=40), start=0.7)", spelling)
    return call


def _built(call: ast.Call, weighting: Weighting) -> Policy:
    kind, spelling = find(call.func.id), weighting.spelling
    fields = {field.name for field in dataclasses.fields(kind)} - {"before", "tasks"}
    given = weighting.settings(call.func.id)
    settings = {name: value for name, value in given.items() if name in fields}
    spelled = {word.arg: _literal(word.value, spelling) for word in call.keywords}
    unknown = ", ".join(str(name) for name in spelled if name not in fields)
    require(not unknown, f"A setting of {kind.__name__} must be one of {', '.join(sorted(fields))}", unknown)
    if issubclass(kind, Wrapper):
        inner = _call(call.args[0], spelling) if call.args else parse("BW")
        return kind(_built(inner, weighting), **settings | spelled)
    require(not call.args, f"{kind.__name__} acts on no other policy", spelling)
    return kind(weighting.tasks, **{"weights": weighting.weights} | settings | spelled)


def _literal(node: ast.expr, spelling: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"A setting of a policy must be a plain value. Found {spelling!r}.") from error
