"""The command line: what it answers before any subcommand runs, and what it makes of their endings."""

import argparse
import concurrent.futures
import importlib
import os
import signal
import subprocess
import sys
import time
import types

import pytest

import lmcourse
from lmcourse import cli


@pytest.fixture
def fake_command(monkeypatch):
    """Put a subcommand `fake` in the table, whose `run` is the function given."""

    def install(run, add_arguments=lambda parser: None):
        module = types.ModuleType("fake_command")
        module.run, module.add_arguments = run, add_arguments
        monkeypatch.setitem(sys.modules, "fake_command", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command", "do nothing"))

    return install


@pytest.mark.parametrize(
    "statement",
    [
        "import lmcourse, lmcourse.text, lmcourse.datasets, lmcourse.generation",
        "from lmcourse.cli import main\ntry: main(['--help'])\nexcept SystemExit as end: assert not end.code",
        "import lmcourse.commands.doctor, lmcourse.commands.lab, lmcourse.scale, lmcourse.colab",
    ],
    ids=["foundations", "help", "setup"],
)
def test_starting_up_imports_no_tensorflow(statement):
    heavy = "[name for name in ('tensorflow', 'keras', 'tensorflow_text') if name in sys.modules]"
    code = f"{statement}\nimport sys\nsys.exit(str({heavy}) if {heavy} else 0)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if f"\n    {name} " not in printed] == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there_and_explains_itself(name, capsys):
    module = importlib.import_module(cli.COMMANDS[name][0])
    assert callable(module.add_arguments)
    assert callable(module.run)
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: lmcourse {name}")


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"lmcourse {lmcourse.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["teleport"], "invalid choice: 'teleport'"),
        (["doctor", "--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_a_wrong_call_ends_with_two_and_a_reason(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_arguments_of_another_program_are_handed_on_in_their_order():
    argv = ["lab", "--no-browser", "--port", "8899", "--ip=0.0.0.0"]
    args = cli.parse(cli.build_parser("lab"), argv)
    assert args.extra_arguments == argv[1:]


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_the_commands_status_is_the_programs(fake_command, returned, status):
    fake_command(lambda args: returned)
    assert cli.main(["fake"]) == status


def test_a_usage_error_is_one_line_and_status_two(fake_command, capsys):
    def run(args):
        raise cli.UsageError("chapter must be 01 to 10; got 11.")

    fake_command(run)
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err == "lmcourse fake: chapter must be 01 to 10; got 11.\n"


def test_ctrl_c_is_one_line_and_status_130(fake_command, capsys):
    def run(args):
        raise KeyboardInterrupt

    fake_command(run)
    assert cli.main(["fake"]) == 130  # 128 + SIGINT, as shells have it
    assert capsys.readouterr().err == "\nlmcourse fake: interrupted\n"


def test_a_plain_kill_ends_a_command_as_ctrl_c_does(fake_command, capsys):
    cleaned = []

    def run(args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    # Without the command's own handler this one is called, and not the end of the tests.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        fake_command(run)
        assert cli.main(["fake"]) == 130
        assert cleaned
        assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_commands_run_outside_the_main_thread(fake_command):
    fake_command(lambda args: 1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(cli.main, ["fake"]).result() == 1


def test_only_the_command_that_is_called_is_imported(fake_command):
    def refuse(parser: argparse.ArgumentParser):
        raise AssertionError("the arguments of a command that was not called were asked for")

    fake_command(lambda args: 0, add_arguments=refuse)
    assert cli.build_parser("lab").parse_args(["lab"]).command == "lab"
