"""Makes benches/RESULTS.md from the measurements."""

import pathlib
import re
import statistics

SCAN_AIM, MEMORY_AIM, CLEANUP_AIM, FIRST_AIM = 1.3, 64, 20, 50
#: By where the databases are.
REPAIR_AIMS = {'disk': 1.0, 'memory': 2.0}


def median(values):
    return statistics.median(values)


def spread(values):
    return f'{min(values):.2f} to {max(values):.2f}' if max(values) >= 1 else f'{min(values) * 1000:.0f} to {max(values) * 1000:.0f} ms'


def seconds(values):
    middle = median(values)
    return f'{middle:.1f} s' if middle >= 10 else f'{middle:.2f} s' if middle >= 1 else f'{middle * 1000:.0f} ms'


def ratio(ours, theirs):
    """The median of each pair's ratio, which a short load on the machine disturbs least."""
    return median([a / b for a, b in zip(ours, theirs)])


def table(head, rows):
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in rows])


def replace_section(path, mark, text):
    """Replaces the section of RESULTS.md that begins with `mark`; '' is the first one. Each section comes from a run of its own."""
    path = pathlib.Path(path)
    first, *rest = re.split(r'(?m)^(<!-- \w+ -->)$', path.read_text() if path.exists() else '')
    sections = {'': first, **dict(zip(rest[::2], rest[1::2])), mark: text}
    path.write_text('\n\n'.join(f'{mark}\n\n{body.strip()}'.strip() for mark, body in sections.items()) + '\n')


def met(yes):
    return 'yes' if yes else '**no**'


def scan_part(found, options):
    rows, missed = [], []
    for engine in found['engines'].values():
        scan = engine.get('scan')
        if not scan:
            continue
        factor = ratio(scan['ours'], scan['theirs'])
        fits = factor <= SCAN_AIM and scan['memory'] < MEMORY_AIM
        if not fits:
            missed.append(engine['name'])
        rows.append([
            engine['name'], f'{seconds(scan["ours"])} ({spread(scan["ours"])})', seconds(scan['json']),
            f'{seconds(scan["theirs"])} ({spread(scan["theirs"])})', f'{factor:.2f}', f'{scan["memory"]:.0f} MiB', met(fits),
            f'{seconds(scan["alike"])} ({spread(scan["alike"])})', f'{ratio(scan["again"], scan["alike"]):.2f}',
        ])  # fmt: skip
    if not rows:
        return ''
    return f'''## scan

{options['rows']:,} backups, {options['live']:,} of them live, {options['stuck']:,} of those stuck; 50,000 volumes, 20,000 snapshots.
`scan` with its table against the server's own client with the four SELECTs that a person would type to see the same:
the pending backups with every column that `scan` reads, the pending volumes, the pending snapshots, the heartbeats.
Output goes to /dev/null. Times include connecting. Medians of {options['pairs']} paired runs (least to most); the ratio is the median of
the pairs'. Aim: at most {SCAN_AIM} times the plain SELECTs, under {MEMORY_AIM} MiB.

{table(['', 'scan', 'scan, JSON', 'plain SELECTs', 'ratio', 'memory', 'aim met', 'SELECTs of the same rows', 'ratio'], rows)}

In this time `scan` does more than the plain SELECTs: it reads every live backup, not only the pending ones, to count chains and
quotas; it reads the volumes, snapshots, parents and attachments of each pending one; and it decides. The last two columns
compare it with the client and SELECTs that read those rows, too.
'''


