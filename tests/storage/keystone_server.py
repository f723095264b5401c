"""Keystone on 127.0.0.1 with SQLite, and the accounts that Cinder and Swift need.

Everything but the account of the service is in the domain `storage`, so that a client that omits the domain fails. The catalogue
has two regions for one store: its host is 127.0.0.1 in RegionOne and localhost in RegionTwo. The ids that a client needs are
written to seed.json in the home folder once everything is set up.
"""

import argparse
import json
import os
import shutil
import sys
import threading
import traceback
import urllib.error
import urllib.request
import warnings

import children

warnings.simplefilter('ignore')

CONF = """
[DEFAULT]
use_stderr = true
default_log_levels = keystone=ERROR
[database]
connection = sqlite:///{home}/keystone.db
[token]
provider = fernet
expiration = {token_life}
[fernet_tokens]
key_repository = {home}/fernet
[fernet_receipts]
key_repository = {home}/fernet
[credential]
key_repository = {home}/credential
[cache]
enabled = false
[identity]
password_hash_algorithm = bcrypt
password_hash_rounds = 4
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--home', required=True, help='a folder for all files; what is stored there is found again')
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--password', required=True, help='of every account')
    parser.add_argument('--swift', required=True, help="the object store's URL, without a path")
    parser.add_argument('--token-life', type=int, default=3600)
    return parser.parse_args()


def set_up(home, conf, url, password):
    """Does what keystone-manage's db_sync, fernet_setup, credential_setup and bootstrap do, in one process."""
    import keystone.conf
    from keystone.cmd.bootstrap import Bootstrapper
    from keystone.common import fernet_utils, sql
    from keystone.common.sql import upgrades

    keystone.conf.configure()
    sql.initialize()
    keystone.conf.set_default_for_default_log_levels()
    keystone.conf.CONF([], project='keystone', default_config_files=[conf])
    keystone.conf.setup_logging()
    upgrades.offline_sync_database_to_version(None)
    for name, group, keys in (('fernet', 'fernet_tokens', 3), ('credential', 'credential', 3)):
        keyring = fernet_utils.FernetUtils(os.path.join(home, name), keys, group)
        keyring.create_key_directory()
        keyring.initialize_key_repository()
    first = Bootstrapper()
    first.admin_username = first.project_name = first.admin_role_name = 'admin'
    first.admin_password = password
    first.service_name = 'keystone'
    first.region_id = 'RegionOne'
    first.public_url = first.internal_url = url
    first.immutable_roles = False
    first.bootstrap()


class Client:
    """Keystone's API, as its administrator."""

    def __init__(self, url, password):
        self.url = url
        self.password = password
        self.token = None
        self.roles = {role['name']: role['id'] for role in self.call('GET', '/roles')['roles']}

    def log_in(self):
        user = {'name': 'admin', 'domain': {'id': 'default'}, 'password': self.password}
        scope = {'project': {'name': 'admin', 'domain': {'id': 'default'}}}
        auth = {'identity': {'methods': ['password'], 'password': {'user': user}}, 'scope': scope}
        self.token = self.ask('POST', '/auth/tokens', {'auth': auth}, {})[0]['X-Subject-Token']

    def ask(self, method, path, body, headers):
        headers = {'Content-Type': 'application/json', **headers}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
            return answer.headers, json.loads(content) if content else None

    def call(self, method, path, body=None):
        # Tokens may expire after seconds, and the set-up takes longer.
        for last in (False, True):
            if self.token is None:
                self.log_in()
            try:
                return self.ask(method, path, body, {'X-Auth-Token': self.token})[1]
            except urllib.error.HTTPError as error:
                if error.code != 401 or last:
                    raise
                self.token = None

    def make(self, kind, **values):
        """Creates a resource and returns its id."""
        return self.call('POST', f'/{kind}s', {kind: values})[kind]['id']

    def grant(self, user, project, role):
        self.call('PUT', f'/projects/{project}/users/{user}/roles/{self.roles[role]}')


def seed(url, password, swift):
    keystone = Client(url, password)
    keystone.roles['ResellerAdmin'] = keystone.make('role', name='ResellerAdmin')
    storage = keystone.make('domain', name='storage')
    project = {
        name: keystone.make('project', name=name, domain_id=domain)
        for name, domain in (('service', 'default'), ('backups', storage), ('customer', storage))
    }
    user = {
        name: keystone.make('user', name=name, domain_id=domain, password=password)
        for name, domain in (('swift', 'default'), ('cinder', storage), ('customer', storage), ('operator', storage))
    }
    for name, where, role in (
        ('swift', 'service', 'service'),
        ('swift', 'service', 'admin'),
        ('cinder', 'backups', 'member'),
        ('customer', 'customer', 'member'),
        ('operator', 'backups', 'ResellerAdmin'),
    ):
        keystone.grant(user[name], project[where], role)
    keystone.make('region', id='RegionTwo')
    service = keystone.make('service', type='object-store', name='swift')
    for region, host in (('RegionOne', swift), ('RegionTwo', swift.replace('127.0.0.1', 'localhost'))):
        for interface in ('public', 'internal'):
            keystone.make(
                'endpoint',
                service_id=service,
                interface=interface,
                region_id=region,
                url=host + '/v1/AUTH_$(project_id)s',
            )
    ec2 = keystone.call('POST', f'/users/{user["cinder"]}/credentials/OS-EC2', {'tenant_id': project['backups']})['credential']
    return {'projects': project, 'users': user, 'access': ec2['access'], 'secret': ec2['secret']}


def main():
    args = arguments()
    seed_path = os.path.join(args.home, 'seed.json')
    seeded = os.path.exists(seed_path)
    if not seeded:
        # Remove the files of a start that failed.
        shutil.rmtree(args.home, ignore_errors=True)
        os.makedirs(args.home)
    url = f'http://127.0.0.1:{args.port}/v3'
    conf = os.path.join(args.home, 'keystone.conf')
    with open(conf, 'w', encoding='utf-8') as file:
        file.write(CONF.format(home=args.home, token_life=args.token_life))
    # In a child: a process can configure Keystone only once, and the server does it again.
    if not seeded:
        pid = children.fork('set-up', lambda: set_up(args.home, conf, url, args.password))
        if os.waitpid(pid, 0)[1]:
            return 1

    os.environ['OS_KEYSTONE_CONFIG_FILES'] = conf
    sys.argv = ['keystone']
    import waitress
    from keystone.wsgi.api import application

    server = waitress.create_server(application, host='127.0.0.1', port=args.port, threads=4)

    def fill():
        try:
            made = seed(url, args.password, args.swift)
        except BaseException as error:
            traceback.print_exc()
            if isinstance(error, urllib.error.HTTPError):
                print(error.read().decode(), file=sys.stderr)
            os._exit(1)
        with open(seed_path + '.new', 'w', encoding='utf-8') as file:
            json.dump(made, file)
        os.rename(seed_path + '.new', seed_path)

    if not seeded:
        threading.Thread(target=fill, daemon=True).start()
    server.run()
    return 0


if __name__ == '__main__':
    sys.exit(main())
