"""Children that end with their parent, however that ends: the test harness watches one process a server."""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent):
    """Asks the kernel to kill this process when its parent is gone, and looks whether that has happened already."""
    if LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'prctl')
    if os.getppid() != parent:
        os._exit(1)


def start(command):
    """Starts a program as such a child."""
    parent = os.getpid()
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=lambda: die_with_parent(parent)).pid


def fork(name, run):
    """Runs a function in such a child; what this process has imported need not be imported again."""
    parent = os.getpid()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with_parent(parent)
        status = run()
    except BaseException as error:  # a child must never go on as its parent
        print(f'{name}: {type(error).__name__}: {error}', file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(status or 0)


def wait_for_any(names):
    """Waits until one of the children (a dict from id to name) ends, which none of them should."""
    pid, status = os.wait()
    print(f'{names.get(pid, pid)} has ended with {os.waitstatus_to_exitcode(status)}', file=sys.stderr, flush=True)
    return 1
