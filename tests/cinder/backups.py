"""Creates, restores and deletes backups with Cinder's real drivers, and kills itself at given points.

The input is a file of jobs (JSON, a list), the output one JSON line for each job, in order. BackupManager's create_backup,
continue_backup, restore_backup, delete_backup, export_record and import_record are real, and so are the driver and the database. The API and the scheduler
are not (this program writes their rows), nor are the message bus and cinder-volume: a volume is a file.

Every job runs in its own process, forked from one with all imports, and kills itself with SIGKILL at the point of `die`. Its
rows then remain as a real cinder-backup would leave them. Keys of a job:

op        backup, restore, delete, export or import
name      for later jobs, which may use `@name` as the id of this backup
driver    the class path (`backup_driver`)
options   of cinder.conf's [DEFAULT], by name
context   user_id, project_id, auth_token, service_catalog of the request
host      the host of cinder-backup
backup:   volume {id, size, status, encryption_key_id}, created if it does not exist; file, its data; parent, an id; display_name and
          display_description; die:
            container, prefix     after that column was written
            objects:N             after the N-th object
            half:N, half:sha256file, half:metadata   with half of it written, or nothing if the store has only whole objects
            sha256file, metadata  after that file
            object_count          after that column was written
            volume                after the volume's row, before the backup's
restore:  backup, an id; file, for the data of the volume; new, whether the volume is new
delete:   backup, an id
export:   backup, an id
import:   backup_service, backup_url

A line of output: op, name, outcome (done, failed, killed), error, seconds, backup and volume (their rows, or null), record (of an export).
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
import uuid
from unittest import mock

GOOGLE = 'https://storage.googleapis.com/'


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config-file', required=True)
    parser.add_argument('--jobs', required=True)
    parser.add_argument('--google', help='what stands in for ' + GOOGLE)
    return parser.parse_args()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class HalfWriter:
    """Writes half of an object and dies. A half-written object remains only in a file; object stores get all or nothing."""

    def __init__(self, writer):
        self.writer = writer

    def __enter__(self):
        self.writer.__enter__()
        return self

    def __exit__(self, *error):
        return self.writer.__exit__(*error)

    def write(self, data):
        self.writer.write(data[: len(data) // 2])
        if hasattr(self.writer, 'flush'):
            self.writer.flush()
        die()


def die_at(point, driver, manager):
    """Arranges the death at a point, by wrapping the methods of Cinder that lead to it."""
    kind, _, which = point.partition(':')

    def after(owner, method, when=lambda count, args: True):
        real = getattr(owner, method)
        calls = []

        def wrapped(*args, **kwargs):
            result = real(*args, **kwargs)
            calls.append(args)
            if when(len(calls), args):
                die()
            return result

        setattr(owner, method, wrapped)

    if kind == 'container':
        after(driver, '_create_container')
    elif kind == 'prefix':
        after(driver, '_prepare_backup')
    elif kind == 'objects':
        after(driver, '_backup_chunk', lambda count, args: count == int(which))
    elif kind == 'half':
        end = f'-{int(which):05}' if which.isdigit() else f'_{which}'
        real = driver.get_object_writer

        def get_object_writer(self, container, name, extra_metadata=None):
            writer = real(self, container, name, extra_metadata)
            return HalfWriter(writer) if name.endswith(end) else writer

        driver.get_object_writer = get_object_writer
    elif kind in ('sha256file', 'metadata'):
        after(driver, f'_write_{kind}')
    elif kind == 'object_count':
        after(driver, '_finalize_backup')
    elif kind == 'volume':
        from cinder.db import api as db

        after(db, 'volume_update', lambda count, args: args[2].get('previous_status') == 'backing-up')
    else:
        raise ValueError(f'no point {point!r}')


class Zeros:
    """Caches results for zeros: they are computed once for each process, not for every block of a GiB."""

    def __init__(self):
        self.known = {}
        self.zeros = {}

    def of(self, size):
        if size not in self.zeros:
            self.zeros[size] = bytes(size)
        return self.zeros[size]

    def wrap(self, what, compute):
        def computed(data, **kwargs):
            size = len(data)
            if size == 0 or data[0] != 0 or bytes(data) != self.of(size):
                return compute(data, **kwargs)
            if (what, size) not in self.known:
                self.known[what, size] = compute(data, **kwargs)
            return self.known[what, size]

        return computed

    def install(self):
        from types import SimpleNamespace

        from cinder.backup import chunkeddriver

        real = chunkeddriver.hashlib
        hashes = {name: self.wrap(name, getattr(real, name)) for name in ('md5', 'sha256')}
        chunkeddriver.hashlib = SimpleNamespace(**hashes)
        get_compressor = chunkeddriver.ChunkedBackupDriver._get_compressor

        def _get_compressor(driver, algorithm):
            real = get_compressor(driver, algorithm)
            if real is None:
                return None
            compress = self.wrap(algorithm.lower(), lambda data: real.compress(data))
            return SimpleNamespace(compress=compress, decompress=real.decompress)

        chunkeddriver.ChunkedBackupDriver._get_compressor = _get_compressor
        # Python compares bytes fifteen times as fast as a memoryview.
        chunkeddriver.volume_utils.is_all_zero = lambda chunk: bytes(chunk) == self.of(len(chunk))


class VolumeAPI:
    """Replaces cinder-volume's RPC API: a volume is a file, and ready at once."""

    manager = None

    def get_backup_device(self, context, backup, volume):
        from cinder import objects

        device = objects.BackupDeviceInfo(volume=volume, secure_enabled=True)
        self.manager.continue_backup(context, backup, device)

    def secure_file_operations_enabled(self, context, volume):
        return True

    def __getattr__(self, name):
        raise AttributeError(f'cinder-backup now calls {name} of cinder-volume: say here what that means')


