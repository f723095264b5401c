"""Rows of a Cinder database that has seen years of backups, as tab-separated files for the servers' bulk loaders.

    python3 rows.py FOLDER TOTAL LIVE STUCK CLEANED KIND

TOTAL backups, of which LIVE are live and the rest deleted, as in a table that is never purged. STUCK of the live ones are
stuck under dead services. With KIND `mixed` they are in creating, restoring and deleting, some made from snapshots; with
`creating` all are in creating, each with its own volume in backing-up. CLEANED of the stuck ones belong to the host
`ctl-cleaned`, for Cinder's own clean-up. The same arguments give the same rows, apart from the times, which are relative to
now.

KIND `cloud` is what a cloud with incremental backups looks like: 20 backups a volume in chains of a full one and six increments;
40 of 200 projects own 80 % of the rows; a stuck backup is the newest one of its volume; every sixteenth of these volumes was
written after its backup was started; a thousandth as many volumes and snapshots as backups are left over without a stuck backup.
`wrong` is the same, and every backup with an increment has a counter that is too large by one.

This is a process of its own, so that its memory does not count as that of the measured program.
"""

import collections
import datetime
import pathlib
import random
import sys
import uuid

NULL = '\\N'
# Sizes for large tables. A small database has as many volumes as backups, and half as many snapshots.
VOLUMES = 50_000
SNAPSHOTS = 20_000
PROJECTS = 200
HOSTS = ('ctl1', 'ctl2', 'ctl3')
TYPE = '11111111-2222-4333-8444-555555555555'
DRIVER = 'cinder.backup.drivers.swift.SwiftBackupDriver'

COLUMNS = {
    'volume_types': 'created_at deleted id name is_public',
    'services': 'created_at updated_at deleted id host binary topic report_count disabled availability_zone uuid',
    'quota_usages': 'created_at updated_at deleted id project_id resource in_use reserved',
    'volumes': 'created_at updated_at deleted_at deleted id user_id project_id host size availability_zone status '
    'attach_status display_name volume_type_id bootable multiattach previous_status shared_targets use_quota',
    'volume_attachment': 'created_at updated_at deleted id volume_id attached_host instance_uuid mountpoint attach_mode '
    'attach_status',
    'snapshots': 'created_at updated_at deleted id volume_id user_id project_id status progress volume_size display_name '
    'volume_type_id use_quota',
    'backups': 'created_at updated_at deleted_at deleted id volume_id user_id project_id host availability_zone '
    'display_name container status service_metadata service size object_count parent_id num_dependent_backups '
    'snapshot_id data_timestamp restore_volume_id',
}