def repair_part(found, options, where):
    rows = []
    for engine in found['engines'].values():
        repair = engine.get(f'repair_{where}')
        if not repair:
            continue
        factor = ratio(repair['ours'], repair['theirs'])
        units = options['units']
        rate = units / median(repair['ours'])
        row = [
            engine['name'], f'{repair["fsync"]:.2f} ms', f'{seconds(repair["ours"])} ({spread(repair["ours"])})', f'{rate:,.0f}',
            f'{seconds(repair["theirs"])} ({spread(repair["theirs"])})', f'{factor:.2f}', met(factor <= REPAIR_AIMS[where]),
        ]  # fmt: skip
        cleanup = repair.get('cleanup')
        if cleanup:
            theirs = cleanup['rows'] / cleanup['seconds']
            row += [f'{theirs:,.0f}', f'{rate / theirs:,.0f}', met(rate / theirs >= CLEANUP_AIM)]
        else:
            row += ['', '', '']
        rows.append([*row, seconds(repair['undo']), f'{repair["memory"]:.0f} MiB'])
    head = ['', 'write + fsync', 'repair', 'units/s', 'bare UPDATEs', 'ratio', 'aim met', "Cinder's units/s", 'faster by', 'aim met',
            'undo', 'memory']  # fmt: skip
    return table(head, rows) if rows else ''


def floor(found):
    """The limit of the disk: one writer, and three fsyncs for each commit."""
    for engine in found['engines'].values():
        repair = engine.get('repair_disk')
        if engine['name'] == 'SQLite' and repair:
            most = 1000 / (3 * repair['fsync'])
            return (
                'Each unit is one transaction, so that none is ever half done. A commit of SQLite waits for three fsyncs (journal, database,\n'
                f'journal again): this disk allows at most {most:,.0f} units a second, whatever program writes them.\n'
            )
    return ''


def markdown(found):
    options, machine = found['options'], found['machine']
    first = found['first']
    parts = [f'''# Measured

Written by `benches/run` on {machine['date']} at {machine['commit']}; run it again to get the table for your machine.

Machine: {machine['cores']} cores of {machine['cpu']}, {machine['memory']:.0f} GiB, Linux {machine['kernel']}. Cinder
{machine['cinder']} on Python {machine['python']}. Servers, all through a local socket, with default settings unless named:
''']  # fmt: skip
    for engine in found['engines'].values():
        parts.append(f'- {engine["name"]} {engine["version"]} (client `{engine["client"]}`): {engine["note"]}')
    parts.append('')
    scan = scan_part(found, options)
    if scan:
        parts.append(scan)
    disk, memory = repair_part(found, options, 'disk'), repair_part(found, options, 'memory')
    if disk or memory:
        parts.append(f'''## repair and undo

{options['units']:,} backups stuck in `creating`, each with a volume in `backing-up`: {2 * options['units']:,} rows to change, among {options['rows']:,}
backups of which {2 * options['units']:,} are live. `repair --yes` from start to end (scan, plan, and for each unit one transaction: lock,
compare, decide again, guarded UPDATEs, read back; the audit log with its two fsyncs a batch) against the bare
{2 * options['units']:,} UPDATEs by id in a file, piped into the client, each in a transaction of its own. Both
start from the same rows and end with the same statuses, which is checked. {options['repair_pairs']} paired runs. Cinder's own start-up
clean-up, which is what a restart of cinder-backup runs, gets {options['cleaned']} of the rows, without message bus and storage, and without
Python's start; its rate is compared. `--assume-dead all` vouches for the hosts, as a person does who writes UPDATEs by hand; without it the
program first waits for a heartbeat, one and a half report_interval (15 s by default), once for all units. Aims: at most {REPAIR_AIMS["disk"]} times the bare UPDATEs on a disk and {REPAIR_AIMS["memory"]} times in memory, at least {CLEANUP_AIM} times Cinder's rate.
''')
    if disk:
        parts.append(f'''### On a disk

{disk}

Two statements by hand are two commits and two fsyncs; a unit is one. If an fsync is slow, the guarded way is the faster one.
{floor(found)}''')
    if memory:
        parts.append(f'''### Where an fsync costs nothing

The same with the databases and the log on a file system in memory. It shows the cost of the guards alone, and is the worst case
for the ratio.

{memory}
''')
    parts.append(f'''## First output

A SQLite database of 40 backups, 8 of them stuck: `scan` from start to end {seconds(first['scan'])} ({spread(first['scan'])}),
`--help` {seconds(first['help'])}; {first['memory']:.0f} MiB. Aim: within {FIRST_AIM} ms: {met(median(first['scan']) * 1000 <= FIRST_AIM)}.
''')
    return '\n'.join(parts)
