"Files from the network: right and whole or not at all, continued, from the next address, one process at a time."
import fcntl
import hashlib
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest
from fastcore.script import CliError
from ulmfit.corpus import download
from ulmfit.corpus.download import fetch
from ulmfit.locks import Busy, alone

BODY = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(10_000))  # 320,000 bytes, several blocks
OTHER = BODY[::-1]
SIZE, SHA = len(BODY), hashlib.sha256(BODY).hexdigest()
REPOSITORY = Path(__file__).parents[1]


class Site(ThreadingHTTPServer):
    "A server on this machine. `pages`: what answers a path, in turn, the last again and again; `asked`: the headers."
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.asked = {}, defaultdict(list)

    def handle_error(self, *_): pass  # whoever asked has hung up

    def page(self, path: str, *answers) -> str:
        "The address of a page that gives these answers; the plain file if there is none."
        self.pages[path] = list(answers or [send()])
        return f"http://127.0.0.1:{self.server_port}{path}"

    def ranges(self, path: str) -> list[str | None]: return [headers["Range"] for headers in self.asked[path]]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked[self.path].append(self.headers)
        answers = self.server.pages[self.path]
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_): pass


def send(body: bytes = BODY, ranges: bool = True, stop: int | None = None, length: int | None = SIZE, then=None):
    """An answer that gives `body`, from where it is asked to if it knows `ranges`.

    It stops before byte `stop`, does `then` there, and says that the whole is `length` bytes, or nothing.
    """
    def answer(handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "") if ranges else None
        start = int(asked[1]) if asked else 0
        handler.send_response(206 if asked else 200)
        if asked: handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if length is not None: handler.send_header("Content-Length", length - start)
        handler.end_headers()
        handler.wfile.write(body[start:stop])
        if then: then(handler)
    return answer


def status(code: int): return lambda handler: handler.send_error(code)


def reset(handler):
    "End the connection with a reset in place of a proper end."
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


@pytest.fixture(autouse=True)
def network(monkeypatch):
    "On, without a proxy, and no pause between tries."
    monkeypatch.delenv("ULMFIT_OFFLINE")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE", 0)


@pytest.fixture
def site():
    with Site() as site:
        threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        yield site
        site.shutdown()


@pytest.fixture
def path(tmp_path): return tmp_path / "downloads/corpus.tar.gz"


def part_of(path: Path) -> Path: return path.with_name(f"{path.name}.part")


def begun(path: Path, content: bytes) -> Path:
    "What an interrupted fetch has left."
    path.parent.mkdir(parents=True, exist_ok=True)
    part_of(path).write_bytes(content)
    return path


def there(path: Path) -> list[str]: return sorted(p.name for p in path.parent.iterdir())


def refusal(*args) -> str:
    "The one line with which `fetch` ends."
    with pytest.raises(CliError) as e: fetch(*args)
    assert "\n" not in str(e.value)
    return str(e.value)


# --- the right file ---

def test_a_file_is_fetched(site, path):
    assert fetch([site.page("/f")], path, SIZE, SHA) == path
    assert path.read_bytes() == BODY


def test_nothing_else_is_left_behind(site, path):
    fetch([site.page("/f")], path, SIZE, SHA)
    assert there(path) == ["corpus.tar.gz"]


def test_a_file_of_unknown_size_and_hash_is_fetched(site, path):
    "From a server, too, that does not say how much comes."
    assert fetch([site.page("/f", send(length=None))], path).read_bytes() == BODY


