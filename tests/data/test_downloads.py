"""A download is whole and right, or not there: against a server that cuts, corrupts, stalls, lies, and leads elsewhere."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from twofold.data.downloads import DownloadError, Listener, Patience, fetch, permitted
from twofold.data.published import PublishedFile

CONTENT = bytes(range(256)) * 800  # 204,800 bytes: more than one piece
TAG = '"one"'


class Server(ThreadingHTTPServer):
    """Answers each request by the next behaviour of the script, the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script = [whole]
        self.asked: list[dict[str, str]] = []
        self.release = threading.Event()

    def url(self, name: str = "file") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):  # a client that has had enough hangs up
        pass


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append({"path": self.path, **self.headers})
        behave = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        behave(self)

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def wanted_part(request, tag):
    """Where the client wants to begin, and the content from there: ranges as RFC 9110 has them."""
    asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    start = int(asked[1]) if asked and request.headers.get("If-Range", tag) == tag else 0
    end = len(CONTENT)
    span = {"Content_Range": f"bytes {start}-{end - 1}/{end}"} if start else {}
    return start, CONTENT[start:], {"Content_Length": str(end - start), "ETag": tag, **span}


def whole(request, tag=TAG):
    start, body, headers = wanted_part(request, tag)
    request.answer(206 if start else 200, body, **headers)


def cut(count):
    def behave(request):
        start, body, headers = wanted_part(request, TAG)
        request.answer(206 if start else 200, body[:count], **headers)

    return behave


def stall(count):
    def behave(request):
        cut(count)(request)
        request.wfile.flush()
        request.server.release.wait(10)

    return behave


def drip(request):
    request.answer(200, b"", Content_Length=str(len(CONTENT)))
    while not request.server.release.wait(0.02):
        request.wfile.write(b"x")


def corrupt(request):
    request.answer(200, b"?" + CONTENT[1:], Content_Length=str(len(CONTENT)))


def deaf(request):
    request.answer(200, CONTENT, Content_Length=str(len(CONTENT)))  # no word of ranges or tags


