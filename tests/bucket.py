"""A bucket on a server of this machine that speaks as S3 does, for the tests of backups."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

NAME = "backup"
SECRET = "known-to-the-environment-alone"


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """The environment in which DVC finds an empty bucket: address and credentials, as people have them; gone after the block."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{address}/{NAME}", method="PUT")).close()
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()
