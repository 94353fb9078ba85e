"""What might be handed in by accident or in bad faith, and what becomes of it.

Every submission answers three exercises: `double` (1 point), `last` (2 points) and `mean` (1 point). Bombs are bounded:
where a limit fails, they end by themselves.
"""

import dataclasses

DOUBLE = "def double(number):\n    return 2 * number"
LAST = "def last(values):\n    return values[-1]"
MEAN = "def mean(values):\n    return sum(values) / len(values)"
WRONG_DOUBLE = "def double(number):\n    return number"


@dataclasses.dataclass(frozen=True)
class Hostile:
    """A submission.

    Attributes:
        cells: its code. $OUTSIDE, $PORT, $SOLUTIONS and $CHECKS stand for places that are not its own.
        points: what it earns, of 4.
        flag: a part of what a human is told; "" where nothing is.
        isolated: that it may only run where namespaces or bubblewrap isolate it.
    """

    cells: tuple[str, ...]
    points: float = 4
    flag: str = ""
    isolated: bool = False


def prank(cell: str, flag: str = "", isolated: bool = False) -> Hostile:
    """Do something, then answer everything right."""
    return Hostile((cell, DOUBLE, LAST, MEAN), 4, flag, isolated)


def answer(body: str, flag: str = "", before: str = "pass", isolated: bool = False) -> Hostile:
    """Answer `double` in a way that must earn nothing, and the others right."""
    lines = "".join(f"\n    {line}" for line in body.splitlines())
    return Hostile((before, f"def double(number):{lines}", LAST, MEAN), 3, flag, isolated)


def patch(cell: str, flag: str, wrong: str = WRONG_DOUBLE) -> Hostile:
    """Patch what tests rely on, then answer one exercise wrong."""
    return Hostile((cell, wrong, LAST, MEAN), 3, flag)


FORGED = """import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b'\\n{"event": "outcome", "test": "test_double", "state": "passed"}\\n')
    except OSError:
        pass"""

ANYTHING = """class Anything:
    __hash__ = None
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False"""

UNPRINTABLE = """class Unprintable:
    def __repr__(self):
        raise SystemExit
    __str__ = __format__ = __eq__ = __len__ = __iter__ = __repr__"""

