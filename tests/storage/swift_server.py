"""A complete Swift on 127.0.0.1: account, container and object server on one folder, memcached, and a proxy for each login.

The proxies differ in port and login: `tempauth` (auth v1) over HTTP, the same over HTTPS, and with `--keystone` one for
Keystone's tokens. All of them support S3, too. There is one device, one replica and no background daemon; everything that a
client sees is Swift itself.
"""

import argparse
import getpass
import os
import sys
import warnings

import children

warnings.simplefilter('ignore')

SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = tests
[swift-constraints]
container_listing_limit = {listing_limit}
[storage-policy:0]
name = one
default = yes
"""

STORAGE_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {etc}
devices = {devices}
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
log_level = WARNING
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

# tempauth and keystoneauth cannot share a pipeline here, because the last one would decide for both.
PROXY_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
{tls}
workers = 0
user = {user}
swift_dir = {etc}
log_level = WARNING
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache {access} slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:symlink]
use = egg:swift#symlink
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
# It requests one more from Swift than it returns.
max_bucket_listing = {s3_listing_limit}
[filter:tempauth]
use = egg:swift#tempauth
reseller_prefix = TEMP
user_backups_cinder = {password} .admin
user_backups_reader = {password}
token_life = {token_life}
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {keystone}
auth_url = {keystone}
{service_user}
delay_auth_decision = true
include_service_catalog = false
cache = swift.cache
[filter:s3token]
use = egg:swift#s3token
auth_uri = {keystone}
auth_url = {keystone}
{service_user}
delay_auth_decision = true
[filter:keystoneauth]
use = egg:swift#keystoneauth
reseller_prefix = AUTH
operator_roles = admin, member
"""

SERVICE_USER = """
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = swift
password = {password}
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--home', required=True, help='a folder for all files; what is stored there is found again')
    parser.add_argument('--port', type=int, required=True, help='of the tempauth proxy')
    parser.add_argument('--tls-port', type=int, required=True, help='of the same over HTTPS')
    parser.add_argument('--keystone-port', type=int, help='of the proxy for Keystone tokens')
    parser.add_argument('--inner-ports', required=True, help='four of them: object, container, account, memcached')
    parser.add_argument('--certificate', required=True)
    parser.add_argument('--key', required=True)
    parser.add_argument('--password', required=True, help='of every account')
    parser.add_argument('--keystone', default='', help="Keystone's URL, with /v3")
    parser.add_argument('--listing-limit', type=int, default=10000)
    parser.add_argument('--token-life', type=int, default=86400)
    return parser.parse_args()


def write(path, text):
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    return path


def main():
    args = arguments()
    etc = os.path.join(args.home, 'etc')
    devices = os.path.join(args.home, 'srv')
    os.makedirs(etc, exist_ok=True)
    os.makedirs(os.path.join(devices, 'd1'), exist_ok=True)
    inner = [int(port) for port in args.inner_ports.split(',')]
    ports = dict(zip(('object', 'container', 'account', 'memcached'), inner, strict=True))

    write(os.path.join(etc, 'swift.conf'), SWIFT_CONF.format(listing_limit=args.listing_limit))
    # Before any other import of Swift, because it reads its limits once.
    from swift.common import utils

    utils.set_swift_dir(etc)
    from swift.common.ring import RingBuilder
    from swift.common.wsgi import run_wsgi

    for number, name in enumerate(('object', 'container', 'account')):
        builder = RingBuilder(4, 1, 0)  # 2**4 partitions, one replica, moved at once
        address = {'ip': '127.0.0.1', 'port': ports[name], 'replication_ip': '127.0.0.1', 'replication_port': ports[name]}
        builder.add_dev({'id': 0, 'region': 1, 'zone': 1, 'device': 'd1', 'weight': 1, 'meta': '', **address})
        builder.rebalance(seed=number)
        builder.get_ring().save(os.path.join(etc, f'{name}.ring.gz'))

    # Imported once for all children.
    import swift.account.server  # noqa: F401
    import swift.container.server  # noqa: F401
    import swift.obj.server
    import swift.proxy.server  # noqa: F401

    user = getpass.getuser()
    names = {}

    def serve(name, section, conf, **kwargs):
        path = write(os.path.join(etc, f'{name}.conf'), conf)
        names[children.fork(name, lambda: run_wsgi(path, section, verbose=True, **kwargs))] = name

    command = ['memcached', '-u', user, '-l', '127.0.0.1', '-p', str(ports['memcached']), '-U', '0', '-m', '64']
    names[children.start(command)] = 'memcached'
    for name in ('object', 'container', 'account'):
        conf = STORAGE_CONF.format(name=name, port=ports[name], user=user, etc=etc, devices=devices)
        more = {'global_conf_callback': swift.obj.server.global_conf_callback} if name == 'object' else {}
        serve(name, f'{name}-server', conf, **more)

    def proxy(name, port, access, tls=''):
        conf = PROXY_CONF.format(
            port=port,
            tls=tls,
            user=user,
            etc=etc,
            access=access,
            memcached=ports['memcached'],
            password=args.password,
            token_life=args.token_life,
            s3_listing_limit=min(1000, args.listing_limit - 1),
            keystone=args.keystone,
            service_user=SERVICE_USER.format(password=args.password),
        )
        serve(name, 'proxy-server', conf)

    proxy('proxy', args.port, 'bulk s3api tempauth')
    proxy('proxy-tls', args.tls_port, 'bulk s3api tempauth', f'cert_file = {args.certificate}\nkey_file = {args.key}')
    if args.keystone:
        proxy('proxy-keystone', args.keystone_port, 'authtoken bulk s3api s3token keystoneauth')
    return children.wait_for_any(names)


if __name__ == '__main__':
    sys.exit(main())