class Rows:
    def __init__(self, folder, seed, crowded=False):
        self.folder, self.crowded = folder, crowded
        self.random = random.Random(seed)
        self.now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None, microsecond=0)
        self.projects = [self.random.randbytes(16).hex() for _ in range(PROJECTS)]
        self.users = [self.random.randbytes(16).hex() for _ in range(PROJECTS)]
        self.tables = {}
        self.volumes, self.snapshots, self.attachments = [], [], []

    def ids(self, number):
        """Ids in ascending order: a table that is loaded in this order is as compact as after a restore from a dump."""
        return [str(uuid.UUID(int=bits)) for bits in sorted(self.random.getrandbits(128) for _ in range(number))]

    def ago(self, low, high):
        return str(self.now - datetime.timedelta(seconds=self.random.randint(low, high)))

    def write(self, table, values):
        if table not in self.tables:
            self.tables[table] = open(self.folder / f'{table}.tsv', 'w', encoding='utf-8', buffering=1 << 20)
        names = COLUMNS[table].split()
        self.tables[table].write('\t'.join(str(values.get(name, NULL)) for name in names) + '\n')

    def owner(self):
        if not self.crowded:
            return self.random.randrange(PROJECTS)
        return self.random.randrange(40) if self.random.random() < 0.8 else self.random.randrange(40, PROJECTS)

    def close(self):
        for file in self.tables.values():
            file.close()

    def volume(self, volume_id, status, previous=NULL, attached=False, marked=None):
        owner = self.random.randrange(PROJECTS)
        created = self.ago(30 * 86400, 900 * 86400)
        self.volumes.append({
            'created_at': created, 'updated_at': marked or self.ago(86400, 20 * 86400), 'deleted': 0, 'id': volume_id,
            'user_id': self.users[owner], 'project_id': self.projects[owner], 'host': 'ctl1@ceph#volumes',
            'size': self.random.choice((1, 10, 20, 50, 100)), 'availability_zone': 'nova', 'status': status,
            'attach_status': 'attached' if attached else 'detached', 'display_name': f'data-{volume_id[:8]}',
            'volume_type_id': TYPE, 'bootable': 0, 'multiattach': 0, 'previous_status': previous, 'shared_targets': 0,
            'use_quota': 1,
        })  # fmt: skip
        if attached:
            self.attachments.append({
                'created_at': created, 'updated_at': created, 'deleted': 0, 'id': str(uuid.UUID(int=self.random.getrandbits(128))),
                'volume_id': volume_id, 'attached_host': f'compute{self.random.randrange(60):02}',
                'instance_uuid': str(uuid.UUID(int=self.random.getrandbits(128))), 'mountpoint': '/dev/vdb', 'attach_mode': 'rw',
                'attach_status': 'attached',
            })  # fmt: skip


def backup(rows, backup_id, volume_id, status, host, age, **more):
    owner = rows.owner()
    created = rows.ago(*age)
    size = rows.random.choice((1, 10, 20, 50, 100))
    begun = status in ('creating', 'deleting', 'restoring', 'available', 'error', 'deleted')
    values = {
        'created_at': created, 'updated_at': created, 'deleted': 0, 'id': backup_id, 'volume_id': volume_id,
        'user_id': rows.users[owner], 'project_id': rows.projects[owner], 'host': host, 'availability_zone': 'nova',
        'display_name': f'nightly-{backup_id[:8]}', 'container': 'volumebackups', 'status': status,
        'service_metadata': f'volume_{volume_id}/20261101020000/az_nova_backup_{backup_id}' if begun else NULL,
        'service': DRIVER, 'size': size, 'object_count': 0 if status == 'creating' else size * 20,
        'num_dependent_backups': 0, 'data_timestamp': created,
    }  # fmt: skip
    values.update(more)
    return values


