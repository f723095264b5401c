"""The three engines: a separate server (or a file), its databases, its client, its bulk loader.

Every server listens on a socket in a folder of its own and runs under tests/it/servers/supervise.sh, which ends it and
removes the folder as soon as this process is gone, even by SIGKILL.
"""

import csv
import os
import pathlib
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUPERVISE = ROOT / 'tests/it/servers/supervise.sh'
#: In the order of their foreign keys, so that each can be loaded.
TABLES = ['volume_types', 'services', 'quota_usages', 'volumes', 'volume_attachment', 'snapshots', 'backups']
#: The columns that a repair changes, which are restored before the next one.
CHANGED = {'backups': ['status', 'updated_at', 'fail_reason', 'size', 'object_count', 'service_metadata', 'num_dependent_backups'],
           'volumes': ['status', 'updated_at', 'previous_status']}  # fmt: skip


def call(command, **options):
    """Runs a command and returns its output. If it fails, ends the benchmark with its messages."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise SystemExit(f'{command[0]} failed with {done.returncode}: {done.stderr.decode(errors="replace")[-3000:]}')
    return done.stdout.decode()


def header(folder, table):
    import rows

    return rows.COLUMNS[table].split()


class Engine:
    #: The literal for false.
    false = '0'
    note = ''

    def __init__(self, folder):
        """Puts everything into a new folder in `folder`."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='cbr-bench-', dir=folder))
        self.folder.chmod(0o755)
        self.supervisor = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.supervisor:
            self.supervisor.stdin.close()
            self.supervisor.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        pass

    def supervise(self, user, signal, command):
        """Starts a server as `user`, if this is root, and waits until it answers."""
        server = self.folder / 'server'
        words = ['sh', SUPERVISE, server, signal, *as_user(user), *command]
        environment = {name: value for name, value in os.environ.items() if name != 'CINDER_TEST_RUNNING'}
        self.supervisor = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd='/', start_new_session=True, env=environment,
        )  # fmt: skip
        self.supervisor.stdin.write(b'start\n')
        self.supervisor.stdin.flush()
        deadline = time.monotonic() + 120
        while not self.answers():
            if time.monotonic() > deadline:
                log = (server / 'log').read_text(errors='replace')[-3000:]
                raise SystemExit(f'{self.name} does not answer; its log ends:\n{log}')
            time.sleep(0.2)

    def server_folder(self, user):
        server = self.folder / 'server'
        server.mkdir()
        server.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(server, user, pwd.getpwnam(user).pw_gid)
        return server

    def make(self, database, rows):
        """A database with Cinder's real schema and the rows of a folder of tab-separated files."""
        self.create(database)
        config = self.folder / f'{database}.conf'
        config.write_text(self.cinder_conf(database))
        call([ROOT / '.cache/venv/bin/cinder-manage', '--config-file', config, 'db', 'sync'])
        for table in TABLES:
            self.load(database, table, header(rows, table), rows / f'{table}.tsv')
        self.settle(database)

    def cinder_conf(self, database):
        return (
            # With short heartbeat intervals silence counts as proof even on a server that has just started.
            f'[DEFAULT]\nstate_path = {self.folder}\nreport_interval = 1\nservice_down_time = 4\n[oslo_concurrency]\nlock_path = {self.folder}\n'
            f'[database]\nconnection = {self.url(database)}\n'
        )

    def keep(self, database):
        """Keeps the rows that a repair will change."""
        for table in CHANGED:
            wanted = "('creating')" if table == 'backups' else "('backing-up')"
            self.sql(database, f'CREATE TABLE kept_{table} AS SELECT * FROM {table} WHERE status IN {wanted} AND deleted = {self.false}')
            self.sql(database, f'CREATE UNIQUE INDEX kept_{table}_id ON kept_{table} (id)')

    def number(self, database, query):
        return int(self.sql(database, query).split()[0])


def as_user(user):
    if os.geteuid() != 0:
        return []
    return ['setpriv', f'--reuid={user}', f'--regid={pwd.getpwnam(user).pw_gid}', '--init-groups']


class Sqlite(Engine):
    name = 'SQLite'
    client_name = 'sqlite3'
    note = 'journal_mode=delete, synchronous=full'

    def version(self):
        return call(['sqlite3', '--version']).split()[0]

    def path(self, database):
        return self.folder / f'{database}.sqlite'

    def url(self, database):
        return f'sqlite:///{self.path(database)}'

    def create(self, database):
        pass

    def load(self, database, table, columns, path):
        connection = sqlite3.connect(self.path(database))
        connection.execute('PRAGMA synchronous = OFF')
        places = ', '.join('?' * len(columns))

        def cells():
            with open(path, encoding='utf-8', newline='') as file:
                for row in csv.reader(file, delimiter='\t', quoting=csv.QUOTE_NONE):
                    # SQLAlchemy always writes microseconds.
                    yield [
                        None if cell == '\\N' else cell + '.000000' if name.endswith('_at') else cell
                        for name, cell in zip(columns, row)
                    ]

        with connection:
            connection.executemany(f'INSERT INTO {table} ({", ".join(columns)}) VALUES ({places})', cells())
        connection.close()

    def settle(self, database):
        # A database of this size has index statistics; servers collect them by themselves.
        self.sql(database, 'ANALYZE')
        os.sync()

    def client(self, database):
        return ['sqlite3', '-batch', '-bail', str(self.path(database))]

    def sql(self, database, text):
        return call([*self.client(database), text])

    def keep(self, database):
        shutil.copyfile(self.path(database), self.folder / 'kept.sqlite')

    def put_back(self, database):
        shutil.copyfile(self.folder / 'kept.sqlite', self.path(database))
        os.sync()


