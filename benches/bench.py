"""Times the program against the tools that a person would use without it, and writes benches/RESULTS.md. Started by benches/run."""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import results
from engines import ENGINES, ROOT, call

PROGRAM = ROOT / 'target/release/cinder-backup-repair'
BACKUP = (
    'id, status, host, service, volume_id, display_name, project_id, size, object_count, service_metadata, fail_reason, '
    'created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id, num_dependent_backups, snapshot_id, restore_volume_id'
)
VOLUME = 'id, status, attach_status, size, display_name, project_id, created_at, updated_at, previous_status'
SNAPSHOT = 'id, status, volume_id, display_name, project_id, created_at, updated_at'
#: What a person types to see the same: the stuck backups, their volumes and snapshots, the heartbeats.
PLAIN = """\
SELECT {backup} FROM backups WHERE deleted = {false} AND status IN ('creating', 'restoring', 'deleting');
SELECT {volume} FROM volumes WHERE deleted = {false} AND status IN ('backing-up', 'restoring-backup');
SELECT {snapshot} FROM snapshots WHERE deleted = {false} AND status = 'backing-up';
SELECT s.host, s.updated_at FROM services s WHERE s.binary = 'cinder-backup' AND s.deleted = {false};
"""
#: What reads the same rows as `scan`: every live backup, not only the stuck ones, and the related rows of these.
SAME = """\
SELECT id, status, host, volume_id, display_name, project_id, size, parent_id, temp_volume_id, temp_snapshot_id, num_dependent_backups
  FROM backups WHERE deleted = {false};
SELECT {volume_of_v} FROM volumes v JOIN backups b ON v.id = b.volume_id
 WHERE v.deleted = {false} AND b.deleted = {false} AND b.status IN ('creating', 'restoring', 'deleting');
SELECT a.id, a.volume_id, a.instance_uuid, a.attached_host, a.attach_status FROM volume_attachment a JOIN backups b ON a.volume_id = b.volume_id
 WHERE a.deleted = {false} AND b.deleted = {false} AND b.status IN ('creating', 'restoring', 'deleting');
SELECT id, volume_id, attached_host, attach_status FROM volume_attachment WHERE deleted = {false} AND instance_uuid IS NULL AND attached_host IS NOT NULL;
SELECT project_id, resource, in_use FROM quota_usages WHERE deleted = {false} AND resource IN ('backups', 'backup_gigabytes');
"""
UPDATES = """\
UPDATE backups SET status = 'error', fail_reason = 'set by hand', updated_at = {now} WHERE id = '{backup}';
UPDATE volumes SET status = '{status}', updated_at = {now} WHERE id = '{volume}';
"""


class Failed(SystemExit):
    pass


def run(command, expected=0, source=None, output=None):
    """Runs a command. Returns its wall time in seconds and its peak memory in MiB."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith('CINDER_')}
    with tempfile.NamedTemporaryFile() as memory, tempfile.TemporaryFile() as stderr:
        # GNU time is small. Without it the memory of this process would count as the child's, which inherits the peak in the kernel.
        words = ['/usr/bin/time', '--quiet', '-f', '%M', '-o', memory.name, *map(str, command)]
        with open(source or os.devnull, 'rb') as stdin, open(output or os.devnull, 'wb') as stdout:
            begun = time.perf_counter()
            process = subprocess.run(words, stdin=stdin, stdout=stdout, stderr=stderr, env=environment)
            seconds = time.perf_counter() - begun
        if process.returncode != expected:
            stderr.seek(0)
            raise Failed(f'{command[0]} ended with {process.returncode}: {stderr.read().decode(errors="replace")[-3000:]}')
        return seconds, int(memory.read()) / 1024


def fsync_time(folder):
    """Returns the median time to append 4 KiB to a file and sync it, in milliseconds."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(100):
            begun = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def program(engine, database, command, log, *more):
    words = [PROGRAM, command, '--config-file', engine.folder / f'{database}.conf', '--no-input']
    return [*words, '--audit-log', log, *more]


def generate(folder, *arguments):
    folder.mkdir()
    call([sys.executable, ROOT / 'benches/rows.py', folder, *map(str, arguments)])
    return folder


def say(text):
    print(time.strftime('%H:%M:%S '), text, file=sys.stderr, flush=True)


def pairs(number, ours, theirs):
    """Times both in turn, after a first run of each that does not count. Returns (ours, theirs), each a list of (seconds, MiB)."""
    ours(), theirs()
    timed = ([], [])
    for _ in range(number):
        timed[0].append(ours())
        timed[1].append(theirs())
    return timed