def plain(rows, backup_ids, volume_ids, snapshot_ids, alive, stuck, cleaned, kind):
    """The live backups of `mixed` and `creating`, with their places in the table; makes the volumes and snapshots, too."""
    hanging = rows.random.sample(alive, stuck)
    at_cleaned = set(hanging[:cleaned])
    # From shuffled lists in turn, so that no two stuck backups have the same volume.
    free = volume_ids[:]
    rows.random.shuffle(free)
    sources = snapshot_ids[:]
    rows.random.shuffle(sources)
    of_snapshots = {}
    pending = {}
    for turn, at in enumerate(hanging):
        status = 'creating' if kind == 'creating' else ('creating', 'creating', 'restoring', 'deleting')[turn % 4]
        volume_id = free.pop()
        # Cinder marks the volume or the snapshot, and then inserts the backup's row at once.
        asked = rows.ago(90_000, 20 * 86400)
        more = {'created_at': asked, 'updated_at': asked, 'data_timestamp': asked}
        attached = rows.random.random() < 0.3
        if status == 'creating' and kind == 'mixed' and turn % 8 == 1:
            more['snapshot_id'] = sources.pop()
            of_snapshots[more['snapshot_id']] = volume_id, asked
            rows.volume(volume_id, 'in-use' if attached else 'available', attached=attached)
        elif status == 'creating':
            rows.volume(volume_id, 'backing-up', 'in-use' if attached else 'available', attached, asked)
        elif status == 'restoring':
            more['restore_volume_id'] = volume_id
            rows.volume(volume_id, 'restoring-backup', marked=asked)
        else:
            rows.volume(volume_id, 'in-use' if attached else 'available', attached=attached)
        pending[at] = (status, volume_id, more)
    for volume_id in free:
        attached = rows.random.random() < 0.6
        rows.volume(volume_id, 'in-use' if attached else 'available', attached=attached)
    for snapshot_id in snapshot_ids:
        owner = rows.random.randrange(PROJECTS)
        pinned, asked = of_snapshots.get(snapshot_id, (None, None))
        created = rows.ago(30 * 86400, 500 * 86400)
        rows.snapshots.append({
            'created_at': created, 'updated_at': asked or created, 'deleted': 0, 'id': snapshot_id,
            'volume_id': pinned or rows.random.choice(volume_ids), 'user_id': rows.users[owner],
            'project_id': rows.projects[owner], 'status': 'backing-up' if pinned else 'available', 'progress': '100%',
            'volume_size': 10, 'display_name': f'snap-{snapshot_id[:8]}', 'volume_type_id': TYPE, 'use_quota': 1,
        })  # fmt: skip

    # Chains: every third idle live backup is a full one, and the next ones are its increments.
    kept = []
    full = None
    for turn, at in enumerate(alive):
        if at in pending:
            status, volume_id, more = pending[at]
            if status == 'creating' and full and rows.random.random() < 0.3:
                more['parent_id'] = full['id']
            host = 'ctl-cleaned' if at in at_cleaned else rows.random.choice(HOSTS)
            values = backup(rows, backup_ids[at], volume_id, status, host, (90_000, 20 * 86400), **more)
        else:
            status = 'error' if rows.random.random() < 0.02 else 'available'
            more = {}
            if turn % 3 and full and status == 'available':
                more['parent_id'] = full['id']
                full['num_dependent_backups'] += 1
            volume_id = rows.random.choice(free)
            values = backup(rows, backup_ids[at], volume_id, status, rows.random.choice(HOSTS), (2 * 86400, 400 * 86400), **more)
            if not more and status == 'available':
                full = values
        kept.append((at, values))
    return kept


def cloud(rows, backup_ids, volume_ids, snapshot_ids, alive, stuck, _cleaned, kind):
    """The live backups of `cloud` and `wrong`, with their places in the table; makes the volumes and snapshots, too."""
    places = alive[:]
    rows.random.shuffle(places)
    volumes = volume_ids[:]
    rows.random.shuffle(volumes)
    left_over = len(alive) // 1000
    kept = []
    for turn, volume_id in enumerate(volumes):
        mine = places[turn * 20:] if turn == len(volumes) - 1 else places[turn * 20:turn * 20 + 20]
        oldest = rows.random.randrange(30, 400) * 86400
        parent = None
        for number, at in enumerate(mine):
            last = number == len(mine) - 1
            status, more = 'available', {}
            asked = rows.now - datetime.timedelta(seconds=oldest - number * 86400)
            if last and turn < stuck:
                status = ('creating', 'restoring', 'creating', 'deleting')[turn % 4]
                asked = rows.now - datetime.timedelta(seconds=rows.random.randint(90_000, 9 * 86400))
                mark = str(asked + datetime.timedelta(seconds=600)) if turn % 16 == 0 else str(asked)
                if status == 'creating':
                    rows.volume(volume_id, 'backing-up', 'available', marked=mark)
                elif status == 'restoring':
                    more['restore_volume_id'] = volume_id
                    rows.volume(volume_id, 'restoring-backup', marked=mark)
                else:
                    rows.volume(volume_id, 'available')
            elif last and turn < stuck + left_over // 2:
                rows.volume(volume_id, 'backing-up', 'available', marked=rows.ago(90_000, 9 * 86400))
            elif last:
                attached = rows.random.random() < 0.6
                rows.volume(volume_id, 'in-use' if attached else 'available', attached=attached)
            more.update(created_at=asked, updated_at=asked, data_timestamp=asked)
            if number % 7 and status != 'deleting':
                more['parent_id'] = parent['id']
                # Cinder counts an increment when it is finished.
                parent['num_dependent_backups'] += status != 'creating'
            values = backup(rows, backup_ids[at], volume_id, status, rows.random.choice(HOSTS), (0, 1), **more)
            kept.append((at, values))
            parent = values
    if kind == 'wrong':
        for _, values in kept:
            values['num_dependent_backups'] += values['num_dependent_backups'] > 0
    for turn, snapshot_id in enumerate(snapshot_ids):
        owner = rows.owner()
        created = rows.ago(30 * 86400, 500 * 86400)
        rows.snapshots.append({
            'created_at': created, 'updated_at': created, 'deleted': 0, 'id': snapshot_id, 'volume_id': rows.random.choice(volume_ids),
            'user_id': rows.users[owner], 'project_id': rows.projects[owner],
            'status': 'backing-up' if turn < left_over // 2 else 'available', 'progress': '100%', 'volume_size': 10,
            'display_name': f'snap-{snapshot_id[:8]}', 'volume_type_id': TYPE, 'use_quota': 1,
        })  # fmt: skip
    kept.sort(key=lambda each: each[0])
    return kept


