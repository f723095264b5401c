"""Creates backups in a real Ceph cluster with Cinder's real CephBackupDriver, and kills it at chosen points.

Reads one job from each line of standard input, as JSON, and writes a line of JSON for each: {"ok": ...} or {"error": "..."}.
Every job runs in its own process, forked after the import of Cinder (which takes seconds), so that SIGKILL ends it completely and
leaves the same on storage and in the database as a dead cinder-backup.

BackupManager.continue_backup, _run_restore, the driver's delete_backup, its rbd commands and the database are real. cinder-volume
and the connectors are not; they would create the same objects as this program.

Jobs (`do`):
  volume    id, rbd_image: a volume of 1 GiB, in the cluster or in a sparse file
  write     volume, at, length, seed: random bytes at an offset
  discard   volume, at, length: punches a hole in a volume in the cluster
  snapshot  id, volume
  backup    id, volume, parent, snapshot, keep: how many snapshots stay on the volume, 0 for all, kill: one of KILLS, or none.
            Returns "killed" or "done"
  restore   backup, volume: into a volume in the cluster
  digest    volume, at: SHA-256 of a volume, or of a snapshot of it
  delete    backup: its data, as the driver deletes it
  age       image, key, seconds: makes the time under a key of its header later, as after a later change
  hold      image, pool: opens an image for writing and keeps it open until the end of the input. Returns at once
"""

import argparse
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import struct
import sys
import threading
import time
import traceback
import types
from pathlib import Path
from unittest import mock

GIB = 1 << 30
USER = 'cinder'
BACKUPS = 'backups'
VOLUMES = 'volumes'
PROJECT = '0' * 32


