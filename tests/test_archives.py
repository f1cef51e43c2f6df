"Archives: members as streams, and archives that are not to be trusted."
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from corpora import says
from ulmfit.corpus.archives import Member, open_bytes, tar_members

content = "".join(map(chr, range(300, 9000))).encode()  # does not get much smaller
members = {"set/a.txt": b"first", "set/b.txt": content, "set/c.txt": b"last"}


def tar(path: Path, mode: str = "gz", more: tarfile.TarInfo | None = None) -> Path:
    "An archive of `members`, and one more entry."
    with tarfile.open(path, f"w:{mode}") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if more: archive.addfile(more)
    return path


def zipped(path: Path, more: str | zipfile.ZipInfo | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items(): archive.writestr(name, data)
        if more: archive.writestr(more, b"x")
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read(path: Path, name: str) -> bytes:
    with open_bytes(Member(path, name)) as f: return f.read()


@pytest.mark.parametrize("mode", ["gz", "xz", "bz2", ""])
def test_a_member_of_a_tar_is_a_file(tmp_path, mode):
    assert {name: read(tar(tmp_path / "a.tar", mode), name) for name in members} == members


def test_a_member_of_a_zip_is_a_file(tmp_path):
    assert {name: read(zipped(tmp_path / "a.zip"), name) for name in members} == members


def test_members_come_in_the_archives_order(tmp_path):
    assert [(name, f.read()) for name, f in tar_members(tar(tmp_path / "a.tar"))] == list(members.items())


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_member_that_is_missing_is_named(tmp_path, make):
    path = make(tmp_path / f"a.{make.__name__[:3]}")
    with says(f"{path}: there is no set/d.txt"): read(path, "set/d.txt")


@pytest.mark.parametrize("bad", [
    entry("../out.txt"), entry("set/../../out.txt"), entry("/tmp/out.txt"), entry("C:\\out.txt"), entry("..\\out.txt"),
    entry("set/link", tarfile.SYMTYPE, "/etc/passwd"), entry("set/hard", tarfile.LNKTYPE, "set/a.txt"),
    entry("set/device", tarfile.CHRTYPE)], ids=lambda e: f"{e.name} {e.type.decode()}")
def test_a_tar_with_a_member_that_leaves_it_is_refused(tmp_path, bad):
    with says("a.tar", repr(bad.name)):
        for _, f in tar_members(tar(tmp_path / "a.tar", more=bad)): f.read()
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_a_tar_is_not_trusted_for_what_stands_behind_the_wanted_member_either(tmp_path):
    with says("a.tar", "../out.txt"): read(tar(tmp_path / "a.tar", more=entry("../out.txt")), "set/a.txt")


@pytest.mark.parametrize("change, says_", [(dict(flag_bits=1), "encrypted"), (dict(compress_type=97), "compression")])
def test_a_zip_that_cannot_be_unpacked_is_named(tmp_path, monkeypatch, change, says_):
    path = zipped(tmp_path / "a.zip")
    listed = zipfile.ZipFile.getinfo

    def changed(self, name):
        info = listed(self, name)
        for k, v in change.items(): setattr(info, k, v)
        return info
    monkeypatch.setattr(zipfile.ZipFile, "getinfo", changed)
    with says("a.zip/set/a.txt", says_): read(path, "set/a.txt")


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("set/link")
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize("bad", ["../out.txt", "/tmp/out.txt", "set/../../out.txt", link()],
                         ids=["up", "absolute", "up within", "link"])
def test_a_zip_with_a_member_that_leaves_it_is_refused(tmp_path, bad):
    "Wherever in the archive it stands."
    with says("a.zip", "this is not the archive"): read(zipped(tmp_path / "a.zip", bad), "set/a.txt")


@pytest.mark.parametrize("mode", ["gz", "xz", ""])
def test_a_cut_tar_is_named(tmp_path, mode):
    path = tar(tmp_path / "a.tar", mode)
    path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 3])
    with says("a.tar", "damaged archive"): read(path, "set/b.txt")


@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b[:4000] + bytes(40) + b[4040:],
                                    lambda b: b"x"], ids=["cut", "changed", "no zip"])
def test_a_damaged_zip_is_named(tmp_path, damage):
    path = zipped(tmp_path / "a.zip")
    path.write_bytes(damage(path.read_bytes()))
    with says("a.zip", "damaged archive"): read(path, "set/b.txt")
