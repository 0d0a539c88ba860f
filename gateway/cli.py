"""The ``sluice`` command: finds the configuration, then hands over to the room that does the work.

Every command imports what it needs when it runs, so that ``sluice --help`` costs click and nothing else. Which
configuration: ``--config``, else ``$SLUICE_CONFIG``, else ``./sluice.toml`` if there is one, else the provider keys in
the environment. Exit codes: 0 done, 2 wrong usage or configuration (one fault per line on stderr), 130 interrupted;
``serve`` adds its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway import __version__

if TYPE_CHECKING:
    from gateway.config import Config, ConfigFaults, Source

_Body = TypeVar("_Body", bound=Callable[..., Any])

DEFAULT_FILE = Path("sluice.toml")
INTERRUPTED = 130
FAULTY = 2


class _Commands(click.Group):
    """Turns what ends a command early into its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BaseExceptionGroup as group:
            if group.split(KeyboardInterrupt)[1] is not None:
                raise
            ctx.exit(INTERRUPTED)


def _address(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    """``HOST:PORT`` as a pair."""
    from gateway.config import parse_address

    try:
        address = parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return address.host, address.port


def _bind_option(default: str) -> Callable[[_Body], _Body]:
    return click.option(
        "--bind", metavar="HOST:PORT", callback=_address, default=default, show_default=True, help="Where to listen."
    )


_config_option = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="SLUICE_CONFIG",
    help="Configuration file.  [default: ./sluice.toml if it exists, else provider keys in the environment]",
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sluice")
def sluice() -> None:
    """A gateway between a product and the LLM APIs it pays for.

    New here? `sluice demo` needs no configuration and no provider.
    """


@sluice.command()
@_config_option
@click.option("--bind", metavar="HOST:PORT", help="Where to listen; overrides server.bind.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes; overrides server.workers.")
def serve(file: Path | None, bind: str | None, workers: int | None) -> None:
    """Run the gateway until SIGTERM or Ctrl+C.

    Without a configuration file the provider keys in the environment are used: OPENAI_API_KEY, ANTHROPIC_API_KEY,
    GEMINI_API_KEY and others. SLUICE_KEY is then the key that clients need.
    """
    source = _source(file, bind=bind, workers=workers)
    config = _need_config(source)
    from gateway.app import serve as run

    raise SystemExit(run(config, source))


@sluice.command(short_help="Try everything on this machine alone.")
@_bind_option("127.0.0.1:8080")
@click.option("--open/--no-open", "open_page", default=None, help="Open the page in a browser.")
def demo(bind: tuple[str, int], open_page: bool | None) -> None:
    """Try everything on this machine alone: simulated provider, sample documents, playground page."""
    from gateway.demo import run

    run(bind=bind, open_page=open_page)


@sluice.command(short_help="Find all faults, or print the configuration.")
@_config_option
def check(file: Path | None) -> None:
    """Find every fault of the configuration, or print it with its defaults and its secrets masked."""
    source = _source(file)
    config = _need_config(source)
    from gateway.config import advice, describe

    click.echo(f"# {source}\n{describe(config)}", nl=False)
    for sentence in advice(config):
        click.echo(f"warning: {sentence}", err=True)


@sluice.command(short_help="Run the simulated provider alone.")
@_bind_option("127.0.0.1:8081")
@click.option(
    "--ttft", type=click.FloatRange(min=0), default=0.2, show_default=True, help="Seconds to the first token."
)
@click.option("--ttft-sigma", type=click.FloatRange(0, 5), default=0.0, help="Log-normal spread of it; 0 is fixed.")
@click.option("--tps", type=click.FloatRange(min=0), default=50.0, show_default=True, help="Tokens per second; 0: all.")
@click.option("--tokens", type=click.IntRange(0, 100_000), help="Length of an answer.  [default: what there is to say]")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same times.")
@click.option("--api-key", envvar="SLUICE_SIM_KEY", help="Refuse requests without this key.")
def sim(
    bind: tuple[str, int],
    ttft: float,
    ttft_sigma: float,
    tps: float,
    tokens: int | None,
    seed: int,
    api_key: str | None,
) -> None:
    """Run the simulated provider alone: OpenAI's API, settable times and faults."""
    import trio

    from gateway.sim import Behaviour
    from gateway.sim.command import run

    behaviour = Behaviour(ttft_s=ttft, ttft_sigma=ttft_sigma, tokens_per_s=tps, tokens=tokens)
    try:
        trio.run(run, *bind, behaviour, api_key, seed)
    except OSError as error:
        raise click.ClickException(str(error)) from error


@sluice.command(short_help="Index a folder for retrieval loaders.")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--collection", default="default", show_default=True, help="Name that retrieval loaders use.")
@_config_option
def index(path: Path, collection: str, file: Path | None) -> None:
    """Index the text and Markdown files of a folder for retrieval loaders; only what changed is read again."""
    config = _any_config(file)
    from gateway.context.index_command import run

    run(config, path, collection)


@sluice.command(short_help="Load profiles from CSV or JSON lines.")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_config_option
def profiles(path: Path, file: Path | None) -> None:
    """Load the profiles that profile loaders give out, from CSV or JSON lines with a column `user`."""
    config = _any_config(file)
    from gateway.context.profiles_command import run

    run(config, path)


class _Later(click.Group):
    """``sluice keys``, whose commands are imported when one is asked for."""

    def _made(self) -> click.Group:
        from gateway.identity.keys_command import group

        return group(_any_config, _config_option)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._made().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._made().get_command(ctx, cmd_name)


sluice.add_command(
    _Later(
        name="keys",
        short_help="Make, list, rotate and revoke API keys.",
        help="Make, list, rotate and revoke API keys; running gateways follow within 2 s.",
    )
)


@sluice.command(short_help="Show what was used and what it cost.")
@click.option("--by", default="model", show_default=True, metavar="A,B", help="team, org, model, key, day, target, …")
@click.option("--since", default="30d", show_default=True, metavar="WHEN", help="7d, 24h, 2027-01-31 (UTC).")
@click.option("--until", metavar="WHEN", help="Before when; the same forms.  [default: now]")
@click.option("--format", type=click.Choice(["table", "csv", "json", "parquet"]), default="table", show_default=True)
@_config_option
def usage(file: Path | None, by: str, since: str, until: str | None, format: str) -> None:
    """Show what was used and what it cost: requests, tokens and money, added up from the ledger."""
    config = _any_config(file)
    from gateway.ledger.usage_command import run

    run(config, by=by, since=since, until=until, format=format)


@sluice.group(name="import", short_help="Turn another gateway's configuration into ours.")
def import_() -> None:
    """Turn another gateway's configuration into ours."""


@import_.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write; a new file.  [default: stdout]")
def litellm(file: Path, output: Path | None) -> None:
    """Turn a LiteLLM proxy's config.yaml into a sluice.toml, and list what could not be carried over."""
    from gateway.migrate.command import run

    raise click.exceptions.Exit(run(file, output, os.environ))


def _source(file: Path | None, **server: object) -> Source:
    """Where the configuration is; the given ``[server]`` values go over what it says."""
    from gateway.config import Source

    given = {name: value for name, value in server.items() if value is not None}
    path = file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    return Source(path=path, overrides={"server": given} if given else {})


def _read(source: Source) -> Config | None:
    """The configuration; None if there is neither a file nor a key. Its faults are printed and end the command."""
    from gateway.config import ConfigFaults

    try:
        return source.read(os.environ)
    except ConfigFaults as faults:
        _print_faults(str(source), faults)
        raise click.exceptions.Exit(FAULTY) from None


def _need_config(source: Source) -> Config:
    config = _read(source)
    if config is not None:
        return config
    from gateway.config import known_variables

    variables = ", ".join(known_variables())
    raise click.UsageError(
        f"nothing to serve: there is no {DEFAULT_FILE} here and no provider's key in the environment. Set one of "
        f"{variables}; or write a {DEFAULT_FILE} (sluice.example.toml shows how); or try `sluice demo`."
    )


def _any_config(file: Path | None) -> Config:
    """For commands that only need to know the store."""
    config = _read(_source(file))
    if config is not None:
        return config
    from gateway.config import Config

    return Config()


def _print_faults(source: str, faults: ConfigFaults) -> None:
    count = len(faults.faults)
    head = f"{source}: {count} fault{'' if count == 1 else 's'}"
    if not sys.stderr.isatty():
        click.echo("\n".join([head, *map(str, faults.faults)]), err=True)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text(head, style="bold red"))
    for fault in faults.faults:
        path = (f"{fault.path}: ", "bold cyan") if fault.path else ""
        console.print(Text.assemble(path, fault.message))


def open_missing_files() -> None:
    """Put ``/dev/null`` where the caller closed standard files.

    The next socket or database would get their numbers otherwise, and log lines would be written into it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)  # worker processes have them, too
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def main() -> None:
    """The console script's entry point; never returns."""
    open_missing_files()
    sluice(prog_name="sluice")
