"""A real HTTPS server in the API server's place: records every status that is applied, and answers as it is told."""

import datetime
import ipaddress
import json
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "a-token"


@dataclass(frozen=True)
class Applied:
    """One request."""

    at: float
    """Monotonic seconds."""
    path: str
    query: dict[str, list[str]]
    content_type: str
    authorization: str
    body: dict


class StatusServer:
    """Listens on 127.0.0.1; `account` is the directory of a service account that trusts it."""

    def __init__(self, place: Path, uid="u-1"):
        self.uid = uid
        self.account = place / "account"
        self.account.mkdir(parents=True)
        certificate, key = _certificate()
        (self.account / "ca.crt").write_bytes(certificate)
        (self.account / "token").write_text(f"{TOKEN}\n")
        chain = place / "server.pem"
        chain.write_bytes(certificate + key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain)
        self._server = None
        self.port = 0
        self.applied: list[Applied] = []
        self.answer = (200, {})
        """Status code of the answer to a write, and its JSON unless that is 200."""
        self.delay = 0.0
        """Seconds before it."""

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Listen, on the port of before if there was one."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner._reply(self, 200, owner._metadata())

            def do_PATCH(self):
                owner._take(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                connection, address = super().get_request()
                connection.settimeout(10)
                return owner._context.wrap_socket(connection, server_side=True), address

            def handle_error(self, *_):
                pass  # clients that were killed

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def environment(self, run="t", namespace="team"):
        """What a pod of the run has in its environment."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "EMPG_SERVICE_ACCOUNT": str(self.account),
            "EMPG_NAMESPACE": namespace,
            "EMPG_RUN": run,
        }

    def statuses(self):
        """The applied statuses, in order."""
        return [request.body["status"] for request in self.applied]

    def _take(self, request):
        url = urlsplit(request.path)
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        time.sleep(self.delay)
        self.applied.append(
            Applied(
                at=time.monotonic(),
                path=url.path,
                query=parse_qs(url.query),
                content_type=request.headers["Content-Type"],
                authorization=request.headers["Authorization"],
                body=body,
            )
        )
        self._reply(request, *(self.answer if self.answer[0] != 200 else (200, self._metadata())))

    def _metadata(self):
        return {"metadata": {"uid": self.uid}}

    @staticmethod
    def _reply(request, code, answer):
        text = json.dumps(answer).encode()
        request.send_response(code)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)


def _certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
