"""Times `check` against what a person has without it, and writes its table into benches/RESULTS.md. Started by benches/run."""

import argparse
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import zlib

import bench
from engines import ROOT, call

MARK = '<!-- check -->'
DRIVER = 'cinder.backup.drivers.posix.PosixBackupDriver'


def volume(path, gib, compressible):
    """A volume: random bytes, or text that zlib makes about half as large."""
    with open(path, 'wb') as file:
        for _ in range(gib * 64):
            block = os.urandom(16 << 20)
            if compressible:
                block = block[: 8 << 20].hex().encode()
            file.write(block)


def make(work, kind, gib, compression):
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
    volume(data, gib, compression != 'none')
    options = {'backup_posix_path': str(store), 'backup_compression_algorithm': compression, 'backup_file_size': '524288000'}
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


def md5sum(made):
    """One process a core, each with its share of the objects."""
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
    """A restore by Cinder's own driver to a file: how one checks a backup today."""
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
    parser.add_argument('--pairs', type=int, default=5, help='paired runs [default: %(default)s]')
    parser.add_argument('--out', default=ROOT / 'benches/RESULTS.md', help='the file whose last part this writes')
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix='cbr-bench-check-', dir=options.folder))
    lines = [
        MARK, '', '## check', '',
        f'Backups made by Cinder\'s own posix driver (objects of 500 MiB), all in the page cache; {options.pairs} paired runs, medians; the ratio',
        'is our speed over theirs, pair by pair: above 1 is faster than the peer.', '',
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
    finally:
        shutil.rmtree(work, ignore_errors=True)
    out = pathlib.Path(options.out)
    before = out.read_text().split(MARK)[0].rstrip() if out.exists() else '# Measured'
    out.write_text(before + '\n\n' + '\n'.join(lines) + '\n')
    print('\n'.join(lines))


if __name__ == '__main__':
    sys.exit(main())