def load(name):
    """Loads one of Ceph's modules from Debian's folder, which a virtual environment does not search."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    path = Path('/usr/lib/python3/dist-packages') / f'{name}{suffix}'
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


rados = load('rados')
rbd = load('rbd')


class Cluster:
    """A connection to a pool."""

    def __init__(self, conf, pool):
        self.client = rados.Rados(rados_id=USER, conffile=conf)
        self.client.connect(timeout=20)
        self.ioctx = self.client.open_ioctx(pool)

    def __enter__(self):
        return self.ioctx

    def __exit__(self, *_):
        self.ioctx.close()
        self.client.shutdown()


def die():
    """Kills this process and its children, as the kernel kills a service."""
    os.killpg(0, signal.SIGKILL)


def die_alone():
    os.kill(os.getpid(), signal.SIGKILL)


class Jobs:
    """The jobs. Each runs in its own process."""

    def __init__(self, args, context, manager, objects, linuxrbd, driver):
        self.args = args
        self.context = context
        self.manager = manager
        self.objects = objects
        self.linuxrbd = linuxrbd
        self.driver = driver

    def insert(self, kind, id, **columns):
        from cinder.db import api as db

        columns.update(id=id, project_id=PROJECT, user_id=PROJECT)
        getattr(db, f'{kind}_create')(self.context, columns)

    def volume(self, id, rbd_image):
        self.insert('volume', id, size=1, status='available', display_name=f'volume {id}', host='ctl1@pool', volume_type_id=PROJECT)
        if rbd_image:
            with Cluster(self.args.ceph_conf, VOLUMES) as ioctx:
                rbd.RBD().create(ioctx, f'volume-{id}', GIB, old_format=False, features=61)
        else:
            with open(self.file(id), 'wb') as file:
                file.truncate(GIB)

    def file(self, volume):
        return os.path.join(self.args.folder, f'volume-{volume}')

    def write(self, volume, at, length, seed):
        data = random.Random(seed).randbytes(length)
        if os.path.exists(self.file(volume)):
            with open(self.file(volume), 'r+b') as file:
                file.seek(at)
                file.write(data)
        else:
            with Cluster(self.args.ceph_conf, VOLUMES) as ioctx, rbd.Image(ioctx, f'volume-{volume}') as image:
                image.write(data, at)

    def discard(self, volume, at, length):
        with Cluster(self.args.ceph_conf, VOLUMES) as ioctx, rbd.Image(ioctx, f'volume-{volume}') as image:
            image.discard(at, length)

    def snapshot(self, id, volume):
        self.insert('snapshot', id, volume_id=volume, volume_size=1, status='available', volume_type_id=PROJECT)
        if not os.path.exists(self.file(volume)):
            with Cluster(self.args.ceph_conf, VOLUMES) as ioctx, rbd.Image(ioctx, f'volume-{volume}') as image:
                image.create_snap(f'snapshot-{id}')

    def handle(self, ioctx, volume, snapshot=None):
        """Returns what os-brick's connector returns for an RBD volume."""
        image = rbd.Image(ioctx, f'volume-{volume}', snapshot=snapshot, read_only=snapshot is not None)
        metadata = self.linuxrbd.RBDImageMetadata(image, VOLUMES, USER, self.args.ceph_conf)
        return self.linuxrbd.RBDVolumeIOWrapper(metadata)

    def attached(self, handle):
        return mock.patch.multiple(
            self.manager.BackupManager,
            _attach_device=lambda *_, **__: {'device': {'path': handle}},
            _detach_device=lambda *_, **__: handle.close(),
        )

    def backup(self, id, volume, parent, snapshot, keep, kill):
        self.driver.CONF.set_override('backup_ceph_max_snapshots', keep)
        # The row as the API and the manager leave it before the data is written.
        self.insert(
            'backup', id, volume_id=volume, size=1, status='creating', host='ctl1', parent_id=parent,
            snapshot_id=snapshot, num_dependent_backups=0, service='cinder.backup.drivers.ceph.CephBackupDriver',
        )
        source = self.objects.Volume.get_by_id(self.context, volume)
        source.status, source.previous_status = 'backing-up', 'available'
        source.save()
        device = types.SimpleNamespace(device_obj=source, is_snapshot=snapshot is not None, secure_enabled=True)
        service = self.manager.BackupManager(host='ctl1')
        with Cluster(self.args.ceph_conf, VOLUMES) as ioctx:
            if os.path.exists(self.file(volume)):
                handle = open(self.file(volume), 'rb')
            else:
                handle = self.handle(ioctx, volume, f'snapshot-{snapshot}' if snapshot else None)
            with self.attached(handle), KILLS[kill](self):
                service.continue_backup(self.context, self.objects.Backup.get_by_id(self.context, id), device)
        return 'done'

    def restore(self, backup, volume):
        row = self.objects.Backup.get_by_id(self.context, backup)
        target = self.objects.Volume.get_by_id(self.context, volume)
        service = self.manager.BackupManager(host='ctl1')
        with Cluster(self.args.ceph_conf, VOLUMES) as ioctx, self.attached(self.handle(ioctx, volume)):
            service._run_restore(self.context, row, target, True)

    def delete(self, backup):
        row = self.objects.Backup.get_by_id(self.context, backup)
        self.driver.CephBackupDriver(self.context).delete_backup(row)

    def age(self, image, key, seconds):
        with Cluster(self.args.ceph_conf, BACKUPS) as ioctx:
            with rbd.Image(ioctx, image, read_only=True) as opened:
                header = 'rbd_header.' + opened.id()
            with rados.ReadOpCtx() as read:
                values, _ = ioctx.get_omap_vals_by_keys(read, (key,))
                ioctx.operate_read_op(read, header)
                value = bytearray(dict(values)[key])
            now = int(time.time())
            for at in range(len(value) - 3):
                (made,) = struct.unpack_from('<I', value, at)
                if now - 3600 < made <= now:
                    struct.pack_into('<I', value, at, made + seconds)
                    break
            else:
                raise ValueError(f'no time in {key}: {value.hex()}')
            with rados.WriteOpCtx() as write:
                ioctx.set_omap(write, (key,), (bytes(value),))
                ioctx.operate_write_op(write, header)

    def digest(self, volume, at):
        total = hashlib.sha256()
        if os.path.exists(self.file(volume)):
            with open(self.file(volume), 'rb') as file:
                while piece := file.read(16 << 20):
                    total.update(piece)
        else:
            with Cluster(self.args.ceph_conf, VOLUMES) as ioctx:
                with rbd.Image(ioctx, f'volume-{volume}', snapshot=at, read_only=True) as image:
                    for offset in range(0, image.size(), 16 << 20):
                        total.update(image.read(offset, 16 << 20))
        return total.hexdigest()

    def hold(self, image, pool):
        """Runs in a process that lives as long as its parent."""
        parent = os.getppid()
        with Cluster(self.args.ceph_conf, pool) as ioctx, rbd.Image(ioctx, image) as opened:
            opened.write(opened.read(0, 512), 0)
            answer({'ok': None})
            while os.getppid() == parent:
                time.sleep(0.1)

    # The points at which the process is killed.

    def nowhere(self):
        return mock.patch.object(self, 'args', self.args)

    def half_way(self):
        """After four of the eight chunks of a copy."""
        written = self.linuxrbd.RBDVolumeIOWrapper.write
        count = 0

        def write(wrapper, data):
            nonlocal count
            written(wrapper, data)
            count += 1
            if count == 4:
                wrapper.rbd_image.flush()
                die()

        return mock.patch.object(self.linuxrbd.RBDVolumeIOWrapper, 'write', write)

    def last_chunk(self):
        """While the last chunk of a copy is written."""
        written = self.linuxrbd.RBDVolumeIOWrapper.write

        def write(wrapper, data):
            if wrapper.tell() + len(data) >= GIB:
                threading.Timer(0.01, die).start()
                written(wrapper, data)
                time.sleep(10)
            written(wrapper, data)

        return mock.patch.object(self.linuxrbd.RBDVolumeIOWrapper, 'write', write)

    def before_metadata(self):
        return mock.patch.object(self.driver.CephBackupDriver, '_backup_metadata', lambda *_: die())

    def after_metadata(self):
        return mock.patch.object(self.manager.BackupManager, '_finish_backup', lambda *_: die())

    def in_import(self):
        return self.during_transfer(die)

    def only_python(self):
        return self.during_transfer(die_alone)

    def during_transfer(self, end):
        """Kills the process once the import has written two objects."""
        piped = self.driver.CephBackupDriver._piped_execute

        def execute(driver, first, second):
            image = second[-1].split('/')[1]
            cluster = Cluster(self.args.ceph_conf, BACKUPS)
            with rbd.Image(cluster.ioctx, image, read_only=True) as opened:
                prefix = opened.stat()['block_name_prefix'] + '.'
            before = self.objects_of(cluster.ioctx, prefix)

            def watch():
                while len(self.objects_of(cluster.ioctx, prefix) - before) < 2:
                    time.sleep(0.005)
                end()

            threading.Thread(target=watch, daemon=True).start()
            return piped(driver, first, second)

        return mock.patch.object(self.driver.CephBackupDriver, '_piped_execute', execute)

    @staticmethod
    def objects_of(ioctx, prefix):
        return {item.key for item in ioctx.list_objects() if item.key.startswith(prefix)}


