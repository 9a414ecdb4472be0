"""Google Cloud Storage and S3 as emulators on this machine: two servers, and buckets in them. Nothing leaves it."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from launches import ROOT

from grokjax.store import objects

NEEDED = ("gcsfs", "s3fs", "moto", "gcp_storage_emulator")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A server in a process of its own."""

    def __init__(self, command, port, ready):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(self.url + ready, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, f"{command} has ended"
                assert time.monotonic() < limit
                time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()


def s3_server():
    port = free_port()
    return Server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, "/moto-api/")


def gcs_server():
    port = free_port()
    return Server([sys.executable, str(ROOT / "tests" / "gcs_emulator.py"), str(port)], port, "/")


@pytest.fixture(scope="module")
def servers():
    """Both emulators, and the environment by which gcsfs and s3fs find them and nothing else."""
    if MISSING:
        pytest.skip("no emulators")
    started = {"gs": gcs_server(), "s3": s3_server()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(started["gs"].url, started["s3"].url).items():
            patch.setenv(name, value)
        objects._filesystem.cache_clear()
        yield started
        objects._filesystem.cache_clear()
    for server in started.values():
        server.close()


def environment(gs, s3):
    return {
        "STORAGE_EMULATOR_HOST": gs,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


_number = iter(range(1_000_000))


def new_bucket(protocol):
    name = f"bucket-{next(_number)}"
    objects._filesystem(protocol).mkdir(name)
    return f"{protocol}://{name}"


@pytest.fixture(params=["gs", "s3"])
def store(request, servers):
    """The URL of a new bucket."""
    return new_bucket(request.param)
