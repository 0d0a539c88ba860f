"""The rooms: imports point strictly downwards, seams hold, and the rules of structured concurrency are in the source.

Everything is read from the syntax tree of ``gateway/``; nothing is imported.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "gateway"
FILES = sorted(ROOT.rglob("*.py"))

# Each room and the rooms it may import. A room not named as a folder is a module at the top.
MAY_IMPORT = {
    "core": set(),
    "policy": {"core"},
    "config": set(),
    "dialects": {"core"},
    "flow": {"core", "policy"},
    "store": {"config", "core", "flow", "policy"},
    "quota": {"config", "core", "flow", "policy", "store"},
    "identity": {"config", "core", "store"},
    "ledger": {"config", "core", "flow", "store"},
    "observe": {"config", "core", "flow"},
    "upstream": {"config", "core", "policy", "dialects", "flow"},
    "context": {"config", "core", "policy", "dialects", "flow", "store"},
    "sim": {"core"},
    "ui": set(),
    "migrate": {"config"},
    "current": {"config", "core", "upstream", "context"},
    "reload": {"config", "current"},
    "memory": {"core", "store"},
    "accounts": {"config", "core", "identity", "ledger", "quota", "store", "upstream"},
    "admin": {"config", "core", "identity", "ledger", "policy", "store"},
    "instance": {
        "config", "core", "policy", "dialects", "flow", "upstream", "context", "store", "identity", "observe",
        "current", "reload", "memory", "accounts",
    },
    "exchange": {"config", "core", "policy", "dialects", "flow", "upstream", "context", "instance", "accounts"},
    "passthrough": {"core", "policy", "flow", "upstream", "instance", "exchange", "accounts"},
    "edge": {
        "config", "core", "policy", "dialects", "flow", "upstream", "observe", "current", "instance", "exchange",
        "passthrough", "ui", "admin", "identity", "store",
    },
    "app": {"config", "instance", "edge"},
    "demo": {"config", "core", "flow", "context", "store", "instance", "edge", "sim"},
    "cli": {"config", "context", "app", "demo", "sim", "store", "identity", "ledger", "migrate"},
    "__main__": {"cli"},
    "__init__": set(),
}  # fmt: skip

NO_TRIO = ("core", "policy", "dialects", "config", "ui")


def room_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports_of(path):
    """``(module, line)`` for every import: those for type checkers and those in functions count as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "gateway":
                for alias in node.names:
                    yield f"gateway.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_a_room_imports_only_rooms_below_it(path):
    room = room_of(path)
    for module, line in imports_of(path):
        if not module.startswith("gateway."):
            continue
        other = module.split(".")[1]
        if other.startswith("__") or other == room:
            continue
        assert other in MAY_IMPORT[room], f"{path.name}:{line}: {room} imports {other}"


def test_the_rooms_have_no_circle():
    seen, order = set(), []

    def visit(room, path=()):
        assert room not in path, f"circle: {' → '.join([*path, room])}"
        if room not in seen:
            for other in sorted(MAY_IMPORT[room]):
                visit(other, (*path, room))
            seen.add(room)
            order.append(room)

    for room in MAY_IMPORT:
        visit(room)
    assert set(order) == {room_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_seams_hold(path):
    room, name = room_of(path), path.name
    for module, line in imports_of(path):
        top = module.split(".")[0]
        where = f"{name}:{line}: {module}"
        assert top not in ("asyncio", "anyio", "requests", "aiohttp"), where
        if top in ("quart", "quart_trio", "hypercorn", "werkzeug"):
            assert room == "edge", where
        if top == "httpx":
            assert (room == "upstream" and name == "transport.py") or room in ("context", "identity"), where
        if top == "apsw":
            assert room == "store", where
        if room in NO_TRIO:
            assert top not in ("trio", "httpx"), where


def calls_of(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_only_the_transport_seam_makes_http_clients(path):
    for call in calls_of(path):
        if ast.unparse(call.func) in ("httpx.AsyncClient", "httpx.Client"):
            assert path.name == "transport.py", f"{path.name}:{call.lineno}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_shield_without_a_deadline(path):
    tree = ast.parse(path.read_text())
    for call in calls_of(path):
        names = {keyword.arg for keyword in call.keywords}
        if "shield" in names and ast.unparse(call.func).endswith("CancelScope"):
            assert "deadline" in names, f"{path.name}:{call.lineno}: shield without a deadline"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(ast.unparse(t).endswith(".shield") for t in node.targets):
            pytest.fail(f"{path.name}:{node.lineno}: shield set where no deadline stands next to it")


SCOPES = ("open_nursery", "CancelScope", "move_on_after", "move_on_at", "fail_after", "fail_at", "Guard")


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_yield_in_a_nursery_or_scope_but_in_an_asynccontextmanager(path):
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef):
            continue
        if any(ast.unparse(d).endswith("contextmanager") for d in function.decorator_list):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.With | ast.AsyncWith) and any(
                isinstance(item.context_expr, ast.Call) and ast.unparse(item.context_expr.func).split(".")[-1] in SCOPES
                for item in node.items
            ):
                for inner in ast.walk(node):
                    assert not isinstance(inner, ast.Yield | ast.YieldFrom), f"{path.name}:{inner.lineno}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_await_in_a_finally_that_does_not_shield_itself(path):
    text = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(text))):
        if not isinstance(node, ast.Try):
            continue
        for statement in node.finalbody:
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Await):
                    line = text[inner.lineno - 1]
                    assert "shields itself" in line, f"{path.name}:{inner.lineno}: {line.strip()}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_modules_hold_no_changing_state(path):
    """A name bound at the top of a module to an empty container is a global in waiting."""
    for node in ast.parse(path.read_text()).body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.List | ast.Dict | ast.Set):
            filled = value.keys if isinstance(value, ast.Dict) else value.elts
            assert filled, f"{path.name}:{node.lineno}: an empty container at module level"
        assert not isinstance(node, ast.Global)
