"""Child processes that end with their parent in any case: the test harness watches one process for each server."""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent):
    """Asks the kernel to kill this process when its parent ends, and checks that it has not ended already."""
    if LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'prctl')
    if os.getppid() != parent:
        os._exit(1)


def start(command):
    """Starts a program as a child."""
    parent = os.getpid()
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=lambda: die_with_parent(parent)).pid


def fork(name, run):
    """Runs a function in a child, which has the imports of this process."""
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
    """Waits until one of the children (a dict from id to name) ends unexpectedly."""
    pid, status = os.wait()
    print(f'{names.get(pid, pid)} ended with {os.waitstatus_to_exitcode(status)}', file=sys.stderr, flush=True)
    return 1