def main():
    folder, total, live, stuck, cleaned, kind = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:6]), sys.argv[6]
    rows = Rows(folder, f'{total} {live} {stuck} {kind}', kind in ('cloud', 'wrong'))
    volumes = live // 20 if rows.crowded else min(VOLUMES, total)
    backup_ids, volume_ids, snapshot_ids = rows.ids(total), rows.ids(volumes), rows.ids(min(SNAPSHOTS, total // 2))
    rows.write('volume_types', {'created_at': rows.now, 'deleted': 0, 'id': TYPE, 'name': 'ceph', 'is_public': 1})
    for number, host in enumerate([*HOSTS, 'ctl-cleaned'], 1):
        rows.write('services', {
            'created_at': rows.ago(900 * 86400, 900 * 86400), 'updated_at': rows.ago(7200, 9000), 'deleted': 0, 'id': number,
            'host': host, 'binary': 'cinder-backup', 'topic': 'cinder-backup', 'report_count': 7_000_000, 'disabled': 0,
            'availability_zone': 'nova', 'uuid': str(uuid.UUID(int=number)),
        })  # fmt: skip

    alive = sorted(rows.random.sample(range(total), live))
    make = cloud if rows.crowded else plain
    kept = make(rows, backup_ids, volume_ids, snapshot_ids, alive, stuck, cleaned, kind)
    used = collections.defaultdict(lambda: [0, 0])
    for _, values in kept:
        used[values['project_id']][0] += 1
        used[values['project_id']][1] += values['size']

    number = 0
    for project, (count, size) in used.items():
        for resource, amount in (('backups', count), ('backup_gigabytes', size)):
            number += 1
            rows.write('quota_usages', {
                'created_at': rows.now, 'updated_at': rows.now, 'deleted': 0, 'id': number, 'project_id': project,
                'resource': resource, 'in_use': amount, 'reserved': 0,
            })  # fmt: skip
    for table, kept_rows in (('volumes', rows.volumes), ('volume_attachment', rows.attachments), ('snapshots', rows.snapshots)):
        for values in sorted(kept_rows, key=lambda values: values['id']):
            rows.write(table, values)
    kept.reverse()
    for at in range(total):
        if kept and kept[-1][0] == at:
            rows.write('backups', kept.pop()[1])
            continue
        volume_id = rows.random.choice(volume_ids)
        values = backup(rows, backup_ids[at], volume_id, 'deleted', rows.random.choice(HOSTS), (30 * 86400, 900 * 86400))
        values.update(deleted=1, deleted_at=values['created_at'])
        rows.write('backups', values)
    rows.close()


if __name__ == '__main__':
    main()