KILLS = {
    None: Jobs.nowhere,
    'half-way': Jobs.half_way,
    'last-chunk': Jobs.last_chunk,
    'before-metadata': Jobs.before_metadata,
    'after-metadata': Jobs.after_metadata,
    'in-import': Jobs.in_import,
    'only-python': Jobs.only_python,
}


def answer(result):
    # A single write, so that the line is complete even if the process is killed right after it.
    os.write(1, (json.dumps(result) + '\n').encode())


def forked(run):
    """Runs a function in its own process group, and returns how it ended."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(reading)
        try:
            result = {'ok': run()}
        except BaseException as error:  # noqa: B036, the exception of a job is its result
            traceback.print_exc()
            result = {'error': f'{type(error).__name__}: {error}'}
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return {'ok': 'killed'} if os.WTERMSIG(status) == signal.SIGKILL else {'error': f'signal {os.WTERMSIG(status)}'}
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    return json.loads(text) if text else {'error': 'no answer'}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config-file', required=True)
    parser.add_argument('--ceph-conf', required=True)
    parser.add_argument('--folder', required=True, help='where volumes that are no RBD images are')
    args = parser.parse_args()

    from oslo_config import cfg

    from cinder import objects

    objects.register_all()

    from os_brick.initiator import linuxrbd

    from cinder import context
    from cinder.backup import manager
    from cinder.backup.drivers import ceph as driver
    from cinder.common import config as _  # noqa: F401, registers the options

    cfg.CONF(['--config-file', args.config_file], project='cinder', version='tests')
    cfg.CONF.set_override('backup_driver', 'cinder.backup.drivers.ceph.CephBackupDriver')
    cfg.CONF.set_override('backup_ceph_conf', args.ceph_conf)
    cfg.CONF.set_override('backup_ceph_user', USER)
    cfg.CONF.set_override('backup_ceph_pool', BACKUPS)
    for target in [
        'cinder.backup.rpcapi.BackupAPI',
        'cinder.volume.rpcapi.VolumeAPI',
        'cinder.scheduler.rpcapi.SchedulerAPI',
        'cinder.message.api.API',
        'cinder.volume.volume_utils.notify_about_backup_usage',
        'cinder.volume.volume_utils.brick_get_connector_properties',
    ]:
        mock.patch(target).start()
    jobs = Jobs(args, context.get_admin_context(), manager, objects, linuxrbd, driver)
    answer({'ok': 'ready'})
    held = []
    for line in sys.stdin:
        job = json.loads(line)
        run = getattr(jobs, job.pop('do'))
        if run == jobs.hold:
            pid = os.fork()
            if pid == 0:
                try:
                    run(**job)
                finally:
                    os._exit(0)
            held.append(pid)
        else:
            answer(forked(lambda: run(**job)))
    for pid in held:
        os.kill(pid, signal.SIGKILL)


if __name__ == '__main__':
    main()