SUBMISSIONS = {
    "all right": Hostile((DOUBLE, LAST, MEAN)),
    "endless loop in a cell": prank("while True:\n    pass"),
    "endless loop in an answer": answer("while True:\n    pass"),
    "loop that catches everything": answer(
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    ),
    "sleeping answer": answer("import time\ntime.sleep(60)"),
    "blocked alarm": answer(
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\nwhile True:\n    pass",
        "signal",
        "import signal",
    ),
    "ignored signals": answer(
        "for number in (signal.SIGALRM, signal.SIGTERM):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "while True:\n    pass",
        "signal",
        "import signal",
    ),
    "fork bomb": prank(
        "import os, time\n"
        "for _ in range(100):\n    if os.fork() == 0:\n        time.sleep(20)\n        os._exit(0)\n"
        "time.sleep(20)",
        "os.fork",
    ),
    "memory bomb": answer("kept = [bytearray(b'x' * 50_000_000) for _ in range(24)]\nreturn 2 * number"),
    "memory bomb in a cell": prank("kept = [bytearray(b'x' * 50_000_000) for _ in range(24)]"),
    "huge file": prank(
        "with open('huge', 'wb') as file:\n    for _ in range(200):\n        file.write(bytes(1_000_000))"
    ),
    "os._exit in a cell": prank("import os\nos._exit(0)", "os._exit"),
    "os._exit in an answer": answer("import os\nos._exit(0)", "os._exit"),
    "sys.exit": answer("import sys\nsys.exit(0)", "sys.exit"),
    "keyboard interrupt": prank("raise KeyboardInterrupt"),
    "segmentation fault": answer("import ctypes\nctypes.string_at(0)", "ctypes"),
    "kills its own process": answer("import os\nos.kill(os.getpid(), 9)", "os.kill"),
    "kills its parent": prank("import os\nos.kill(os.getppid(), 9)", "os.kill", isolated=True),
    "deletes files": prank(
        "import shutil\nshutil.rmtree('$OUTSIDE', ignore_errors=True)\nshutil.rmtree('.', ignore_errors=True)",
        "shutil.rmtree",
        isolated=True,
    ),
    "writes outside": prank("open('$OUTSIDE/precious', 'w').write('gone')", isolated=True),
    "writes a new file outside": prank("open('$OUTSIDE/new', 'w').write('here')", isolated=True),
    "network": answer(
        "connection = socket.create_connection(('127.0.0.1', $PORT), 2)\nconnection.send(b'x')\nreturn 2 * number",
        "socket",
        "import socket",
        isolated=True,
    ),
    "reads the solutions": Hostile(
        ("solution = open('$SOLUTIONS/ch01_ngram.ipynb').read()\n" + DOUBLE, LAST, MEAN),
        3,
        "the path",
        isolated=True,
    ),
    "reads the checks": Hostile(
        ("import os\nassert os.listdir('$CHECKS')\n" + DOUBLE, LAST, MEAN), 3, "the path", isolated=True
    ),
    "patches numpy.allclose": Hostile(
        (
            "import numpy as np\nnp.allclose = lambda *a, **k: True",
            DOUBLE,
            LAST,
            "def mean(values):\n    return 0",
        ),
        3,
        "numpy.allclose",
    ),
    "patches numpy in disguise": Hostile(
        (
            "np = __import__('nu' + 'mpy')\nvars(np)['allclose'] = any",
            DOUBLE,
            LAST,
            "def mean(values):\n    return 0",
        ),
        3,
        "numpy.allclose",
    ),
    "replaces a module": patch(
        "import sys, types\nsys.modules['numpy'] = types.ModuleType('numpy')", "sys.modules"
    ),
    "patches check": patch(
        "import lmcourse.grading\n"
        "lmcourse.grading.check = lmcourse.grading.assert_equal = print\n"
        "lmcourse.grading.assertions.assert_equal = print",
        "lmcourse.grading.assert_equal",
    ),
    "patches the code of an assertion": patch(
        "from lmcourse.grading import assert_equal\nassert_equal.__code__ = (lambda *a: None).__code__",
        "assert_equal",
    ),
    "patches pytest": patch("import pytest\npytest.fail = pytest.raises = print", "pytest.fail"),
    "patches builtins": patch(
        "import builtins\nbuiltins.isinstance = lambda *a: True", "builtins.isinstance"
    ),
    "equal to everything": answer("return Anything()", before=ANYTHING),
    "a number equal to everything": answer(
        "return Six(7)",
        before="class Six(int):\n    __hash__ = int.__hash__\n    def __eq__(self, other):\n        return True",
    ),
    "raises on repr": answer("return Unprintable()", before=UNPRINTABLE),
    "raises what raises on str": answer(
        "raise Odd",
        before="class Odd(Exception):\n    def __str__(self):\n        raise Odd\n    __repr__ = __str__",
    ),
    "leaves pytest": answer("import pytest\npytest.exit('passed')"),
    "skips the test": answer("import pytest\npytest.skip('passed')"),
    "deep recursion": answer("return double(number)"),
    "deep recursion without a limit": answer(
        "return double(number)", before="import sys\nsys.setrecursionlimit(10**8)"
    ),
    "deeply nested code": prank("x = " + "(" * 500 + ")" * 500),
    "wrong types": answer("return '6'"),
    "not a function": Hostile(("double = 6", LAST, MEAN), 3),
    "syntax error": Hostile(("def double(number:\n    return 2", LAST, MEAN), 3),
    "null byte": Hostile(("double = '\0'", LAST, MEAN), 3),
    "cells out of order": Hostile((f"mean([1])\n{DOUBLE}", "last = later", LAST, MEAN, "later = 1"), 3),
    "huge output": prank(
        "import sys\nfor _ in range(100):\n    print('x' * 1_000_000)\n    sys.stderr.write('x' * 100_000)"
    ),
    "huge message": answer("raise ValueError('x' * 50_000_000)"),
    "floods the events": prank(
        "import os\nfor descriptor in range(3, 64):\n"
        "    try:\n        for _ in range(50):\n            os.write(descriptor, b'x' * 1_000_000)\n"
        "    except OSError:\n        pass",
        "os.write",
    ),
    "forged events": answer(f"{FORGED}\nos._exit(0)", "os.write"),
    "closes descriptors": prank("import os\nos.closerange(0, 64)", "os.closerange"),
    "atexit": patch("import atexit, os\natexit.register(lambda: os._exit(0))", "atexit"),
    "threads left running": prank(
        "import threading\ndef spin():\n    while True:\n        pass\n"
        "for _ in range(3):\n    threading.Thread(target=spin).start()",
        "threading",
    ),
    "daemon": prank(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0:\n        time.sleep(20)\n    os._exit(0)",
        "os.setsid",
    ),
    "modules beside it": prank(
        "import os\nos.mkdir('lmcourse')\n"
        "for name in ('lmcourse/__init__.py', 'conftest.py', 'pytest.py', 'pytest_timeout.py', 'numpy.py'):\n"
        "    open(name, 'w').write('raise SystemExit')"
    ),
    "changes folder and environment": prank(
        "import os, sys\nos.chdir('/')\nos.environ.clear()\nsys.path.clear()\nsys.argv.clear()", "os.environ"
    ),
    "page in a message": answer("raise ValueError('<script>alert(1)</script><img src=x onerror=alert(1)>')"),
    "lmcourse's own version": prank(
        "from lmcourse.core import perplexity\ndef helper():\n    return perplexity", ""
    ),
}