def time_scan(engine, rows, options, found):
    database = 'scanned'
    say(f'{engine.name}: loading {options.rows} backups for scan')
    engine.make(database, rows)
    if engine.name != 'SQLite':
        time.sleep(10)
    log = engine.folder / 'scan.jsonl'
    answer = engine.folder / 'scan.json'
    run(program(engine, database, 'scan', log, '--format', 'json'), output=answer)
    summary = json.loads(answer.read_text())['summary']
    if summary['stuck'] != options.stuck or sum(summary.values()) != options.stuck:
        raise Failed(f'scan found {summary}, and {options.stuck} are stuck')
    plain = engine.folder / 'plain.sql'
    plain.write_text(PLAIN.format(backup=BACKUP, volume=VOLUME, snapshot=SNAPSHOT, false=engine.false))
    same = engine.folder / 'same.sql'
    of_v = ', '.join(f'v.{column}' for column in VOLUME.split(', '))
    same.write_text(plain.read_text() + SAME.format(volume_of_v=of_v, false=engine.false))
    say(f'{engine.name}: scan')
    scan = lambda: run(program(engine, database, 'scan', log))  # noqa: E731
    ours, theirs = pairs(options.pairs, scan, lambda: run(engine.client(database), source=plain))
    again, alike = pairs(options.pairs, scan, lambda: run(engine.client(database), source=same))
    json_runs = [run(program(engine, database, 'scan', log, '--format', 'json')) for _ in range(options.pairs)]
    found['scan'] = {
        'ours': [seconds for seconds, _ in ours], 'theirs': [seconds for seconds, _ in theirs],
        'again': [seconds for seconds, _ in again], 'alike': [seconds for seconds, _ in alike],
        'json': [seconds for seconds, _ in json_runs], 'memory': max(memory for _, memory in [*ours, *json_runs]),
        'client_memory': max(memory for _, memory in theirs),
    }  # fmt: skip


def time_repair(engine, rows, options, found, where):
    database = 'repaired'
    say(f'{engine.name}: loading {options.rows} backups for repair, on {where}')
    engine.make(database, rows)
    engine.keep(database)
    if engine.name != 'SQLite':
        time.sleep(10)
    updates = engine.folder / 'updates.sql'
    write_updates(engine, database, rows, updates)
    count = f"SELECT COUNT(*) FROM backups WHERE status = 'creating' AND deleted = {engine.false}"
    held = f"SELECT COUNT(*) FROM volumes WHERE status = 'backing-up' AND deleted = {engine.false}"

    def check(left, what):
        counted = engine.number(database, count), engine.number(database, held)
        if counted != (left, left):
            raise Failed(f'after {what}, {counted} backups and volumes are left pending, not {left}')

    measured = {'ours': [], 'theirs': [], 'undo': [], 'fsync': fsync_time(engine.folder), 'memory': 0, 'log': 0}
    check(options.units, 'loading')
    for turn in range(options.repair_pairs):
        log = engine.folder / f'repair-{where[:3]}-{turn}.jsonl'
        more = ['--yes', '--max-changes', str(2 * options.units)]
        vouched = ['--assume-dead', 'all']
        say(f'{engine.name}: repair on {where}, {turn + 1} of {options.repair_pairs}')
        answer = engine.folder / 'repair.json'
        seconds, memory = run(program(engine, database, 'repair', log, *more, *vouched, '--format', 'json'), output=answer)
        check(0, 'repair')
        measured['ours'].append(seconds)
        measured['memory'] = max(measured['memory'], memory)
        measured['log'] = log.stat().st_size
        repaired = json.loads(answer.read_text())['run']
        seconds, memory = run(program(engine, database, 'undo', log, repaired, *more))
        check(options.units, 'undo')
        measured['undo'].append(seconds)
        measured['memory'] = max(measured['memory'], memory)
        engine.put_back(database)
        say(f'{engine.name}: the bare UPDATEs')
        measured['theirs'].append(run(engine.client(database), source=updates)[0])
        check(0, 'the bare UPDATEs')
        engine.put_back(database)
    if options.cleaned:
        say(f'{engine.name}: Cinder cleans up {options.cleaned}')
        config = engine.folder / f'{database}.conf'
        cleaned = json.loads(call([
            ROOT / '.cache/venv/bin/python', ROOT / 'tests/cinder/cleanup.py', '--config-file', config, '--host', 'ctl-cleaned',
        ]))  # fmt: skip
        check(options.units - options.cleaned, "Cinder's clean-up")
        measured['cleanup'] = {'rows': cleaned['rows'], 'seconds': cleaned['seconds']}
    found[f'repair_{where}'] = measured


