"""Times `scan` on tables that look like a real cloud, and shows the growth of time and memory. Started by `benches/run --cloud`."""

import argparse
import pathlib
import shutil
import sys
import tempfile

import bench
import results
from engines import ENGINES, ROOT

MARK = '<!-- cloud -->'
#: What `scan` reads: every live backup twice, first to count and then to find those that refer to a row in question.
SAME = (
    bench.PLAIN + bench.SAME + 'SELECT id, volume_id, parent_id, snapshot_id, restore_volume_id FROM backups WHERE deleted = {false};\n'
)
#: Every parent whose counter is wrong is read by its id, too.
WRONG = 'SELECT {backup} FROM backups WHERE deleted = {false} AND num_dependent_backups > 0;\n'
AIMS = {'cloud': 1.0, 'wrong': 3.0}


def measure(engine, rows, kind, pairs):
    engine.make('cloud', rows)
    log, answer, same = (engine.folder / name for name in ('scan.jsonl', 'scan.txt', 'same.sql'))
    bench.run(bench.program(engine, 'cloud', 'scan', log, '--format', 'value', '-c', 'ID'), output=answer)
    with open(answer, encoding='utf-8') as file:
        findings = sum(1 for _ in file)
    of_v = ', '.join(f'v.{column}' for column in bench.VOLUME.split(', '))
    text = SAME + (WRONG if kind == 'wrong' else '')
    same.write_text(
        text.format(backup=bench.BACKUP, volume=bench.VOLUME, snapshot=bench.SNAPSHOT, volume_of_v=of_v, false=engine.false)
    )
    scan = lambda: bench.run(bench.program(engine, 'cloud', 'scan', log))  # noqa: E731
    ours, theirs = bench.pairs(pairs, scan, lambda: bench.run(engine.client('cloud'), source=same))
    stream = bench.run(bench.program(engine, 'cloud', 'scan', log, '--format', 'jsonl'))
    return findings, ours, theirs, stream


def main():
    parser = argparse.ArgumentParser(prog='benches/run --cloud', description=__doc__.splitlines()[0])
    parser.add_argument('--engine', action='append', choices=list(ENGINES), help='only this one; repeatable')
    parser.add_argument('--folder', default=tempfile.gettempdir(), help='where the databases are made, about 10 GB [default: %(default)s]')
    parser.add_argument('--live', type=int, default=1_000_000, help='live backups, a third of all [default: %(default)s]')
    large_help = 'live backups of the large table on SQLite, half of all; 0 for no large table [default: %(default)s]'
    parser.add_argument('--large', type=int, default=5_000_000, help=large_help)
    parser.add_argument('--pairs', type=int, default=5, help='paired runs [default: %(default)s]')
    parser.add_argument('--out', default=ROOT / 'benches/RESULTS.md', help='the table [default: benches/RESULTS.md]')
    options = parser.parse_args()
    live = options.live
    shapes = [(3 * live, live, live // 1000, 'cloud'), (3 * live, live, live // 100, 'cloud'), (3 * live, live, live // 1000, 'wrong')]
    large = (2 * options.large, options.large, live // 1000, 'cloud')
    if options.large:
        shapes.append(large)
    here = bench.machine()
    lines = []
    for shape in shapes:
        total, alive, stuck, kind = shape
        work = pathlib.Path(tempfile.mkdtemp(prefix='cbr-bench-rows-', dir=options.folder))
        work.chmod(0o755)
        try:
            rows = bench.generate(work / 'rows', total, alive, stuck, 0, kind)
            for name in options.engine or ENGINES:
                if shape == large and name != 'sqlite':
                    continue
                with ENGINES[name](options.folder) as engine:
                    bench.say(f'{engine.name}: {alive:,} live of {total:,} backups, {stuck:,} stuck ({kind})')
                    findings, ours, theirs, stream = measure(engine, rows, kind, options.pairs)
                    seconds = [[run[0] for run in runs] for runs in (ours, theirs)]
                    factor = results.ratio(*seconds)
                    lines.append([
                        engine.name, f'{total:,}', f'{alive:,}', f'{stuck:,}', f'{findings:,}',
                        *(f'{results.seconds(each)} ({results.spread(each)})' for each in seconds), f'{factor:.2f}', f'{AIMS[kind]:.1f}',
                        results.met(factor <= AIMS[kind]), f'{max(run[1] for run in ours):.0f} MiB', f'{stream[0]:.1f} s, {stream[1]:.0f} MiB',
                    ])  # fmt: skip
                    bench.say(' | '.join(lines[-1]))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    head = ['', 'backups', 'live', 'stuck', 'findings', 'scan', 'SELECTs of the same rows', 'ratio', 'aim', 'aim met', 'memory', '`-f jsonl`']
    text = f"""## scan of a cloud

Measured on {here['date']} at {here['commit']}, on the machine named above or one like it.

20 backups a volume, in chains of a full one and six increments; 40 of 200 projects own 80 % of the rows; some volumes were written after
their backup was started; a thousandth as many volumes and snapshots as backups are left over. `scan` with its table against the server's
own client with SELECTs of the same rows; output goes to /dev/null; {options.pairs} paired runs, medians (least to most).
In the tables with the most findings, every parent with an increment has a wrong counter.

{results.table(head, lines)}
"""
    results.replace_section(options.out, MARK, text)
    print(text)


if __name__ == '__main__':
    sys.exit(main())
