"""An S3 server on loopback that is as slow as a far one: each answer begins after a delay, and each connection has a limited
rate. It knows the requests that a check makes, and serves the files of one directory as the bucket `b`. Started by benches/check.py."""

import http.server
import os
import pathlib
import sys
import time
import urllib.parse

PIECE = 256 << 10


def handler(folder, latency, rate):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def log_message(self, *_):
            pass

        def do_GET(self):
            time.sleep(latency)
            path, _, query = self.path.partition('?')
            name = urllib.parse.unquote(path.removeprefix('/b').lstrip('/'))
            if not name:
                return self.listing(urllib.parse.parse_qs(query).get('prefix', [''])[0])
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

        def listing(self, prefix):
            entries = ''.join(
                f'<Contents><Key>{urllib.parse.quote(path.name)}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>'
                f'<ETag>"none"</ETag><Size>{path.stat().st_size}</Size></Contents>'
                for path in sorted(folder.iterdir())
                if path.name.startswith(prefix)
            )
            text = f'<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>{entries}</ListBucketResult>'
            self.answer(200, text.encode())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header('Content-Type', 'application/xml')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main():
    folder, latency, rate = pathlib.Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler(folder, latency, rate))
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
