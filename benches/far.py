"""An S3 server on loopback that is as slow as a far one: each answer begins after a delay, and each connection has a limited
rate. It knows the requests that a check makes, and serves the files of one directory as the bucket `b`. Started by benches/check.py.

    python3 far.py FOLDER LATENCY RATE [alone]

With `alone` it refuses to list objects without a prefix, so that a check lists each backup by itself. `/requests` answers with the number of
requests.
"""

import bisect
import http.server
import itertools
import os
import pathlib
import sys
import time
import urllib.parse

PIECE = 256 << 10
#: The most objects in a listing, as in Amazon's S3.
PAGE = 1000


def handler(folder, latency, rate, is_alone):
    names = sorted(path.name for path in folder.iterdir())
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == '/requests':
                return self.answer(200, str(len(requests)).encode())
            requests.append(self.path)
            time.sleep(latency)
            path, _, query = self.path.partition('?')
            name = urllib.parse.unquote(path.removeprefix('/b').lstrip('/'))
            if not name:
                return self.listing({name: values[0] for name, values in urllib.parse.parse_qs(query).items()})
            try:
                size = (folder / name).stat().st_size
            except FileNotFoundError:
                return self.answer(404, b'<Error><Code>NoSuchKey</Code></Error>')
            first, last = 0, size - 1
            wanted = self.headers.get('Range')
            if wanted:
                first, last = (int(end) for end in wanted.removeprefix('bytes=').split('-'))
                last = min(last, size - 1)
            self.send_response(206 if wanted else 200)
            self.send_header('Content-Length', str(last - first + 1))
            self.send_header('ETag', '"none"')
            if wanted:
                self.send_header('Content-Range', f'bytes {first}-{last}/{size}')
            self.end_headers()
            self.wfile.flush()
            begun, sent = time.monotonic(), 0
            with open(folder / name, 'rb') as file:
                while sent <= last - first:
                    sent += os.sendfile(self.connection.fileno(), file.fileno(), first + sent, min(PIECE, last - first + 1 - sent))
                    early = begun + sent / rate - time.monotonic()
                    if early > 0:
                        time.sleep(early)

        do_HEAD = do_GET

        def listing(self, query):
            prefix, after = query.get('prefix', ''), query.get('continuation-token') or query.get('start-after', '')
            if is_alone and not prefix:
                return self.answer(400, b'<Error><Code>InvalidArgument</Code></Error>')
            first = max(bisect.bisect_left(names, prefix), bisect.bisect_right(names, after))
            page = list(itertools.takewhile(lambda name: name.startswith(prefix), names[first : first + PAGE]))
            more = names[first + PAGE : first + PAGE + 1] if len(page) == PAGE else []
            entries = ''.join(
                f'<Contents><Key>{urllib.parse.quote(name)}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>'
                f'<ETag>"none"</ETag><Size>{(folder / name).stat().st_size}</Size></Contents>'
                for name in page
            )
            is_cut = any(name.startswith(prefix) for name in more)
            token = f'<NextContinuationToken>{urllib.parse.quote(page[-1])}</NextContinuationToken>' if is_cut else ''
            head = f'<IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}<EncodingType>url</EncodingType>'
            self.answer(200, f'<ListBucketResult>{head}{entries}</ListBucketResult>'.encode())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header('Content-Type', 'application/xml')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main():
    folder, latency, rate = pathlib.Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler(folder, latency, rate, 'alone' in sys.argv[4:]))
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
