"""The command line: a skin. Parse, build a config, call one stage, show its result. Heavy imports stay inside."""

import signal
from typing import Annotated

import typer

from cxrmine import __version__, console
from cxrmine.commands import guard
from cxrmine.commands.check import check
from cxrmine.commands.demo import demo
from cxrmine.commands.mine import mine
from cxrmine.commands.pack import pack
from cxrmine.commands.phantom import phantom
from cxrmine.commands.predict import predict
from cxrmine.commands.refine import refine
from cxrmine.commands.score import score
from cxrmine.commands.severity import severity
from cxrmine.commands.train import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    show_traceback: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Mine disease boxes from chest X-rays that have only image-level labels, and measure how good they are.

    Start with: cxrmine demo
    """
    guard.debug = show_traceback
    signal.signal(signal.SIGTERM, guard.stop)
    if version:
        console.say(f"cxrmine {__version__}")
        raise typer.Exit


for command in (demo, phantom, check, pack, train, predict, mine, refine, score, severity):
    app.command()(guard.guarded(command))
