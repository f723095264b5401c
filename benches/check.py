"""Times `check` against the tools that a person would use without it, and writes its table into benches/RESULTS.md. Started by benches/run."""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
import zlib

import bench
import results
from engines import ROOT, call

MARK = '<!-- check -->'
DRIVER = 'cinder.backup.drivers.posix.PosixBackupDriver'


def volume(path, gib, compressible):
    """A volume: random bytes, text that zlib makes about half as large, or (None) nothing but zeros."""
    with open(path, 'wb') as file:
        if compressible is None:
            file.truncate(gib << 30)
            return
        for _ in range(gib * 64):
            block = os.urandom(16 << 20)
            if compressible:
                block = block[: 8 << 20].hex().encode()
            file.write(block)


def make(work, kind, gib, compression, chunk=524288000, empty=False, block=32768):
    """A full backup of a volume of `gib` GiB, by Cinder's own driver."""
    folder = work / kind
    folder.mkdir()
    data, store, config = folder / 'volume', folder / 'store', folder / 'cinder.conf'
    store.mkdir()
    config.write_text(
        f'[DEFAULT]\nstate_path = {folder}\nbackup_posix_path = {store}\nreport_interval = 1\nservice_down_time = 4\n'
        f'[oslo_concurrency]\nlock_path = {folder}\n[database]\nconnection = sqlite:///{folder}/cinder.sqlite\n'
    )
    call([ROOT / '.cache/venv/bin/cinder-manage', '--config-file', config, 'db', 'sync'])
    volume(data, gib, None if empty else compression != 'none')
    options = {'backup_posix_path': str(store), 'backup_compression_algorithm': compression, 'backup_file_size': str(chunk), 'backup_sha_block_size_bytes': str(block)}
    job = {'op': 'backup', 'name': kind, 'driver': DRIVER, 'options': options, 'host': 'ctl1',
           'volume': {'id': str(uuid.uuid4()), 'size': gib}, 'file': str(data)}  # fmt: skip
    made = drive(folder, config, [job])[0]
    if made['outcome'] != 'done':
        raise bench.Failed(f'Cinder made no backup: {made}')
    data.unlink()
    objects = sorted(str(path) for path in store.rglob('*-?????'))
    return {'folder': folder, 'config': config, 'id': made['backup']['id'], 'gib': gib, 'objects': objects, 'options': options}


def drive(folder, config, jobs):
    path = folder / 'jobs.json'
    path.write_text(json.dumps(jobs))
    words = [ROOT / '.cache/venv/bin/python', ROOT / 'tests/cinder/backups.py', '--config-file', config, '--jobs', path]
    output = call(words)
    return [json.loads(line) for line in output.splitlines() if line.startswith('{')]


def ours(made, level):
    words = [bench.PROGRAM, 'check', made['id'], '--level', level, '--settle', '0s', '--config-file', made['config'], '--no-input', '-q']
    return bench.run(words)


def copies(made, number, shared=None):
    """Adds backups with the same data, each with side files and a row of its own, and, unless they share one, a container of its own."""
    database = sqlite3.connect(made['folder'] / 'cinder.sqlite')
    columns = [row[1] for row in database.execute('PRAGMA table_info(backups)')]
    row = dict(zip(columns, database.execute('SELECT * FROM backups WHERE id = ?', [made['id']]).fetchone()))
    source = pathlib.Path(made['objects'][0]).parent
    store = pathlib.Path(made['options']['backup_posix_path'])
    for _ in range(number):
        new, volume_id = str(uuid.uuid4()), str(uuid.uuid4())

        def own(text):
            return text.replace(made['id'], new).replace(row['volume_id'], volume_id)

        container = shared or f'{new[:2]}/{new[2:4]}/{new}'
        (store / container).mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            target = store / container / own(path.name)
            if path.name.endswith(('_metadata', '_sha256file')):
                target.write_text(own(path.read_text()))
            else:
                target.hardlink_to(path)
        values = row | {'id': new, 'volume_id': volume_id, 'container': container, 'service_metadata': own(row['service_metadata'])}
        database.execute(f'INSERT INTO backups ({", ".join(columns)}) VALUES ({", ".join("?" * len(columns))})', list(values.values()))
    database.commit()
    database.close()


def quick(made):
    words = [bench.PROGRAM, 'check', '--all', '--level', 'quick', '--settle', '0s', '--config-file', made['config'], '--no-input', '-q']
    return bench.run(words)