class Worker:
    """A job in its own process."""

    def __init__(self, job, tell):
        from oslo_utils import importutils

        from cinder import context
        from cinder.backup import manager
        from oslo_config import cfg

        self.job = job
        self.tell = tell
        cfg.CONF.set_override('backup_driver', job['driver'])
        for name, value in job.get('options', {}).items():
            cfg.CONF.set_override(name, value)
        driver = importutils.import_class(manager.MAPPING.get(job['driver'], job['driver']))
        # It would send a notification every two minutes.
        driver_init = driver.__init__

        def without_timer(self, *args, **kwargs):
            driver_init(self, *args, **kwargs)
            self.enable_progress_timer = False

        driver.__init__ = without_timer
        self.context = context.RequestContext(
            is_admin=True, overwrite=False, **{'user_id': 'tester', 'project_id': 'tests', **job.get('context', {})}
        )
        self.manager = manager.BackupManager(host=job.get('host', 'ctl1'))
        self.manager.is_initialized = True
        self.manager.volume_rpcapi.manager = self.manager
        device = {'device': {'path': job.get('file')}}
        self.manager._attach_device = lambda *args, **kwargs: device
        self.manager._detach_device = lambda *args, **kwargs: None
        if 'die' in job:
            die_at(job['die'], driver, manager.BackupManager)

    def volume(self, id, size, status, encryption_key_id=None):
        from cinder import exception
        from cinder.db import api as db

        try:
            return db.volume_get(self.context, id)
        except exception.VolumeNotFound:
            values = {
                'id': id,
                'size': size,
                'status': status,
                'attach_status': 'attached' if status == 'in-use' else 'detached',
                'user_id': self.context.user_id,
                'project_id': self.context.project_id,
                'host': 'ctl1@disks#pool',
                'availability_zone': 'nova',
                'display_name': 'a volume',
                'encryption_key_id': encryption_key_id,
                'volume_type_id': db.volume_type_get_by_name(self.context, '__DEFAULT__')['id'],
            }
            return db.volume_create(self.context, values)

    def backup(self):
        from cinder import objects
        from cinder.db import api as db

        wanted = self.job['volume']
        volume = self.volume(wanted['id'], wanted['size'], wanted.get('status', 'available'), wanted.get('encryption_key_id'))
        db.volume_update(self.context, volume['id'], {'status': 'backing-up', 'previous_status': volume['status']})
        backup = objects.Backup(
            context=self.context,
            user_id=self.context.user_id,
            project_id=self.context.project_id,
            display_name=self.job.get('display_name'),
            display_description=self.job.get('display_description'),
            volume_id=volume['id'],
            status='creating',
            container=self.job.get('container'),
            parent_id=self.job.get('parent'),
            size=volume['size'],
            host=self.manager.host,
        )
        backup.create()
        backup.data_timestamp = backup.created_at
        backup.save()
        self.tell({'id': backup.id, 'volume_id': volume['id']})
        self.manager.create_backup(self.context, backup)

    def restore(self):
        from cinder import objects
        from cinder.db import api as db
        from oslo_utils import uuidutils

        backup = objects.Backup.get_by_id(self.context, self.job['backup'])
        new = self.job.get('new', True)
        volume = self.volume(uuidutils.generate_uuid(), backup.size, 'creating' if new else 'restoring-backup')
        self.tell({'id': backup.id, 'volume_id': volume['id']})
        db.backup_update(self.context, backup.id, {'status': 'restoring', 'restore_volume_id': volume['id']})
        backup.refresh()
        self.manager.restore_backup(self.context, backup, volume['id'], new)

    def delete(self):
        from cinder import objects

        backup = objects.Backup.get_by_id(self.context, self.job['backup'])
        self.tell({'id': backup.id, 'volume_id': backup.volume_id})
        backup.status = 'deleting'
        backup.save()
        self.manager.delete_backup(self.context, backup)

    def export(self):
        from cinder import objects

        backup = objects.Backup.get_by_id(self.context, self.job['backup'])
        self.tell({'id': backup.id, 'volume_id': backup.volume_id})
        self.tell({'record': self.manager.export_record(self.context, backup)})

    def import_(self):
        from cinder.backup import api

        service, url = self.job['backup_service'], self.job['backup_url']
        backup = api.API()._get_import_backup(self.context, url)
        self.tell({'id': backup.id})
        self.manager.import_record(self.context, backup, service, url, [])


