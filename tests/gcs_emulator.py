"""gcp-storage-emulator with what the tests need: threads, and objects that are only created where none is.

The stock server answers one request at a time with a backlog of five connections (a burst is dropped, and repeated for
seconds), takes no notice of ifGenerationMatch, and reads uploads as e-mail, which changes some bytes of binary data.

    python tests/gcs_emulator.py PORT
"""

import functools
import http.server
import json
import re
import sys
import threading
from http import HTTPStatus

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.storage import Storage


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


def insert(request, response, storage, *args, **kwargs):
    """The handler of uploads, which refuses to replace an object if asked to."""
    if request.query.get("ifGenerationMatch") == ["0"]:
        name = request.query.get("name", [None])[0]
        if name is None and isinstance(request.data, dict):
            name = (request.data.get("meta") or request.data).get("name")
        try:
            storage.get_file_obj(request.params["bucket_name"], name)
        except NotFound:
            pass
        else:
            response.status = HTTPStatus.PRECONDITION_FAILED
            response.json({"error": {"code": 412, "message": "conditionNotMet"}})
            return
    objects.insert(request, response, storage, *args, **kwargs)


def read_data(request_handler, query, original=server._read_data):
    """A request's body; of an upload in two parts the name and so on, and the content byte for byte."""
    kind = request_handler.headers.get("Content-Type") or ""
    if not kind.startswith("multipart/related"):
        return original(request_handler, query)
    boundary = b"--" + re.escape(kind.partition("boundary=")[2].strip('"').encode())
    body = server._read_raw_data(request_handler)
    head = rb"\r?\n((?:[^\r\n]+\r?\n)*)\r?\n"
    parts = re.fullmatch(
        boundary + head + rb"(.*?)\r?\n" + boundary + head + rb"(.*)\r?\n" + boundary + rb"--\s*", body, re.DOTALL
    )
    return {"meta": json.loads(parts[2]), "content": parts[4], "content-type": "application/octet-stream"}


def one_at_a_time(handler, lock=threading.Lock()):  # noqa: B008 (one for all)
    """The emulator's own handlers know nothing of threads."""

    def call(request, *args, **kwargs):
        _ = request.data  # what is sent comes before the lock is taken
        with lock:
            return handler(request, *args, **kwargs)

    return call


if __name__ == "__main__":
    server._read_data = read_data
    server.HANDLERS = tuple(
        (regex, {method: one_at_a_time(insert if f is objects.insert else f) for method, f in methods.items()})
        for regex, methods in server.HANDLERS
    )
    handler = functools.partial(server.RequestHandler, Storage(use_memory_fs=True))
    Server(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()