def quickly(work, options):
    bench.say(f'making {options.many} backups')
    many = make(work, 'many', 1, 'zlib', chunk=65536000, empty=True)
    copies(many, options.many - 1)
    bench.say('check --all --level quick')
    quick(many)
    timed = [quick(many) for _ in range(options.pairs)]
    seconds, memory = statistics.median(seconds for seconds, _ in timed), max(memory for _, memory in timed)
    side = sum(path.stat().st_size for path in pathlib.Path(many['objects'][0]).parent.iterdir() if path.name.endswith(('_metadata', '_sha256file')))
    shutil.rmtree(many['folder'])
    return [
        '', f'Quick check of {options.many:,} posix backups of 1 GiB ({side / (1 << 20):.1f} MiB of side files each), hot cache: {seconds:.2f} s, '
        f'{seconds * 1000 / options.many:.1f} ms a backup, {memory:.0f} MiB.',
    ]  # fmt: skip


#: A far object store: seconds until an answer begins, bytes per second and connection, connections.
LATENCY, RATE, CONNECTIONS = 0.02, 48 << 20, 16


@contextlib.contextmanager
def served(made, folder, *mode):
    """An object store with the files of a folder as the bucket of all backups. Returns its URL."""
    words = [sys.executable, ROOT / 'benches/far.py', folder, LATENCY, RATE, *mode]
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE) as server:
        try:
            url = f'http://127.0.0.1:{int(server.stdout.readline())}'
            database = sqlite3.connect(made['folder'] / 'cinder.sqlite')
            database.execute("UPDATE backups SET service = 'cinder.backup.drivers.s3.S3BackupDriver', container = 'b'")
            database.commit()
            database.close()
            with open(made['config'], 'a') as config:
                config.write(f'[DEFAULT]\nbackup_s3_endpoint_url = {url}\nbackup_s3_store_access_key = a\nbackup_s3_store_secret_key = s\n')
            yield url
        finally:
            server.terminate()


def together(work, options):
    """A quick check of many backups in one bucket, with pages of the bucket's listing and with a listing of each backup."""
    bench.say(f'making {options.listed} backups for an object store')
    made = make(work, 'bucket', 1, 'zlib', chunk=65536000, empty=True, block=65536000)
    copies(made, options.listed, 'b')
    database = sqlite3.connect(made['folder'] / 'cinder.sqlite')
    database.execute('DELETE FROM backups WHERE id = ?', [made['id']])
    database.commit()
    database.close()
    said = []
    for mode in ([], ['alone']):
        bench.say(f'check --all --level quick, from an object store {" ".join(mode)}')
        with served(made, pathlib.Path(made['options']['backup_posix_path']) / 'b', *mode) as url:
            seconds, memory = quick(made)
            with urllib.request.urlopen(f'{url}/requests') as answer:
                said.append((int(answer.read()), seconds, memory))
    shutil.rmtree(made['folder'])
    (requests, seconds, memory), (alone, alone_seconds, _) = said
    return [
        '', f'Quick check of {options.listed:,} backups of {len(made["objects"])} objects in one S3 bucket (the server of the line with *), one run: '
        f'{requests:,} requests, {seconds:.1f} s, {memory:.0f} MiB. If each',
        f'backup is listed by itself, because the server refuses to list the bucket: {alone:,} requests, {alone_seconds:.1f} s. The two side files of each '
        'backup are read in both cases.',
    ]  # fmt: skip


def from_afar(work, options):
    """A deep check of a backup in an object store, against curl fetching the same objects over as many connections."""
    bench.say(f'making {options.far} GiB for an object store')
    far = make(work, 'far', options.far, 'none', chunk=52428800)
    folder = pathlib.Path(far['objects'][0]).parent
    with served(far, folder) as url:
        names = [pathlib.Path(path).name for path in far['objects']]
        wanted = far['folder'] / 'wanted'
        wanted.write_text(''.join(f'url = "{url}/b/{name}"\noutput = "/dev/null"\n' for name in names))

        def curl():
            begun = time.perf_counter()
            call(['curl', '--silent', '--fail', '--parallel', '--parallel-immediate', '--parallel-max', CONNECTIONS, '--config', wanted])
            return time.perf_counter() - begun, 0

        bench.say('check --level deep, from an object store')
        timed, other = bench.pairs(options.pairs, lambda: ours(far, 'deep'), curl)
    shutil.rmtree(far['folder'])
    what = f'deep, {options.far} GiB in S3 *'
    note = (
        f'\* A server on loopback that is as slow as a far one: {LATENCY * 1000:.0f} ms until an answer begins, {RATE >> 20} MiB/s a connection. '
        f'`check` reads {CONNECTIONS} objects at once.'
    )
    return row(what, far, timed, f'`curl --parallel-max {CONNECTIONS}`', other, '>= 0.9', lambda ratio: ratio >= 0.9), note


def md5sum(made):
    """One process for each core, each with its share of the objects."""
    cores = len(os.sched_getaffinity(0))
    list_ = made['folder'] / 'objects'
    list_.write_bytes(b''.join(path.encode() + b'\0' for path in made['objects']))
    begun = time.perf_counter()
    subprocess.run(f'xargs -0 -n 1 -P {cores} md5sum < {list_} > /dev/null', shell=True, check=True)
    return time.perf_counter() - begun, 0