def another_part(request):
    request.answer(206, CONTENT[7:], Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")


def too_much(request):
    request.answer(200, CONTENT + b"more")


def says(length):
    return lambda request: request.answer(200, CONTENT, Content_Length=str(length))


def leads(url):
    return lambda request: request.answer(302, b"", Location=url)


def refuses(status, **headers):
    return lambda request: request.answer(status, b"", **headers)


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.release.set()
    made.shutdown()
    thread.join()
    made.server_close()


class Heard(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.counts: list[int] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def at(self, count: int) -> None:
        self.counts.append(count)


QUICK = Patience(timeout=0.3, attempts=3, pause=0)


def published(*urls: str) -> PublishedFile:
    return PublishedFile("file", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), urls)


def get(server: Server, folder: Path, *script, patience: Patience = QUICK) -> Heard:
    """Fetch with the server behaving so; what came is the published file and nothing lies beside it."""
    server.script = list(script)
    heard = Heard()
    assert fetch(published(server.url()), folder, patience, heard) == server.url()
    assert (folder / "file").read_bytes() == CONTENT and [path.name for path in folder.iterdir()] == ["file"]
    assert heard.counts[-1] == len(CONTENT)
    return heard


def refused(server: Server, folder: Path, *script, patience: Patience = QUICK) -> str:
    """The reason for which the server is given up; the file is not there."""
    server.script = list(script)
    with pytest.raises(DownloadError) as caught:
        fetch(published(server.url()), folder, patience)
    assert not (folder / "file").exists()
    message = str(caught.value)
    assert message.startswith(f"file: no address served it. {server.url()}: ")
    return message.removeprefix(f"file: no address served it. {server.url()}: ")


def test_a_whole_file_is_asked_for_once(server, tmp_path):
    assert get(server, tmp_path, whole).said == []
    (asked,) = server.asked
    assert asked["User-Agent"] == "twofold" and not {"Cookie", "Authorization", "Range"} & set(asked)
    assert fetch(published(server.url()), tmp_path, QUICK) == "an earlier download" and len(server.asked) == 1


@pytest.mark.parametrize("behave", [cut, stall])
def test_a_connection_that_ends_is_gone_on_with(behave, server, tmp_path):
    heard = get(server, tmp_path, behave(70_000), behave(60_000), whole)
    assert [asked.get("Range") for asked in server.asked] == [None, "bytes=70000-", "bytes=130000-"]
    assert [asked.get("If-Range") for asked in server.asked] == [None, TAG, TAG]
    why = "the connection ended after 70,000 of 204,800 bytes" if behave is cut else "the server does not answer"
    assert heard.said[0] == f"file: {why}; trying again in 0 s, from byte 70,000"


def test_what_came_outlives_the_program(server, tmp_path):
    reason = refused(server, tmp_path, cut(70_000), refuses(503))
    assert reason == "given up after 4 attempts: it answers 503 Service Unavailable" and (tmp_path / "file.part").stat().st_size == 70_000
    server.asked.clear()
    get(server, tmp_path, whole)
    assert [asked["Range"] for asked in server.asked] == ["bytes=70000-"]


@pytest.mark.parametrize(
    "then", [deaf, lambda request: whole(request, '"two"'), another_part], ids=["no ranges", "other tag", "another part"]
)
def test_a_server_that_cannot_go_on_begins_anew(then, server, tmp_path):
    get(server, tmp_path, cut(70_000), then, *([whole] if then is another_part else []))


def test_a_weak_tag_promises_nothing(server, tmp_path):
    get(server, tmp_path, lambda request: request.answer(200, CONTENT[:9], Content_Length=str(len(CONTENT)), ETag='W/"one"'), deaf)
    assert "If-Range" not in server.asked[1] and server.asked[1]["Range"] == "bytes=9-"


def test_a_corrupt_file_is_fetched_once_more_and_no_more(server, tmp_path):
    heard = get(server, tmp_path, corrupt, whole)
    assert heard.said[0].startswith("file: not the published file (its sha256 is ") and "Range" not in server.asked[1]
    (tmp_path / "file").unlink()
    assert refused(server, tmp_path, corrupt).startswith("not the published file: its sha256 is ")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_rotted_on_the_disk_does_not_poison_the_file(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"rotten" * 1000)
    (tmp_path / "file.part.from").write_bytes(b"\xff\xfe")
    get(server, tmp_path, whole)
    assert [asked.get("Range") for asked in server.asked] == ["bytes=6000-", None]
    (tmp_path / "file").unlink()
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")  # longer than published: nothing to go on from
    get(server, tmp_path, whole)


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (too_much, "it sends more than the 204,800 bytes that are published"),
        (says(10**12), "it offers 1,000,000,000,000 bytes, the published file has 204,800: another file, or a page in its place"),
        (says(7), "it offers 7 bytes, the published file has 204,800: another file, or a page in its place"),
        (refuses(404), "it answers 404 Not Found"),
        (refuses(204), "it answers 204 No Content"),
        (leads("http://example.org/file"), "it redirects to http://example.org/file, and only https is followed"),
        (leads("ftp://127.0.0.1/file"), "it redirects to ftp://127.0.0.1/file, and only https is followed"),
        (leads("https://me:secret@example.org/"), "it redirects to https://me:secret@example.org/, and only https is followed"),
        (leads("file:///etc/passwd"), "it answers 302"),
        (leads("/file"), "it answers 302"),
    ],
)
def test_what_is_refused_at_once(behave, reason, server, tmp_path):
    assert refused(server, tmp_path, behave).startswith(reason)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (refuses(503, Retry_After="0"), "given up after 3 attempts: it answers 503 Service Unavailable"),
        (lambda request: request.close_connection, "given up after 3 attempts: Remote end closed connection without response"),
        (lambda request: request.wfile.write(b"nonsense\r\n\r\n"), "given up after 3 attempts: nonsense"),
        (drip, "given up after 4 attempts: only "),
    ],
    ids=["busy", "closes", "no http", "drips"],
)
def test_attempts_are_bounded(behave, reason, server, tmp_path):
    patience = Patience(timeout=0.1, attempts=3, most=4, pause=0)
    assert refused(server, tmp_path, behave, patience=patience).startswith(reason)


def test_a_redirection_is_followed_and_the_next_address_tried(server, tmp_path):
    get(server, tmp_path, leads(server.url("elsewhere")), whole)
    assert [asked["path"] for asked in server.asked] == ["/file", "/elsewhere"]
    (tmp_path / "file").unlink()
    server.script = [refuses(404), whole]
    assert fetch(published(server.url("gone"), server.url("here")), tmp_path, QUICK) == server.url("here")


def test_a_server_that_is_not_there(tmp_path):
    gone = Server()
    gone.server_close()
    assert refused(gone, tmp_path, whole) == "given up after 3 attempts: Connection refused"


@pytest.mark.parametrize(
    ("url", "loopback", "right"),
    [
        ("https://example.org/a", False, True),
        ("http://example.org/a", True, False),
        ("http://127.0.0.1:8000/a", True, True),
        ("http://127.0.0.1:8000/a", False, False),
        ("https://user@example.org/a", True, False),
        ("file:///etc/passwd", True, False),
        ("https:///a", True, False),
    ],
)
def test_only_https_leaves_the_machine(url, loopback, right):
    assert permitted(url, loopback) is right


def test_an_address_of_plain_http_is_not_asked(tmp_path):
    with pytest.raises(DownloadError, match="http://example.org/file: only https is used"):
        fetch(published("http://example.org/file"), tmp_path, QUICK)