def rows(told):
    """Returns the rows of a job."""
    from cinder import context, exception
    from cinder.db import api as db

    admin = context.get_admin_context(read_deleted='yes')

    def row(get, id):
        try:
            found = get(admin, id)
        except exception.NotFound:
            return None
        return {
            column.name: value if isinstance(value := getattr(found, column.key, None), (int, str, type(None))) else str(value)
            for column in found.__table__.columns
        }

    return {
        'backup': row(db.backup_get, told['id']) if 'id' in told else None,
        'volume': row(db.volume_get, told['volume_id']) if 'volume_id' in told else None,
    }


def forked(work):
    """Runs `work` in a process with its own database connections and threads. Returns its result and how the process ended."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)

            def tell(what):
                os.write(writer, json.dumps(what).encode() + b'\n')

            try:
                work(tell)
                status = 0
            except Exception as error:
                traceback.print_exc()
                tell({'error': f'{type(error).__name__}: {error}'})
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    told = {}
    with os.fdopen(reader, 'rb') as lines:
        for line in lines:
            told.update(json.loads(line))
    _, status = os.waitpid(pid, 0)
    return told, os.waitstatus_to_exitcode(status)


def main():
    args = arguments()
    with open(args.jobs, encoding='utf-8') as file:
        jobs = json.load(file)

    from oslo_config import cfg
    from oslo_utils import importutils

    from cinder import objects

    objects.register_all()

    from cinder.backup import manager  # registers the options, so before any is set
    from cinder.common import config as _  # noqa: F401, registers the others

    cfg.CONF(['--config-file', args.config_file], project='cinder', version='tests')
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for path in {job['driver'] for job in jobs}:
        importutils.import_class(manager.MAPPING.get(path, path))
    patches = [
        mock.patch('cinder.backup.rpcapi.BackupAPI'),
        mock.patch('cinder.volume.rpcapi.VolumeAPI', VolumeAPI),
        mock.patch('cinder.scheduler.rpcapi.SchedulerAPI'),
        mock.patch('cinder.message.api.API'),
        # There is no key manager: a copy of a key is only another id.
        mock.patch('cinder.backup.manager.key_manager'),
        mock.patch('cinder.volume.volume_utils.clone_encryption_key', lambda *args: str(uuid.uuid4())),
        mock.patch('cinder.volume.volume_utils.notify_about_backup_usage'),
        mock.patch('cinder.volume.volume_utils.brick_get_connector_properties', lambda *args, **kwargs: {}),
    ]
    if args.google:
        from googleapiclient import discovery_cache

        static = discovery_cache.get_static_doc

        def get_static_doc(*names):
            return static(*names).replace(GOOGLE, args.google)

        patches.append(mock.patch('googleapiclient.discovery_cache.get_static_doc', get_static_doc))
    for patch in patches:
        patch.start()
    Zeros().install()

    ids = {}
    for job in jobs:
        for key in ('parent', 'backup'):
            if str(job.get(key, '')).startswith('@'):
                job[key] = ids[job[key][1:]]

        begun = time.monotonic()
        told, status = forked(lambda tell: getattr(Worker(job, tell), {'import': 'import_'}.get(job['op'], job['op']))())
        seconds = time.monotonic() - begun
        if 'name' in job and 'id' in told:
            ids[job['name']] = told['id']
        found, _ = forked(lambda tell: tell(rows(told)))
        line = {
            'op': job['op'],
            'name': job.get('name'),
            'outcome': {0: 'done', -signal.SIGKILL: 'killed'}.get(status, 'failed'),
            'error': told.get('error'),
            'seconds': round(seconds, 3),
            'backup': found.get('backup'),
            'volume': found.get('volume'),
            'record': told.get('record'),
        }
        print(json.dumps(line), flush=True)


if __name__ == '__main__':
    main()
