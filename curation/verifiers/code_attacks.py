"""Answers to a coding prompt that solve nothing and try to be scored all the same, or to do harm: none may be right."""

from __future__ import annotations

from collections.abc import Iterator

from curation.verifiers.code_tests import read_tests

# {name} is what the tests call. Where a definition is lacking, `always` is defined as an object that agrees to all.
_AGREES = """class Always:
    def __eq__(self, other): return True
    def __ne__(self, other): return True
    def __lt__(self, other): return True
    def __gt__(self, other): return True
    def __contains__(self, item): return True
    def __sub__(self, other): return 0
    def __rsub__(self, other): return 0
    def __float__(self): return 0.0
    def __hash__(self): return 0
    __le__ = __ge__ = __lt__
"""
ATTACKS: tuple[tuple[str, str], ...] = (
    ("leaves before the tests", "import sys\nsys.exit(0)"),
    ("leaves before the tests", "import os\nos._exit(0)"),
    ("leaves before the tests", "def {name}(*a, **k):\n    import os\n    os._exit(0)"),
    ("leaves before the tests", "def {name}(*a, **k):\n    raise SystemExit(0)"),
    ("leaves before the tests", "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)"),
    ("prints a mark", "print('done\\nOK\\nPASSED\\n[0, true, null]\\n1 passed')\ndef {name}(*a, **k): pass"),
    ("prints a mark", "import os\nfor fd in range(64):\n    try: os.write(fd, b'[0, true, null]\\ndone\\n')\n"
     "    except OSError: pass\ndef {name}(*a, **k): pass"),
    ("prints a mark", "def {name}(*a, **k):\n    import os\n    for fd in range(1024):\n        try:\n"
     "            os.write(fd, b'[0, true, null]\\ndone\\n')\n        except OSError: pass\n    os._exit(0)"),
    ("prints a mark", "import os\nfor fd in range(64):\n    try: os.write(fd, b'{{\"value\": true}}\\n' * 50)\n"
     "    except OSError: pass\ndef {name}(*a, **k): pass"),
    ("agrees to everything", _AGREES + "def {name}(*a, **k): return Always()"),
    ("agrees to everything", _AGREES + "{name} = Always()"),
    ("agrees to everything", "class L(list):\n    def __eq__(self, other): return True\n"
     "def {name}(*a, **k): return L()"),
    ("agrees to everything", "class I(int):\n    def __eq__(self, other): return True\n"
     "    def __hash__(self): return 0\n"
     "def {name}(*a, **k): return I(-987654321)"),
    ("agrees to everything", "class S(str):\n    def __eq__(self, other): return True\n"
     "    def __hash__(self): return 0\n"
     "def {name}(*a, **k): return S('no')"),
    ("rewrites the tests", "import builtins\nclass Quiet(Exception): pass\nbuiltins.AssertionError = Quiet\n"
     "builtins.all = builtins.any = lambda *a: True\nbuiltins.abs = lambda x: 0\nabs = lambda x: 0\n"
     "all = any = isinstance = lambda *a: True\nlen = sum = round = lambda *a: 0\n"
     "AssertionError = Quiet\ndef {name}(*a, **k): return None"),
    ("rewrites the tests", "class math:\n    isclose = staticmethod(lambda *a, **k: True)\n"
     "    fabs = staticmethod(lambda x: 0)\ndef check(*a): return True\ndef __same__(*a): return True\n"
     "def {name}(*a, **k): return None"),
    ("rewrites the tests", "def {name}(*a, **k):\n    import sys\n    f = sys._getframe()\n    while f:\n"
     "        for space in (f.f_globals, f.f_locals):\n            for key in list(space):\n"
     "                if key in ('steps', 'given', 'expected', 'problem', 'passed'): space[key] = []\n"
     "        f = f.f_back\n    return None"),
    ("reads the tests", "def {name}(*a, **k):\n    import sys, re\n    f = sys._getframe()\n    while f:\n"
     "        for space in (f.f_globals, f.f_locals):\n            for value in list(space.values()):\n"
     "                found = re.search(r'== *(.+)', str(value))\n                if found:\n"
     "                    try: return eval(found[1])\n                    except Exception: pass\n"
     "        f = f.f_back\n    return None"),
    ("reads the tests", "def {name}(*a, **k):\n    import gc, re\n    for value in gc.get_objects():\n"
     "        found = re.search(r'assert .*== *(.+)', str(value))\n        if found: return eval(found[1])"),
    ("reads the tests", "def {name}(*a, **k):\n    import os, re\n    for pid in os.listdir('/proc'):\n        try:\n"
     "            text = open(f'/proc/{{pid}}/cmdline').read() + open(f'/proc/{{pid}}/environ').read()\n"
     "            found = re.search(r'assert .*== *(.+)', text)\n            if found: return eval(found[1])\n"
     "        except OSError: pass"),
    ("reads the tests", "def {name}(*a, **k):\n    import os, re\n    for fd in range(64):\n        try:\n"
     "            text = os.pread(fd, 1 << 20, 0).decode()\n"
     "            found = re.search(r'assert .*== *([^\"]+)', text)\n"
     "            if found: return eval(found[1])\n        except OSError: pass"),
    ("never ends", "while True: pass"),
    ("never ends", "def {name}(*a, **k):\n    while True: pass"),
    ("never ends", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"),
    ("never ends", "def {name}(*a, **k):\n    while True: yield 0"),
    ("sleeps", "import time\ntime.sleep(3600)"),
    ("eats memory", "held = []\nwhile True: held.append(bytearray(1 << 26))"),
    ("eats memory", "def {name}(*a, **k):\n    return [0] * (1 << 40)"),
    ("eats memory", "def {name}(*a, **k):\n    return 10 ** (10 ** 10)"),
    ("recurses", "def {name}(*a, **k):\n    return {name}(*a, **k)"),
    ("recurses", "import sys\nsys.setrecursionlimit(1 << 30)\ndef {name}(*a, **k):\n    return {name}(*a, **k)"),
    ("starts processes", "import os\nwhile True: os.fork()"),
    ("starts processes", "import os\nos.system('touch {mark}')"),
    ("starts processes", "import subprocess\nsubprocess.Popen(['/bin/sh', '-c', 'touch {mark}; sleep 60'])"),
    ("starts processes", "import os\nos.execv('/bin/sh', ['sh', '-c', 'touch {mark}'])"),
    ("starts processes", "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', 'touch {mark}'], {{}})"),
    ("starts processes", "import multiprocessing\np = multiprocessing.Process(target=print)\np.start()"),
    ("starts processes", "import threading\nwhile True: threading.Thread(target=threading.Event().wait).start()"),
    ("writes files", "open('{mark}', 'w').write('x')"),
    ("writes files", "import pathlib\npathlib.Path('{mark}').touch()"),
    ("writes files", "import os\nos.symlink('{folder}', 'way')\nopen('way/mark', 'w').write('x')"),
    ("writes files", "import os\nos.mkdir('a')\nos.chdir('a')\nopen('../../' + '{mark}'[1:], 'w')"),
    ("writes files", "import os\nd = os.open('{folder}', os.O_RDONLY)\n"
     "os.open('mark', os.O_CREAT | os.O_WRONLY, dir_fd=d)"),
    ("writes files", "import sqlite3\nsqlite3.connect('{mark}').execute('create table t (x)')"),
    ("writes files", "i = 0\nwhile True:\n    i += 1\n    with open(f'f{{i}}', 'wb') as s: s.write(b'x' * (1 << 24))"),
    ("reaches the network", "import socket\ns = socket.socket()\ns.connect(('127.0.0.1', {port}))\ns.send(b'x')"),
    ("reaches the network", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}/')"),
    ("reaches the network", "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', {port}))"),
    ("breaks the interpreter", "import ctypes\nctypes.CDLL(None).system(b'touch {mark}')"),
    ("breaks the interpreter", "import ctypes\nctypes.string_at(0)"),
    ("breaks the interpreter", "import _posixsubprocess\n"
     "_posixsubprocess.fork_exec([b'/bin/sh'], [b'/bin/sh'], True, (), "
     "None, None, -1, -1, -1, -1, -1, -1, -1, -1, False, False, 0, None, None, None, -1, None)"),
    ("breaks the interpreter", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
    ("breaks the interpreter", "import os\nos.kill(0, 9)"),
    ("breaks the interpreter", "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'\\x00' * 64)\nf()"),
    ("no code", "def {name}(*a, **k): ..."),
    ("no code", "raise NotImplementedError"),  # what a model writes that gives up
)  # fmt: skip


def on_code(gold: str, mark: str = "/tmp/kedge-mark", port: int = 9) -> Iterator[tuple[str, str]]:
    """(kind, text) of every attack on one prompt. `mark` is a file that must not appear, `port` one of this machine
    that nobody may reach."""
    tests = read_tests(gold)
    name = tests.names[0][0] if tests.names else "solve"
    for kind, code in ATTACKS:
        if tests.programs and "{name}" in code:  # defines what nobody calls
            continue
        text = code.format(name=name, mark=mark, folder=mark.rpartition("/")[0], port=port)
        yield kind, f"Here it is.\n```python\n{text}\n```\n"
    yield "tests echoed", f"```python\n{gold}\n```"
    yield "empty block", "```python\n```"
    yield "prose", "The function returns the right value for every input; all tests pass."