def inflate(path):
    """The physical limit of a check of compressed data: the same bytes through zlib and SHA-256, and nothing else."""
    inflater, digest = zlib.decompressobj(), hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(1 << 20):
            digest.update(inflater.decompress(piece))
    return digest.digest()


def inflated(made):
    begun = time.perf_counter()
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        pool.map(inflate, made['objects'], chunksize=1)
    return time.perf_counter() - begun, 0


def restore(made):
    """A restore by Cinder's own driver to a file: the way to check a backup without this program."""
    target = made['folder'] / 'restored'
    job = {'op': 'restore', 'driver': DRIVER, 'options': made['options'], 'host': 'ctl1', 'backup': made['id'], 'file': str(target), 'new': False}
    result = drive(made['folder'], made['config'], [job])[0]
    target.unlink(missing_ok=True)
    if result['outcome'] != 'done':
        raise bench.Failed(f'Cinder did not restore: {result}')
    return result['seconds']


def row(what, made, timed, peer, other, aim, met):
    def rate(runs):
        return f'{made["gib"] * 1024 / statistics.median(seconds for seconds, _ in runs):,.0f} MiB/s'

    ratio = statistics.median(theirs[0] / mine[0] for mine, theirs in zip(timed, other))
    memory = max(memory for _, memory in timed)
    verdict = 'yes' if met(ratio) else '**no**'
    return f'| {what} | {rate(timed)} | {peer} | {rate(other)} | {ratio:.2f} | {memory:.0f} MiB | {aim} | {verdict} |'


def main():
    parser = argparse.ArgumentParser(prog='benches/run --check', description=__doc__.splitlines()[0])
    parser.add_argument('--folder', default=tempfile.gettempdir(), help='where the backups are made [default: %(default)s]')
    parser.add_argument('--plain', type=int, default=10, help='GiB of uncompressed data [default: %(default)s]')
    parser.add_argument('--packed', type=int, default=4, help='GiB of data that zlib compresses [default: %(default)s]')
    parser.add_argument('--far', type=int, default=4, help='GiB of data in an object store [default: %(default)s]')
    parser.add_argument('--many', type=int, default=1000, help='backups of a quick check [default: %(default)s]')
    parser.add_argument('--listed', type=int, default=10_000, help='backups of a quick check of one bucket [default: %(default)s]')
    parser.add_argument('--pairs', type=int, default=5, help='paired runs [default: %(default)s]')
    parser.add_argument('--out', default=ROOT / 'benches/RESULTS.md', help='the file whose last part this writes')
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix='cbr-bench-check-', dir=options.folder))
    here = bench.machine()
    lines = [
        '## check', '',
        f'Measured on {here["date"]} at {here["commit"]}, on the machine named above or one like it.', '',
        f'Backups made by Cinder\'s own posix driver (objects of 500 MiB, in S3 of 50), all in the page cache; {options.pairs} paired runs, medians; the ratio',
        'is our speed divided by theirs, pair by pair: above 1 is faster than the peer.', '',
        '| what | check | peer | its speed | ratio | memory | aim | aim met |', '|---|---|---|---|---|---|---|---|',
    ]  # fmt: skip
    try:
        bench.say(f'making {options.plain} GiB without compression')
        plain = make(work, 'plain', options.plain, 'none')
        for level in ('deep', 'restore'):
            bench.say(f'check --level {level}')
            timed, other = bench.pairs(options.pairs, lambda: ours(plain, level), lambda: md5sum(plain))
            lines.append(row(f'{level}, {options.plain} GiB, none', plain, timed, '`md5sum`, one a core', other, '>= 1', lambda ratio: ratio >= 1))
        bench.say("Cinder's restore")
        seconds = restore(plain)
        lines.append(row(f'restore, {options.plain} GiB, none', plain, timed, "restore by Cinder's driver", [(seconds, 0)] * len(timed), '>= 8', lambda ratio: ratio >= 8))
        shutil.rmtree(plain['folder'])
        bench.say(f'making {options.packed} GiB with zlib')
        packed = make(work, 'packed', options.packed, 'zlib')
        timed, other = bench.pairs(options.pairs, lambda: ours(packed, 'deep'), lambda: inflated(packed))
        lines.append(row(f'deep, {options.packed} GiB, zlib', packed, timed, 'zlib + SHA-256 in Python, a process a core', other, '>= 0.8', lambda ratio: ratio >= 0.8))
        shutil.rmtree(packed['folder'])
        afar, note = from_afar(work, options)
        lines += [afar, '', note, *quickly(work, options), *together(work, options)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    results.replace_section(options.out, MARK, '\n'.join(lines))
    print('\n'.join(lines))


if __name__ == '__main__':
    sys.exit(main())
