import ast
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lmcourse import sandbox
from lmcourse.sandbox import BUBBLEWRAP, LIMITS_ONLY, NAMESPACES, Limits, doors, machine, world

ISOLATING = [
    pytest.param(how, marks=pytest.mark.skipif(not doors._works(how), reason=f"{how} cannot be used here"))
    for how in (NAMESPACES, BUBBLEWRAP)
]
WAYS = [LIMITS_ONLY, *ISOLATING]
MIB = 2**20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(params=WAYS)
def how(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "folder"
    place.mkdir()
    return place


@pytest.fixture
def python(folder, how):
    """Run a program text; the process has been waited for when it returns."""

    def run(source, *, how=how, **options):
        argv = [sys.executable, "-I", "-S", "-c", textwrap.dedent(source)]
        options = {"folder": folder, "how": how, "limits": Limits(seconds=10)} | options
        return sandbox.run(argv, **options)

    return run


def forked(source, folder, how, *, imports="", limits=None, **options):
    """Fork from a process of its own, as pytest's may have threads; return what the copy became."""
    limits = {"seconds": 10} | (limits or {})
    program = f"""
import json, os, signal, sys, time
from lmcourse import sandbox
{textwrap.dedent(imports)}
def work():
{textwrap.indent(textwrap.dedent(source), "    ")}
limits = sandbox.Limits(**{limits!r})
with sandbox.fork(work, folder={str(folder)!r}, how={how!r}, limits=limits, **{options!r}) as process:
    done = process.wait()
print(json.dumps([done.returncode, done.stdout, done.stderr, done.why, done.seconds]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return sandbox.Completed(*json.loads(done.stdout))


def lives(marker):
    """Whether a process with this word in its command line is left on the machine."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "stat=,args="], capture_output=True, text=True).stdout
    return any(marker in line and not line.startswith("Z") for line in listed.splitlines())


def test_a_program_gets_its_input_and_gives_its_output_and_status(python):
    done = python("import sys; print(input() * 2); print('no', file=sys.stderr); sys.exit(3)", input="ab")
    assert (done.returncode, done.stdout, done.stderr, done.why) == (3, "abab\n", "no\n", "")


def test_a_program_that_does_not_exist_is_named(folder, how):
    done = sandbox.run(["no-such-program"], folder=folder, how=how)
    assert (done.returncode, done.why) == ((127, "") if how != "bubblewrap" else (1, ""))
    assert "no-such-program" in done.stderr


def test_the_environment_is_not_inherited(python, monkeypatch, folder):
    monkeypatch.setenv("SECRET", "token")
    done = python(
        "import os; print(os.environ.get('SECRET'), os.environ['MINE'], os.environ['HOME'])",
        env={"MINE": "1"},
    )
    assert done.stdout == f"None 1 {folder}\n"


def test_os_exit_gives_its_status_and_keeps_what_was_flushed(python):
    done = python("import os; print('half', flush=True); os._exit(7)")
    assert (done.returncode, done.stdout, done.why) == (7, "half\n", "")


def test_an_endless_loop_ends_in_time(python):
    done = python("while True: pass", limits=Limits(seconds=0.5))
    assert (done.returncode, done.why) == (-signal.SIGKILL, "too slow")
    assert 0.5 <= done.seconds < 3


def test_processor_time_is_limited_over_all_processes(python):
    done = python("import os\nos.fork()\nwhile True: pass", limits=Limits(seconds=20, cpu_seconds=0.6))
    assert done.why == "too slow"
    assert done.seconds < 10


def test_ignoring_signals_does_not_help(python):
    source = """
        import signal, time
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
    """
    done = python(source, limits=Limits(seconds=0.5))
    assert done.why == "too slow"
    assert done.seconds < 3


FAMILIES = {
    "grandchildren": "os.fork(); os.fork(); sleep()",
    "a daemon forked twice": """
        if os.fork() == 0:
            if os.fork() == 0: sleep()
            os._exit(0)
        os.wait(); time.sleep(0.1)
    """,
    "a session of its own": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setpgid(0, 0); sleep()
            os._exit(0)
        os.wait(); sleep()
    """,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outlives_the_end(family, python):
    marker = f"sandbox-{os.getpid()}-{time.monotonic_ns()}"
    source = f"""
        import os, sys, time
        def sleep():
            print("up", flush=True)
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", "{marker}"])
    """
    done = python(textwrap.dedent(source) + textwrap.dedent(FAMILIES[family]), limits=Limits(seconds=1))
    assert "up" in done.stdout
    assert not lives(marker)


def test_killing_the_keeper_frees_nobody(python):
    marker = f"sandbox-{os.getpid()}-{time.monotonic_ns()}"
    source = f"""
        import os, signal, sys, time
        time.sleep(0.2)
        try:
            os.kill(os.getppid(), signal.SIGKILL)
        except ProcessLookupError:
            pass
        argv = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", "{marker}"]
        os.execv(sys.executable, argv)
    """
    python(source, limits=Limits(seconds=1))
    assert not lives(marker)


def test_memory_is_limited(python):
    source = "held = []\nwhile True: held.append(bytearray(b'x' * 2**20))"
    done = python(source, limits=Limits(seconds=10, memory=100 * MIB))
    assert done.returncode != 0
    assert done.why == "out of memory"
    assert done.memory < 250 * MIB  # the kernel's own limit stands at twice the watched one


def test_memory_is_limited_over_all_processes(python):
    source = """
        import os, time
        for _ in range(3):
            if os.fork() == 0: break
        held = b"x" * (50 * 2**20)
        time.sleep(20)
    """
    done = python(source, limits=Limits(seconds=15, memory=120 * MIB))
    assert done.why == "out of memory"


def test_one_giant_request_for_memory_is_refused(python):
    done = python("bytearray(2**40)", limits=Limits(memory=100 * MIB))
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_a_fork_bomb_is_ended(python):
    # The bomb itself stops after 200 processes: a failure of this test must not take the machine with it.
    source = """
        import os, time
        for _ in range(200):
            if os.fork() == 0:
                time.sleep(20); os._exit(0)
        time.sleep(20)
    """
    done = python(source, limits=Limits(seconds=15, processes=20))
    assert done.why == "too many processes"
    assert done.seconds < 10


@on_linux
def test_the_kernel_counts_processes_where_the_watch_is_blind(python, how):
    if os.getuid() == 0 and (how != NAMESPACES or world.linux_version() < (6, 14)):
        pytest.skip("Linux counts root's processes in namespaces since 6.14 only")
    # 301 is the smallest pid_max that Linux takes; the program itself stops at 350.
    source = """
        import os, time
        made = 0
        try:
            for _ in range(350):
                if os.fork() == 0:
                    time.sleep(20); os._exit(0)
                made += 1
        except BlockingIOError:
            print("refused", made)
    """
    done = python(source, limits=Limits(seconds=15, memory=2**34, processes=10_000, threads=60))
    assert done.stdout.startswith("refused")


def test_where_there_is_no_proc_ps_tells_of_the_family(python, monkeypatch):
    monkeypatch.setattr(machine, "processes", machine.processes_of_ps)
    marker = f"sandbox-{os.getpid()}-{time.monotonic_ns()}"
    sleeper = f"[sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)', '{marker}']"
    source = f"import os, sys\nfor _ in range(5): os.fork()\nos.execv(sys.executable, {sleeper})"
    done = python(source, limits=Limits(seconds=10, processes=20), how=LIMITS_ONLY)
    assert done.why == "too many processes"
    assert not lives(marker)
    source = "import time; held = b'x' * 10**8; time.sleep(20)"
    assert python(source, limits=Limits(memory=50 * MIB), how=LIMITS_ONLY).why == "out of memory"


def test_output_is_cut_at_its_limit(python):
    done = python("while True: print('x' * 1000)", limits=Limits(seconds=10, output=50_000))
    assert done.why == "too much output"
    assert done.stdout.startswith("xxx")
    assert len(done.stdout) == 50_000


def test_both_streams_share_the_limit_of_output(python):
    source = "import sys\nwhile True: sys.stdout.write('o' * 99); sys.stderr.write('e' * 99)"
    done = python(source, limits=Limits(seconds=10, output=50_000))
    assert len(done.stdout) + len(done.stderr) <= 50_000


def test_a_file_cannot_grow_past_its_limit(python, folder):
    done = python("open('big', 'wb').write(b'x' * 2_000_000)", limits=Limits(file_bytes=1_000_000))
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert (folder / "big").stat().st_size <= 1_000_000


def test_a_folder_cannot_be_filled_with_small_files(python):
    source = """
        import time
        for name in range(40):
            open(str(name), "wb").write(b"x" * 100_000)
        time.sleep(20)
    """
    done = python(source, limits=Limits(seconds=15, file_bytes=200_000, folder_bytes=2_000_000))
    assert done.why == "too much output"
    assert done.seconds < 5


def test_open_files_are_limited(python):
    done = python("held = [open('/dev/null') for _ in range(100)]", limits=Limits(open_files=50))
    assert "Too many open files" in done.stderr


def test_descriptors_are_not_inherited(python, tmp_path):
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        done = python(f"import os; os.fstat({secret.fileno()})")
    assert "Bad file descriptor" in done.stderr


def test_kept_descriptors_carry_events_while_it_runs(folder, how):
    reading, writing = os.pipe()
    arrived = []
    try:
        argv = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import os, time; os.write({writing}, b'one'); time.sleep(20)",
        ]
        with sandbox.start(argv, folder=folder, how=how, keep=[writing]) as process:

            def listen(data):
                arrived.append(data)
                process.kill("heard")

            done = process.wait({reading: listen})
    finally:
        os.close(reading)
        os.close(writing)
    assert arrived == [b"one"]
    assert done.why == "heard"


def test_the_caller_can_bring_the_end_nearer(folder, how):
    argv = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(30)"]
    with sandbox.start(argv, folder=folder, how=how) as process:
        process.due = time.monotonic() + 0.3
        done = process.wait()
    assert done.why == "too slow"
    assert done.seconds < 3


def test_leaving_the_block_ends_the_process(folder, how):
    marker = f"sandbox-{os.getpid()}-{time.monotonic_ns()}"
    argv = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", marker]
    with sandbox.start(argv, folder=folder, how=how):
        wait_for(lambda: lives(marker))
    assert not lives(marker)


@on_linux
def test_it_ends_with_its_parent(folder, how):
    marker = f"sandbox-{os.getpid()}-{time.monotonic_ns()}"
    program = f"""
from lmcourse import sandbox
import sys
argv = [sys.executable, "-I", "-S", "-c", "import time; print('up', flush=True); time.sleep(60)", "{marker}1"]
process = sandbox.start(argv, folder={str(folder)!r}, how={how!r}, limits=sandbox.Limits(seconds=60))
print("up", flush=True)
process.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        wait_for(lambda: lives(marker + "1"))
        parent.kill()
    wait_for(lambda: not lives(marker + "1"))


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_folder_of_its_own_is_removed_whatever_was_done_to_it(how):
    source = "import os; os.makedirs('a/b/c'); os.chmod('a/b', 0); os.chmod('a', 0); print(os.getcwd())"
    done = sandbox.run([sys.executable, "-I", "-S", "-c", source], how=how)
    assert done.returncode == 0
    assert not Path(done.stdout.strip()).exists()


def test_a_deeply_nested_folder_is_removed(how):
    source = "import os\nprint(os.getcwd())\nfor _ in range(2000): os.mkdir('d'); os.chdir('d')"
    done = sandbox.run([sys.executable, "-I", "-S", "-c", source], how=how)
    assert done.returncode == 0
    assert not Path(done.stdout.strip()).exists()


def test_removing_a_folder_follows_no_link(tmp_path, how):
    kept = tmp_path / "kept"
    kept.write_text("mine")
    with sandbox.workspace(tmp_path) as place:
        sandbox.run(
            [sys.executable, "-I", "-S", "-c", f"import os; os.symlink({str(tmp_path)!r}, 'up')"],
            folder=place,
            how=how,
        )
        assert (place / "up").is_symlink()
    assert not place.exists()
    assert kept.read_text() == "mine"


class TestIsolation:
    @pytest.fixture(params=ISOLATING)
    def how(self, request):
        return request.param

    def test_the_network_is_refused(self, python):
        with socket.create_server(("127.0.0.1", 0)) as server:
            source = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
            assert python(source, how=LIMITS_ONLY).returncode == 0  # the server is there
            done = python(source)
        assert done.returncode == 1
        assert "unreachable" in done.stderr or "refused" in done.stderr

    @pytest.mark.parametrize("deed", ["open({!r}, 'w').write('x')", "os.remove({!r})", "os.chmod({!r}, 0)"])
    def test_nothing_outside_can_be_changed(self, python, tmp_path, deed):
        file = tmp_path / "outside.txt"
        file.write_text("mine")
        before = file.stat().st_mode
        done = python("import os; " + deed.format(str(file)), readable=[tmp_path])
        assert "Read-only file system" in done.stderr
        assert (file.read_text(), file.stat().st_mode) == ("mine", before)

    def test_the_course_itself_cannot_be_changed(self, python):
        done = python(f"open({sandbox.__file__!r}, 'a')")
        assert "Read-only file system" in done.stderr

    def test_the_temporary_folder_is_private(self, python, tmp_path, folder):
        (tmp_path / "other").write_text("another learner's")
        done = python(
            f"import os; open('/tmp/new', 'w').write('x'); print(os.path.exists({str(tmp_path / 'other')!r}))"
        )
        assert (done.returncode, done.stdout) == (0, "False\n")
        assert not Path("/tmp/new").exists()

    def test_its_folder_can_be_written(self, python, folder):
        python("open('made', 'w').write('x')")
        assert (folder / "made").read_text() == "x"

    def test_the_hidden_is_hidden_and_the_rest_readable(self, python, tmp_path):
        (tmp_path / "course" / "solutions").mkdir(parents=True)
        (tmp_path / "course" / "solutions" / "one").write_text("answer")
        (tmp_path / "course" / "key").write_text("answer")
        (tmp_path / "course" / "text").write_text("read me")
        source = f"""
            import os
            os.chdir({str(tmp_path / "course")!r})
            print(open("text").read(), os.listdir("solutions"))
            around = "/proc/1/root/{tmp_path}/course/key"
            for name in ("solutions/one", "key", "../course/key", "/proc/self/cwd/key", around):
                try:
                    print(open(name).read())
                except OSError:
                    print("no")
        """
        course = tmp_path / "course"
        done = python(source, readable=[course], hidden=[course / "solutions", course / "key"])
        assert done.stdout == "read me []\n" + 5 * "no\n"

    def test_the_inner_of_two_paths_decides(self, python, tmp_path):
        (tmp_path / "class" / "data").mkdir(parents=True)
        (tmp_path / "class" / "data" / "text").write_text("read me")
        source = (
            f"import os; os.chdir({str(tmp_path / 'class')!r}); print(os.listdir(), open('data/text').read())"
        )
        done = python(source, readable=[tmp_path, tmp_path / "class" / "data"], hidden=[tmp_path / "class"])
        assert done.stdout == "['data'] read me\n"

    def test_other_processes_are_not_seen(self, python):
        done = python("import os; print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))")
        assert len(done.stdout.split(",")) <= 3

    def test_it_has_no_privileges_and_gets_none(self, python):
        source = """
            import ctypes, re
            print(re.findall(r"Cap(?:Eff|Prm|Bnd):\\t(\\w+)|NoNewPrivs:\\t(1)", open("/proc/self/status").read()))
            libc = ctypes.CDLL(None)
            print(libc.mount(b"none", b"/proc", b"tmpfs", 0, None))
        """
        lines = python(source).stdout.splitlines()
        assert lines[0].count("0000000000000000") == 3
        assert "'1'" in lines[0]
        assert lines[1] == "-1"

    def test_disks_cannot_be_opened(self, python):
        done = python("import os; print(sorted(os.listdir('/dev')))")
        assert not {
            name
            for name in ast.literal_eval(done.stdout)
            if name.startswith(("sd", "vd", "nvme", "mem", "kmsg"))
        }

    def test_the_machine_s_services_cannot_be_reached(self, python):
        assert python("import os; print(os.listdir('/run'))").stdout == "[]\n"


def test_what_is_missing_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr(doors, "_works", lambda how: False)
    for door in ("run", "fork"):
        assert sandbox.capabilities(door) == sandbox.Capabilities(False, False, False, LIMITS_ONLY)
        sentence = sandbox.missing(door)
        assert all(word in sentence for word in ("network", "files", "processes"))
    monkeypatch.setattr(doors, "_works", lambda how: True)
    assert sandbox.missing() == ""


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"seconds must be above zero; got 0"):
        Limits(seconds=0)
    with pytest.raises(ValueError, match="nowhere"):
        sandbox.run(["true"], folder=tmp_path / "nowhere", how=LIMITS_ONLY)
    with pytest.raises(ValueError, match=r"how must be one of .*; got 'jail'"):
        sandbox.run(["true"], folder=tmp_path, how="jail")
    with pytest.raises(ValueError, match=r'door must be "run" or "fork"; got \'window\''):
        sandbox.capabilities("window")


def test_a_world_that_cannot_be_made_runs_nothing(folder, monkeypatch):
    if sandbox.capabilities("fork").how != NAMESPACES:
        pytest.skip("namespaces do not work here")
    monkeypatch.setattr(machine, "real_paths", lambda paths: tuple(map(str, paths)))
    with pytest.raises(sandbox.SandboxError, match="no/such/place"):
        sandbox.run(
            [sys.executable, "-c", "open('ran', 'w')"],
            folder=folder,
            readable=["/no/such/place"],
            how=NAMESPACES,
        )
    assert not (folder / "ran").exists()


FORK_WAYS = [LIMITS_ONLY] + [NAMESPACES] * (sandbox.capabilities("fork").how == NAMESPACES)


@pytest.mark.parametrize("how", FORK_WAYS)
class TestFork:
    def test_a_copy_has_its_parent_s_modules_and_its_own_folder(self, how, folder):
        done = forked(
            "print(sys.modules['wave'].__name__, os.getcwd()); sys.exit(4)",
            folder,
            how,
            imports="import wave",
        )
        assert (done.returncode, done.stdout) == (4, f"wave {folder}\n")

    def test_an_exception_is_printed_and_fails(self, how, folder):
        done = forked("raise KeyError('lost')", folder, how)
        assert done.returncode == 1
        assert "KeyError: 'lost'" in done.stderr

    def test_an_endless_loop_and_its_children_end_in_time(self, how, folder):
        done = forked("print(os.fork(), flush=True)\nwhile True: pass", folder, how, limits={"seconds": 0.5})
        assert done.why == "too slow"
        assert done.seconds < 3

    def test_os_exit_leaves_the_parent_alone(self, how, folder):
        done = forked("os._exit(9)", folder, how)
        assert (done.returncode, done.why) == (9, "")

    def test_memory_and_output_are_limited(self, how, folder):
        bomb = "held = []\nwhile True: held.append(bytearray(b'x' * 2**20))"
        assert forked(bomb, folder, how, limits={"memory": 100 * MIB}).why == "out of memory"
        done = forked("while True: print('x' * 1000)", folder, how, limits={"output": 5000})
        assert (done.why, len(done.stdout)) == ("too much output", 5000)

    def test_descriptors_are_closed_but_those_given(self, how, folder):
        imports = "secret = open(os.devnull); reading, writing = os.pipe()"
        source = "os.write(9, b'x')\ntry: os.fstat(secret.fileno())\nexcept OSError as error: print(error.strerror)"
        imports += "; os.dup2(writing, 9)"
        done = forked(source, folder, how, imports=imports, keep=[9])
        assert done.stdout == "Bad file descriptor\n"

    def test_the_parent_s_signal_handlers_do_not_come_along(self, how, folder):
        imports = "signal.signal(signal.SIGTERM, lambda *_: print('handled'))"
        done = forked("os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)", folder, how, imports=imports)
        assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")

    def test_a_process_with_threads_is_not_copied(self, how, folder):
        imports = "import threading; threading.Thread(target=time.sleep, args=(2,), daemon=True).start()"
        call = f"sandbox.fork(print, folder={str(folder)!r}, how={how!r})"
        program = f"import time\nfrom lmcourse import sandbox\n{imports}\n{call}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (
            "SandboxError: Only a process with one thread can be copied safely; this one has 2."
            in done.stderr
        )

    def test_the_hidden_is_hidden_and_nothing_outside_changes(self, how, folder, tmp_path):
        if how == LIMITS_ONLY:
            pytest.skip("limits alone hide nothing")
        (tmp_path / "solutions").mkdir()
        (tmp_path / "solutions" / "one").write_text("answer")
        source = f"""
            print(os.listdir({str(tmp_path / "solutions")!r}))
            open("mine", "w").write("x")
            open({str(tmp_path / "folder" / ".." / "new")!r}, "w")
        """
        done = forked(source, folder, how, hidden=[str(tmp_path / "solutions")], readable=[str(tmp_path)])
        assert done.stdout == "[]\n"
        assert "Read-only file system" in done.stderr
        assert (folder / "mine").exists()
