"""Prints as JSON what the installed Cinder has of all that the program depends on: statuses, columns, options and versions.

`tests/it/cinder_facts.rs` compares it with known_facts.json.
"""

import importlib
import json
import pkgutil

import cinder.objects

cinder.objects.register_all()

import cinder.backup.drivers  # noqa: E402
from cinder.backup import chunkeddriver, manager  # noqa: E402
from cinder.db import models  # noqa: E402
from cinder.message import message_field  # noqa: E402
from cinder.objects import fields  # noqa: E402
from oslo_config import cfg  # noqa: E402

MODELS = ['Backup', 'BackupMetadata', 'Message', 'QuotaUsage', 'Reservation', 'Service', 'Snapshot', 'Volume', 'VolumeAttachment']


def options(module):
    """The options that a module registers, and those of an older module that it registers again."""
    lists = [value for value in vars(module).values() if isinstance(value, list)]
    return sorted({option.name for found in lists for option in found if isinstance(option, cfg.Opt)})


def main():
    drivers = [f'cinder.backup.drivers.{found.name}' for found in pkgutil.iter_modules(cinder.backup.drivers.__path__)]
    facts = {
        'backup statuses': sorted(fields.BackupStatus.ALL),
        'columns': {model: sorted(getattr(models, model).__table__.columns.keys()) for model in MODELS},
        'drivers': sorted(drivers),
        'options': {module: options(importlib.import_module(module)) for module in [*drivers, chunkeddriver.__name__, manager.__name__]},
        'chunked metadata versions': sorted(chunkeddriver.ChunkedBackupDriver.DRIVER_VERSION_MAPPING),
        'message details': sorted(f'{number} {text}' for number, text in message_field.Detail.ALL),
        'default of backup_metadata_version': cfg.CONF.backup_metadata_version,
    }
    print(json.dumps(facts, indent=1, sort_keys=True))


if __name__ == '__main__':
    main()
