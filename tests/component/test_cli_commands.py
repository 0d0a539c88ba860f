"""What each ``sluice`` command finds, hands over, prints and exits with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway import __version__
from gateway.cli import sluice
from gateway.config import Config, known_variables
from gateway.sim import Behaviour

Run = Callable[..., Result]

CONFIG = """
[server]
bind = "127.0.0.1:9999"
[[provider]]
name = "openai"
base_url = "https://api.openai.com/v1"
api_key = "${MY_KEY}"
[[model]]
name = "chat"
targets = [{ provider = "openai", model = "gpt-4o-mini" }]
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty folder with no provider key in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("SLUICE_CONFIG", "SLUICE_KEY", "SLUICE_SIM_KEY", *known_variables()):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str, **environ: str) -> Result:
        return CliRunner().invoke(sluice, arguments, env=environ, prog_name="sluice")

    return invoke


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the commands hand over: each module behind them is replaced by one that only writes its arguments down."""
    calls: list[Any] = []

    def put(module: str, name: str, result: int = 0) -> None:
        def call(*args: Any, **kwargs: Any) -> int:
            calls.append((args, kwargs))
            return result

        stand_in = ModuleType(module)
        setattr(stand_in, name, call)
        monkeypatch.setitem(sys.modules, module, stand_in)

    put("gateway.app", "serve", result=7)
    put("gateway.demo", "run")
    put("gateway.context.index_command", "run")
    put("gateway.context.profiles_command", "run")
    return calls


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["serve", "-h"], ["sim", "--help"]])
def test_help_is_there_for_every_way_to_ask(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: sluice")


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").stdout == f"sluice, version {__version__}\n"


def test_check_prints_the_configuration_masked_and_its_warnings_apart(run: Run) -> None:
    Path("sluice.toml").write_text(CONFIG)
    result = run("check", MY_KEY="sk-hidden")
    assert result.exit_code == 0
    assert result.stdout.startswith("# sluice.toml\n")
    assert 'bind = "127.0.0.1:9999"' in result.stdout
    assert "max_wait_s = 5.0" in result.stdout
    assert "sk-hidden" not in result.output
    assert result.stderr == (
        "warning: no [[key]]: the gateway answers on loopback only, and everybody on this machine may use it\n"
    )


def test_faults_go_to_stderr_one_per_line_with_count_and_file(run: Run) -> None:
    Path("other.toml").write_text("[server]\nbimd = 'x'\n[admission]\nqueue = -1\n")
    result = run("check", "--config", "other.toml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "other.toml: 2 faults\nserver.bimd: unknown field; did you mean 'bind'?\nadmission.queue: must be at least 0\n"
    )


def test_a_missing_file_is_one_fault(run: Run) -> None:
    result = run("serve", "--config", "none.toml")
    assert (result.exit_code, result.stderr) == (
        2,
        "none.toml: 1 fault\ncannot be read: No such file or directory\n",
    )


@pytest.mark.parametrize("command", ["serve", "check"])
def test_without_file_and_keys_the_ways_out_are_named(run: Run, command: str) -> None:
    result = run(command)
    assert result.exit_code == 2
    assert "OPENAI_API_KEY" in result.stderr
    assert "sluice demo" in result.stderr


def test_serve_takes_the_file_of_the_folder_and_the_options_over_it(run: Run, taken: list[Any]) -> None:
    Path("sluice.toml").write_text(CONFIG)
    result = run("serve", "--bind", "[::1]:80", "--workers", "3", MY_KEY="k", OPENAI_API_KEY="not used")
    assert result.exit_code == 7
    [((config, _source), _)] = taken
    assert (config.server.bind, config.server.workers) == ("[::1]:80", 3)
    assert [model.name for model in config.model] == ["chat"]


def test_the_environments_file_comes_before_the_folders(run: Run, taken: list[Any]) -> None:
    Path("sluice.toml").write_text("not = 'read'")
    Path("mine.toml").write_text("admission.queue = 3")
    run("serve", SLUICE_CONFIG="mine.toml")
    [((config, _source), _)] = taken
    assert config.admission.queue == 3


def test_serve_without_a_file_uses_the_provider_keys(run: Run, taken: list[Any]) -> None:
    run("serve", "--bind", "0.0.0.0:80", GEMINI_API_KEY="g", SLUICE_KEY="sk-mine")
    [((config, _source), _)] = taken
    assert [provider.name for provider in config.provider] == ["gemini"]
    assert config.server.bind == "0.0.0.0:80"


def test_serve_refuses_an_open_address_without_a_key(run: Run, taken: list[Any]) -> None:
    result = run("serve", "--bind", "0.0.0.0:80", GEMINI_API_KEY="g")
    assert result.exit_code == 2
    assert result.stderr.startswith("provider keys in the environment: 1 fault\nserver.bind: '0.0.0.0:80' can be")
    assert taken == []


@pytest.mark.parametrize(("arguments", "open_page"), [([], None), (["--open"], True), (["--no-open"], False)])
def test_demo_hands_over_where_to_listen(run: Run, taken: list[Any], arguments: list[str], open_page: bool) -> None:
    assert run("demo", "--bind", "127.0.0.1:0", *arguments).exit_code == 0
    assert taken == [((), {"bind": ("127.0.0.1", 0), "open_page": open_page})]


def test_an_address_that_is_none_is_wrong_usage(run: Run, taken: list[Any]) -> None:
    result = run("demo", "--bind", "8080")
    assert result.exit_code == 2
    assert "expected HOST:PORT, as in 127.0.0.1:8080 or [::1]:8080" in result.stderr
    assert taken == []


def test_index_and_profiles_need_no_configuration(run: Run, taken: list[Any]) -> None:
    Path("docs").mkdir()
    Path("users.csv").touch()
    assert run("index", "docs").exit_code == 0
    assert run("profiles", "users.csv").exit_code == 0
    assert [args for args, _ in taken] == [(Config(), Path("docs"), "default"), (Config(), Path("users.csv"))]


def test_index_hands_over_collection_and_store(run: Run, taken: list[Any]) -> None:
    Path("docs").mkdir()
    Path("sluice.toml").write_text('store.url = "sqlite:///mine.db"')
    assert run("index", "docs", "--collection", "handbook").exit_code == 0
    [((config, path, collection), _)] = taken
    assert (config.store.url, path, collection) == ("sqlite:///mine.db", Path("docs"), "handbook")


def test_what_is_to_be_loaded_must_exist(run: Run, taken: list[Any]) -> None:
    assert [run("index", "none").exit_code, run("profiles", "none").exit_code, taken] == [2, 2, []]


def test_sim_hands_over_its_behaviour(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    async def note(*args: Any) -> None:
        calls.append(args)

    monkeypatch.setattr("gateway.sim.command.run", note)
    arguments = "--bind [::1]:0 --ttft 1.5 --ttft-sigma 0.5 --tps 9 --tokens 12 --seed 4 --api-key k"
    assert run("sim", *arguments.split()).exit_code == 0
    assert calls == [
        ("::1", 0, Behaviour(ttft_s=1.5, ttft_sigma=0.5, tokens_per_s=9.0, tokens=12), "k", 4),
    ]


@pytest.mark.parametrize(
    "interruption",
    [KeyboardInterrupt(), BaseExceptionGroup("", [BaseExceptionGroup("", [KeyboardInterrupt()])])],
)
def test_an_interrupted_command_exits_130_and_says_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    async def interrupted(*args: Any) -> None:
        raise interruption

    monkeypatch.setattr("gateway.sim.command.run", interrupted)
    result = run("sim")
    assert (result.exit_code, result.output) == (130, "")


def test_other_errors_are_not_taken_for_an_interruption(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: Any) -> None:
        raise BaseExceptionGroup("both", [KeyboardInterrupt(), RuntimeError("broken")])

    monkeypatch.setattr("gateway.sim.command.run", broken)
    with pytest.raises(BaseExceptionGroup):
        run("sim")


def test_a_taken_address_is_said_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*args: Any) -> None:
        raise OSError("cannot listen on 127.0.0.1:80: Address already in use")

    monkeypatch.setattr("gateway.sim.command.run", refused)
    result = run("sim")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: cannot listen on 127.0.0.1:80: Address already in use\n",
    )


def test_the_real_process_is_interrupted_quietly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "sim", "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("simulated provider on http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")


def test_help_loads_no_framework(tmp_path: Path) -> None:
    """The measure of start-up that does not depend on the machine: what was imported."""
    program = (
        "import sys\nfrom gateway.cli import sluice\nsluice(['--help'], standalone_mode=False)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    heavy = ["trio", "quart", "hypercorn", "httpx", "rich", "attrs", "attr", "apsw", "cryptography", "asyncio"]
    done = subprocess.run(
        [sys.executable, "-c", program, *heavy],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_files_that_the_caller_closed_are_nothing_and_no_socket(tmp_path: Path, closed: str) -> None:
    program = (
        "import os, socket, sys\nfrom gateway.cli import open_missing_files\nopen_missing_files()\n"
        "print('out', flush=True)\nprint('err', file=sys.stderr, flush=True)\n"
        "told = [socket.socket().fileno() > 2, *map(os.get_inheritable, range(3))]\n"
        "open('told', 'w').write(repr(told))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert (tmp_path / "told").read_text() == "[True, True, True, True]"
