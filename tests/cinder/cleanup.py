"""Runs the clean-up that cinder-backup does when it starts, on the database of a cinder.conf.

BackupManager._cleanup_incomplete_backup_operations is real, with everything below it that reads or writes the database, including
quotas. The message bus and the storage are not. Calls to cinder-volume (delete a temporary volume or snapshot, detach) are
recorded but not executed; deleting the data of a backup succeeds at once. Pending deletes run one after the other and not in
a thread, which is an option of Cinder, so that two runs give the same result.

Prints one JSON object: `rpc`, `deleted_data`, `problems` (Cinder logs an exception and continues with the next backup),
`rows` and `seconds` (of the clean-up alone).
"""

import argparse
import json
import logging
import sys
import time
from unittest import mock


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config-file', required=True)
    parser.add_argument('--host', action='append', required=True, help='a host that cinder-backup starts on')
    parser.add_argument('--driver', default='cinder.backup.drivers.swift.SwiftBackupDriver')
    return parser.parse_args()


class RecordedVolumeAPI:
    """Replaces cinder-volume's RPC API and records the calls."""

    def __init__(self, calls):
        self.calls = calls

    def delete_volume(self, context, volume, *args, **kwargs):
        self.calls.append({'call': 'delete_volume', 'volume_id': volume.id})

    def delete_snapshot(self, context, snapshot, *args, **kwargs):
        self.calls.append({'call': 'delete_snapshot', 'snapshot_id': snapshot.id})

    def detach_volume(self, context, volume, attachment_id, *args, **kwargs):
        self.calls.append({'call': 'detach_volume', 'volume_id': volume.id, 'attachment_id': attachment_id})

    def __getattr__(self, name):
        raise AttributeError(f'the clean-up now calls {name} of cinder-volume: implement it here')


class DeletingDriver:
    """Replaces the backup driver: every deletion of data succeeds."""

    deleted = []

    def __init__(self, context):
        pass

    def delete_backup(self, backup):
        self.deleted.append(backup.id)


class Problems(logging.Handler):
    """Collects the errors that Cinder logs, with the exception that it caught."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.texts = []

    def emit(self, record):
        cause = record.exc_info and record.exc_info[1]
        self.texts.append(record.getMessage() + (f' {type(cause).__name__}: {cause}' if cause else ''))


def main():
    args = arguments()
    from oslo_config import cfg

    from cinder import objects

    objects.register_all()

    from cinder import context
    from cinder.backup import manager  # registers the options, so before any is set
    from cinder.common import config as _  # noqa: F401, registers the others

    cfg.CONF(['--config-file', args.config_file], project='cinder', version='tests')
    cfg.CONF.set_override('backup_driver', args.driver)
    cfg.CONF.set_override('backup_service_inithost_offload', False)
    # Cinder logs to standard error. Standard output is for the result.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    problems = Problems()
    logging.getLogger().addHandler(problems)

    calls = []
    patches = [
        mock.patch('cinder.backup.rpcapi.BackupAPI'),
        mock.patch('cinder.volume.rpcapi.VolumeAPI', side_effect=lambda *a, **k: RecordedVolumeAPI(calls)),
        mock.patch('cinder.scheduler.rpcapi.SchedulerAPI'),
        mock.patch('cinder.message.api.API'),
        mock.patch('cinder.volume.volume_utils.notify_about_backup_usage'),
    ]
    for patch in patches:
        patch.start()
    admin = context.get_admin_context()
    rows, seconds = 0, 0.0
    original = manager.BackupManager._cleanup_one_backup

    def counted(self, ctxt, backup):
        nonlocal rows
        rows += 1
        return original(self, ctxt, backup)

    with mock.patch.object(manager.BackupManager, '_cleanup_one_backup', counted):
        for host in args.host:
            service = manager.BackupManager(host=host)
            service.service = DeletingDriver
            service.is_initialized = True
            begun = time.monotonic()
            service._cleanup_incomplete_backup_operations(admin)
            seconds += time.monotonic() - begun

    json.dump(
        {
            'rpc': calls,
            'deleted_data': DeletingDriver.deleted,
            'problems': problems.texts,
            'rows': rows,
            'seconds': round(seconds, 6),
        },
        sys.stdout,
    )
    sys.stdout.write('\n')


if __name__ == '__main__':
    main()