def write_updates(engine, database, rows, path):
    """The UPDATEs that a person would write for the same rows."""
    import rows as layout

    columns = layout.COLUMNS['volumes'].split()
    previous = {}
    with open(rows / 'volumes.tsv', encoding='utf-8') as file:
        for line in file:
            row = dict(zip(columns, line.rstrip('\n').split('\t')))
            if row['status'] == 'backing-up':
                previous[row['id']] = row['previous_status']
    columns = layout.COLUMNS['backups'].split()
    now = {'SQLite': "datetime('now')", 'MariaDB': 'UTC_TIMESTAMP()'}.get(engine.name, "timezone('utc', now())")
    with open(rows / 'backups.tsv', encoding='utf-8') as file, open(path, 'w', encoding='utf-8') as out:
        for line in file:
            row = dict(zip(columns, line.rstrip('\n').split('\t')))
            if row['status'] == 'creating':
                volume = row['volume_id']
                out.write(UPDATES.format(now=now, backup=row['id'], volume=volume, status=previous[volume]))


def time_first_output(folder, options, found):
    """A small database, as DevStack has it."""
    with ENGINES['sqlite'](folder) as engine:
        rows = generate(engine.folder / 'rows', 40, 20, 8, 0, 'mixed')
        engine.make('small', rows)
        log = engine.folder / 'log.jsonl'
        scans = [run(program(engine, 'small', 'scan', log)) for _ in range(20)]
        helps = [run([PROGRAM, '--help'])[0] for _ in range(20)]
    found['first'] = {'scan': [seconds for seconds, _ in scans], 'help': helps, 'memory': max(memory for _, memory in scans)}


def machine():
    model = next((line.split(':', 1)[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), platform.machine())
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {'cpu': model, 'cores': len(os.sched_getaffinity(0)), 'memory': memory, 'kernel': platform.release(),
            'commit': commit, 'date': time.strftime('%Y-%m-%d'), 'python': platform.python_version(),
            'cinder': call([ROOT / '.cache/venv/bin/python', '-c', 'import importlib.metadata as m; print(m.version("cinder"))']).strip()}  # fmt: skip


def arguments():
    parser = argparse.ArgumentParser(prog='benches/run', description=__doc__.splitlines()[0])
    parser.add_argument('--engine', action='append', choices=list(ENGINES), help='only this one; repeatable')
    parser.add_argument('--folder', default=tempfile.gettempdir(), help='where the databases are made, about 6 GB [default: %(default)s]')
    parser.add_argument('--memory-folder', default='/dev/shm', help='the same on a file system in memory [default: %(default)s]')
    parser.add_argument('--rows', type=int, default=1_000_000, help='backups in each database [default: %(default)s]')
    parser.add_argument('--live', type=int, default=10_000, help='how many of them are live, for scan [default: %(default)s]')
    parser.add_argument('--stuck', type=int, default=1_000, help='how many of those are stuck, for scan [default: %(default)s]')
    parser.add_argument('--units', type=int, default=10_000, help='how many are stuck, for repair [default: %(default)s]')
    parser.add_argument('--cleaned', type=int, default=600, help="how many Cinder's own clean-up gets [default: %(default)s]")
    parser.add_argument('--pairs', type=int, default=7, help='paired runs of scan [default: %(default)s]')
    parser.add_argument('--repair-pairs', type=int, default=3, help='paired runs of repair [default: %(default)s]')
    parser.add_argument('--only', choices=['scan', 'repair', 'disk', 'memory'], help='only a part: both repairs, or one of them')
    parser.add_argument('--out', default=ROOT / 'benches/RESULTS.md', help='the table [default: benches/RESULTS.md]')
    return parser.parse_args()


def main():
    options = arguments()
    work = pathlib.Path(tempfile.mkdtemp(prefix='cbr-bench-rows-', dir=options.folder))
    work.chmod(0o755)
    found = {'machine': machine(), 'options': vars(options) | {'out': str(options.out)}, 'engines': {}}
    try:
        wants = {None: {'scan', 'disk', 'memory'}, 'repair': {'disk', 'memory'}}.get(options.only, {options.only})
        time_first_output(options.folder, options, found)
        say('making the rows')
        if 'scan' in wants:
            scan_rows = generate(work / 'scan', options.rows, options.live, options.stuck, 0, 'mixed')
        if wants & {'disk', 'memory'}:
            repair_rows = generate(work / 'repair', options.rows, 2 * options.units, options.units, options.cleaned, 'creating')
        for name in options.engine or ENGINES:
            here = found['engines'].setdefault(name, {})
            if wants & {'scan', 'disk'}:
                with ENGINES[name](options.folder) as engine:
                    here.update(name=engine.name, client=engine.client_name, version=engine.version(), note=engine.note)
                    if 'scan' in wants:
                        time_scan(engine, scan_rows, options, here)
                    if 'disk' in wants:
                        time_repair(engine, repair_rows, options, here, 'disk')
            if 'memory' in wants and os.path.isdir(options.memory_folder):
                with ENGINES[name](options.memory_folder) as engine:
                    here.update(name=engine.name, client=engine.client_name, version=engine.version(), note=engine.note)
                    time_repair(engine, repair_rows, options, here, 'memory')
            say(json.dumps(here))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = results.markdown(found)
    results.replace_section(options.out, '', text)
    print(text)


if __name__ == '__main__':
    main()
