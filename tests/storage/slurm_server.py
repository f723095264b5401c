"""A Slurm cluster of one node on 127.0.0.1: munged, slurmctld and slurmd, as the user who runs it.

The jobs are descendants of this process: it adopts those whose parents end, and kills them all when it is ended.
"""

import argparse
import getpass
import os
import pathlib
import secrets
import signal
import socket
import sys
import time

import children

PR_SET_CHILD_SUBREAPER = 36

# The node claims more processors than the machine may have, so that several tasks run at once. There are no control groups, because
# a container may not make them.
SLURM_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4096 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--home', type=pathlib.Path, required=True)
    parser.add_argument('--ports', required=True, help='of slurmctld and slurmd')
    args = parser.parse_args()
    home = args.home
    if children.LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError('prctl')
    for folder in ['state', 'spool']:
        (home / folder).mkdir(parents=True, exist_ok=True)
    key = home / 'munge.key'
    key.unlink(missing_ok=True)
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    controller_port, node_port = args.ports.split(',')
    host = socket.gethostname().split('.')[0]
    conf = home / 'slurm.conf'
    conf.write_text(SLURM_CONF.format(
        host=host, user=getpass.getuser(), home=home, controller_port=controller_port, node_port=node_port))
    os.environ['SLURM_CONF'] = str(conf)
    # Where Debian has the daemons; the path of a user may lack it.
    os.environ['PATH'] += ':/usr/sbin'

    def stop(_signal, _frame):
        end_descendants()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    munge_files = {'socket': 'munge.socket', 'key-file': 'munge.key', 'pid-file': 'munged.pid', 'log-file': 'munged.log',
                   'seed-file': 'munge.seed'}
    # It refuses to run as root, and in a folder that others may write to.
    munged = ['munged', '--foreground', '--force', *(f'--{option}={home / name}' for option, name in munge_files.items())]
    daemons = {children.start(command): command[0] for command in [munged, ['slurmctld', '-D'], ['slurmd', '-D', '-N', 'one']]}
    while True:
        pid, status = os.wait()
        if pid in daemons:
            print(f'{daemons[pid]} ended with {os.waitstatus_to_exitcode(status)}', file=sys.stderr, flush=True)
            end_descendants()
            return 1


def end_descendants():
    """Kills the children until there are none: those of a killed child become children."""
    while True:
        for pid in pathlib.Path(f'/proc/self/task/{os.getpid()}/children').read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


if __name__ == '__main__':
    sys.exit(main())