class Mariadb(Engine):
    name = 'MariaDB'
    client_name = 'mariadb'
    note = 'innodb_flush_log_at_trx_commit=1, doublewrite on, no binary log, buffer pool 1 GiB'

    def start(self):
        user = 'mysql' if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        server = self.server_folder(user)
        data = server / 'data'
        call([
            'mariadb-install-db', '--no-defaults', '--skip-test-db', '--auth-root-authentication-method=normal',
            '--skip-name-resolve', f'--user={user}', f'--datadir={data}',
        ])  # fmt: skip
        self.socket = server / 'socket'
        program = next(path for path in ('/usr/sbin/mariadbd', '/usr/bin/mariadbd', '/usr/local/bin/mariadbd') if os.path.exists(path))
        self.supervise(user, 'TERM', [
            program, '--no-defaults', f'--datadir={data}', f'--socket={self.socket}', f'--pid-file={server}/mariadbd.pid',
            f'--tmpdir={server}', '--skip-networking', '--skip-log-bin', '--character-set-server=utf8mb3',
            '--collation-server=utf8mb3_general_ci', '--innodb-buffer-pool-size=1G', '--innodb-flush-log-at-trx-commit=1',
            '--local-infile=1',
        ])  # fmt: skip
        self.sql('mysql', "CREATE USER bench@localhost IDENTIFIED BY 'bench'; GRANT ALL ON *.* TO bench@localhost")

    def answers(self):
        command = [*self.client('mysql'), '-e', 'SELECT 1']
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def version(self):
        return self.sql('mysql', 'SELECT VERSION()').strip()

    def url(self, database):
        return f'mysql+pymysql://bench:bench@localhost/{database}?charset=utf8&unix_socket={self.socket}'

    def create(self, database):
        self.sql('mysql', f'CREATE DATABASE {database}')

    def client(self, database):
        return ['mariadb', '--no-defaults', '--user=root', f'--socket={self.socket}', '--batch', '--skip-column-names', database]

    def sql(self, database, text):
        return call([*self.client(database), '--local-infile=1', '-e', text])

    def load(self, database, table, columns, path):
        names = ', '.join(f'`{name}`' for name in columns)
        self.sql(database, f"SET unique_checks = 0; LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table} CHARACTER SET utf8mb3 ({names})")

    def settle(self, database):
        self.sql(database, f'ANALYZE TABLE {", ".join(TABLES)}')
        os.sync()

    def put_back(self, database):
        for table, columns in CHANGED.items():
            sets = ', '.join(f'live.{column} = kept.{column}' for column in columns)
            self.sql(database, f'UPDATE {table} live JOIN kept_{table} kept ON kept.id = live.id SET {sets}')
        # Waits until the purge of the last run's old row versions is done.
        self.sql(database, 'SET GLOBAL innodb_max_purge_lag_wait = 0')


class Postgresql(Engine):
    name = 'PostgreSQL'
    client_name = 'psql'
    false = 'FALSE'
    note = 'fsync and synchronous_commit on, shared_buffers 128 MiB'

    def start(self):
        user = 'postgres' if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.socket = self.server_folder(user)
        data = self.socket / 'data'
        command = [*as_user(user), program('initdb'), '--username=postgres', '--auth=trust', '--encoding=UTF8', '--locale=C.UTF-8']
        call([*command, '--pgdata', data], cwd=self.socket)
        self.supervise(user, 'INT', [
            program('postgres'), '-D', data, '-c', f'unix_socket_directories={self.socket}', '-c', 'listen_addresses=',
        ])  # fmt: skip

    def answers(self):
        command = [*self.client('postgres'), '-c', 'SELECT 1']
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def version(self):
        return self.sql('postgres', 'SHOW server_version').split()[0]

    def url(self, database):
        return f'postgresql+psycopg2://postgres@/{database}?host={self.socket}'

    def create(self, database):
        self.sql('postgres', f'CREATE DATABASE {database}')

    def client(self, database):
        return ['psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-h', str(self.socket), '-U', 'postgres', '-d', database]

    def sql(self, database, text):
        return call([*self.client(database), '-c', text])

    def load(self, database, table, columns, path):
        names = ', '.join(f'"{name}"' for name in columns)
        with open(path, 'rb') as file:
            call([*self.client(database), '-c', f'COPY {table} ({names}) FROM STDIN'], stdin=file)

    def settle(self, database):
        self.sql(database, 'VACUUM ANALYZE')
        self.sql(database, 'CHECKPOINT')

    def put_back(self, database):
        for table, columns in CHANGED.items():
            sets = ', '.join(f'{column} = kept.{column}' for column in columns)
            self.sql(database, f'UPDATE {table} live SET {sets} FROM kept_{table} kept WHERE kept.id = live.id')
            self.sql(database, f'VACUUM ANALYZE {table}')
        self.sql(database, 'CHECKPOINT')


def program(name):
    """The newest version of a PostgreSQL program. Debian keeps each version in a folder that is not on the path."""
    found = [(int(path.parent.parent.name), path) for path in pathlib.Path('/usr/lib/postgresql').glob(f'*/bin/{name}')]
    return max(found)[1] if found else name


ENGINES = {'sqlite': Sqlite, 'mariadb': Mariadb, 'postgresql': Postgresql}