def test_a_file_that_is_there_is_not_touched(site, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert fetch([site.page("/f")], path, SIZE, SHA).read_bytes() == b"mine" and not site.asked


def test_permissions_are_those_of_any_new_file(site, path):
    old = os.umask(0o027)
    try: fetch([site.page("/f")], path, SIZE, SHA)
    finally: os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_server_that_refuses_urllib_is_told_another_name(site, path):
    def choosy(handler): (status(403) if "urllib" in handler.headers["User-Agent"] else send())(handler)
    fetch([site.page("/f", choosy)], path, SIZE, SHA)
    assert site.asked["/f"][0]["User-Agent"].startswith("ulmfit/")


def test_only_this_machine_can_be_reached_by_tests():
    "127.0.0.2 is this machine as well, and not among the allowed."
    with pytest.raises(OSError, match="do not use the network"): socket.create_connection(("127.0.0.2", 9))


# --- continued ---

def test_only_the_rest_is_asked_for(site, path):
    fetch([site.page("/f")], begun(path, BODY[:100_000]), SIZE, SHA)
    assert site.ranges("/f") == ["bytes=100000-"] and path.read_bytes() == BODY


def test_a_server_without_ranges_gives_it_from_the_start(site, path):
    fetch([site.page("/f", send(ranges=False))], begun(path, OTHER[:100_000]), SIZE, SHA)
    assert path.read_bytes() == BODY and len(site.asked["/f"]) == 1


def test_what_is_complete_is_not_asked_for_again(site, path):
    fetch([site.page("/f")], begun(path, BODY), SIZE, SHA)
    assert path.read_bytes() == BODY and not site.asked


@pytest.mark.parametrize("left", [OTHER[:100_000], OTHER, OTHER + b"more"], ids=["begun", "complete", "too long"])
def test_what_has_begun_as_another_file_is_fetched_anew(site, path, left):
    fetch([site.page("/f")], begun(path, left), SIZE, SHA)
    assert path.read_bytes() == BODY and site.ranges("/f")[-1] is None


@pytest.mark.parametrize("known", [(SIZE, None), (None, SHA)], ids=["no hash", "no size"])
def test_without_size_and_hash_nothing_is_continued(site, path, known):
    "Nothing would tell that the halves are of two files, or that all is here already."
    fetch([site.page("/f")], begun(path, OTHER[:100_000]), *known)
    assert site.ranges("/f") == [None] and path.read_bytes() == BODY


def test_a_try_goes_on_where_the_last_was_cut(site, path):
    fetch([site.page("/f", send(stop=200_000), send())], path, SIZE, SHA)
    assert site.ranges("/f") == [None, "bytes=200000-"] and path.read_bytes() == BODY


def test_the_next_address_goes_on_where_the_last_was_cut(site, path):
    fetch([site.page("/a", send(stop=200_000), status(404)), site.page("/b")], path, SIZE, SHA)
    assert site.ranges("/b") == ["bytes=200000-"] and path.read_bytes() == BODY


def test_what_has_come_stays_for_the_next_time(site, path):
    said = refusal([site.page("/f", send(stop=200_000))], path, SIZE, SHA)
    assert "ended after 200,000 of 320,000 bytes" in said
    assert there(path) == ["corpus.tar.gz.part"] and part_of(path).read_bytes() == BODY[:200_000]


# --- what may pass ---

def short(handler): send(stop=200_000)(handler)
def cut_off(handler): send(stop=200_000, then=reset)(handler)


def broken_chunk(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n" % SIZE + BODY[:200_000])


@pytest.mark.parametrize("trouble",
                         [status(503), status(429), short, broken_chunk, cut_off, reset, lambda handler: None],
                         ids=["503", "429", "short", "short chunk", "reset in the body", "reset at once", "no answer"])
def test_what_may_pass_is_tried_again(site, path, trouble):
    fetch([site.page("/f", trouble, trouble, send())], path, SIZE, SHA)
    assert path.read_bytes() == BODY and len(site.asked["/f"]) == 3


@pytest.mark.parametrize("stop", [0, 200_000], ids=["at once", "in the body"])
def test_a_server_that_falls_silent_is_tried_again(site, path, monkeypatch, stop):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    silence, began = threading.Event(), time.monotonic()
    silent = send(stop=stop, then=lambda _: silence.wait(5)) if stop else lambda _: silence.wait(5)
    fetch([site.page("/f", silent, send())], path, SIZE, SHA)
    silence.set()
    assert path.read_bytes() == BODY and len(site.asked["/f"]) == 2 and time.monotonic() - began < 3


def tries(path, monkeypatch, cause: Exception) -> int:
    "How often an address is tried that cannot be reached because of `cause`."
    causes = []
    def unreachable(*_, **__):
        causes.append(URLError(cause))
        raise causes[-1]
    monkeypatch.setattr(download, "urlopen", unreachable)
    assert f"(http://there/f: {cause}); " in refusal(["http://there/f"], path, SIZE, SHA)
    return len(causes)


@pytest.mark.parametrize("cause", [TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError,
                                   ssl.SSLEOFError])
def test_a_connection_that_breaks_is_tried_again(path, monkeypatch, cause):
    assert tries(path, monkeypatch, cause(1, "why")) == 4


@pytest.mark.parametrize("cause", [socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError])
def test_a_server_that_is_not_there_or_not_itself_is_not_tried_again(path, monkeypatch, cause):
    "One without network should not have to wait."
    assert tries(path, monkeypatch, cause(1, "why")) == 1


def test_pauses_grow_and_tries_end(site, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download, "PAUSE", 1)
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    assert "503" in refusal([site.page("/f", status(503))], path, SIZE, SHA)
    assert pauses == [1, 3, 9] and len(site.asked["/f"]) == 4


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_refusal_is_not_tried_again(site, path, code):
    assert str(code) in refusal([site.page("/f", status(code))], path, SIZE, SHA)
    assert len(site.asked["/f"]) == 1


# --- the next address ---

wrong_bytes, wrong_length = send(OTHER), send(BODY + b"more", length=SIZE + 4)


@pytest.mark.parametrize("trouble", [status(404), status(503), wrong_bytes, wrong_length, send(BODY * 2, length=None)],
                         ids=["404", "503", "wrong bytes", "wrong length", "no end"])
def test_the_next_address_is_tried(site, path, trouble):
    fetch([site.page("/a", trouble), site.page("/b")], path, SIZE, SHA)
    assert path.read_bytes() == BODY and there(path) == ["corpus.tar.gz"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/f", "nonsense", "http://127.0.0.1:x/f"],
                         ids=["nobody listens", "no address", "no port"])
def test_an_address_that_cannot_be_asked_is_passed_over(site, path, url):
    assert fetch([url, site.page("/f")], path, SIZE, SHA).read_bytes() == BODY


def test_another_length_is_seen_before_the_file_comes(site, path):
    "What an earlier fetch has left stays."
    assert "320,004 bytes" in refusal([site.page("/f", wrong_length)], begun(path, BODY[:1000]), SIZE, SHA)
    assert part_of(path).read_bytes() == BODY[:1000] and len(site.asked["/f"]) == 1


def test_a_file_without_end_is_left_and_removed(site, path):
    sent = []
    def endless(handler):
        send(length=None)(handler)
        while len(sent) < 100: sent.append(handler.wfile.write(BODY))
    assert "more than 320,000 bytes" in refusal([site.page("/f", endless)], path, SIZE, SHA)
    assert len(sent) < 100 and there(path) == []


def test_a_file_of_another_hash_is_removed(site, path):
    assert hashlib.sha256(OTHER).hexdigest() in refusal([site.page("/f", wrong_bytes)], path, SIZE, SHA)
    assert there(path) == [] and len(site.asked["/f"]) == 1


def test_the_error_has_all_that_one_needs_to_go_on(site, path):
    "Every address with its reason, and what file to put where by hand."
    a, b = site.page("/a", status(404)), site.page("/b", wrong_bytes)
    said = refusal([a, b], path, SIZE, SHA)
    for part in (f"{a}: 404 Not Found", f"{b}: sha256 is {hashlib.sha256(OTHER).hexdigest()}", "corpus.tar.gz",
                 "320,000 bytes", SHA, f"{path.parent}/"): assert part in said


# --- no network ---

def test_offline_nothing_is_asked(site, path, monkeypatch):
    monkeypatch.setenv("ULMFIT_OFFLINE", "1")
    a, b = site.page("/a"), site.page("/b")
    said = refusal([a, b], path, SIZE, SHA)
    for part in ("ULMFIT_OFFLINE", a, b, "corpus.tar.gz", "320,000 bytes", SHA, f"{path.parent}/"): assert part in said
    assert not site.asked and not path.parent.exists()


def test_offline_set_to_nothing_is_not_set(site, path, monkeypatch):
    monkeypatch.setenv("ULMFIT_OFFLINE", "")
    assert fetch([site.page("/f")], path, SIZE, SHA).exists()


def test_offline_a_file_that_is_there_is_taken(path, monkeypatch):
    monkeypatch.setenv("ULMFIT_OFFLINE", "1")
    path.parent.mkdir()
    path.write_bytes(BODY)
    assert fetch(["http://127.0.0.1:1/f"], path, SIZE, SHA) == path


# --- other processes, full disks, Ctrl-C ---

def process(url: str, path: Path, before: str = "") -> subprocess.Popen:
    "A process that fetches, as a command does it."
    program = f"""
import sys
from pathlib import Path
from fastcore.script import CliError
from ulmfit.corpus.download import fetch
{before}
try: fetch([{url!r}], Path({str(path)!r}), {SIZE}, {SHA!r})
except CliError as e: sys.exit(str(e))
"""
    return subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds: float = 30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def slow(site):
    "A page that stops halfway until it is told to go on: (address, has it begun?, go on)."
    begun, go_on = threading.Event(), threading.Event()
    def rest(handler):
        begun.set()
        go_on.wait(30)
        handler.wfile.write(BODY[200_000:])
    yield site.page("/slow", send(stop=200_000, then=rest)), begun, go_on
    go_on.set()


def test_what_another_process_fetches_is_left_to_it(site, slow, path):
    url, begun, go_on = slow
    with process(url, path) as other:
        assert begun.wait(30)
        said = refusal([site.page("/f")], path, SIZE, SHA)
        go_on.set()
        assert other.communicate()[1] == "" and other.returncode == 0
    assert str(path) in said and "another process" in said
    assert not site.asked["/f"] and path.read_bytes() == BODY and there(path) == ["corpus.tar.gz"]


def test_what_another_process_has_just_fetched_is_taken(site, path, monkeypatch):
    "It came after the first look, and before the lock was free."
    @contextmanager
    def late(lock, why):
        path.write_bytes(b"theirs")
        yield
    monkeypatch.setattr(download, "alone", late)
    assert fetch([site.page("/f")], path, SIZE, SHA).read_bytes() == b"theirs" and not site.asked


def test_a_lock_that_a_killed_process_has_left_is_no_lock(site, path):
    begun(path, b"").with_name("corpus.tar.gz.lock").touch()
    fetch([site.page("/f")], path, SIZE, SHA)
    assert there(path) == ["corpus.tar.gz"]


def test_no_lock_is_taken_that_has_lost_its_name(tmp_path, monkeypatch):
    "That is why a lock's file can be removed while it is held: who opened it before does not get it afterwards."
    flock = fcntl.flock
    def late(fd, how):
        (tmp_path / "lock").unlink(missing_ok=True)
        return flock(fd, how)
    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(Busy), alone(tmp_path / "lock", "busy"): pass


def test_a_full_disk_is_one_line_and_takes_nothing_away(site, path):
    neighbour = begun(path, BODY[:50_000]).with_name("other.csv")
    neighbour.write_bytes(b"text")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    with process(site.page("/f"), path, limit) as full: said = full.communicate()[1]
    assert full.returncode == 1 and said.count("\n") == 1 and str(path) in said and "too large" in said
    assert neighbour.read_bytes() == b"text" and part_of(path).read_bytes() == BODY[:100_000]
    assert there(path) == ["corpus.tar.gz.part", "other.csv"]


def test_a_folder_that_cannot_be_made_is_one_line(site, tmp_path):
    (tmp_path / "file").touch()
    assert "file/corpus" in refusal([site.page("/f")], tmp_path / "file/corpus", SIZE, SHA)


def test_an_interrupted_fetch_keeps_what_has_come(slow, path):
    url, begun, _ = slow
    with process(url, path) as other:
        assert begun.wait(30)
        wait_until(lambda: part_of(path).exists() and part_of(path).stat().st_size >= 3 * download.BLOCK)
        other.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in other.communicate()[1]
    assert there(path) == ["corpus.tar.gz.part"] and BODY.startswith(part_of(path).read_bytes())
