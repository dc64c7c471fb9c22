"""Keys that other software takes for something else, and a store held against a dictionary of them."""

from __future__ import annotations

import os
import tempfile
import uuid
from typing import Any

from hypothesis import strategies as st

from retfound_dist.io import storage

NAMED = (
    "oct1", "oct[1]", "oct[!a]", "oct?", "oct*", "*", "**", "o{c,d}t", "a b", " a", "a ", "100%", "%2F", "%20", "a+b",
    "a&b=c", "a#b", "-rf", "--", "~", "~root", "a.", "..a", "...", "a\\b", "a\\", "'a'", '"a"', "a;b", "(a)", "a,b",
    "a@b", "$HOME", "`a`", "a!", "a^b", "<a>", "a|b", "é", "e\u0301", "日本", "🩺", "a?versionId=b", "a::b", "a:b",
    "s3", "oct", "oct10",
)  # fmt: skip
LETTERS = "ab1*?[]{}!-%+&= ~@#$^()'\",;:.\\é日"
NAMES = st.one_of(
    st.sampled_from(NAMED), st.text(LETTERS, min_size=1, max_size=6).filter(lambda n: n not in (".", ".."))
)
KEYS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "put", "delete", "delete", "copy", "look"]), KEYS, KEYS
    ),
    min_size=2,
    max_size=14,
)

Held = dict[str, bytes]
"""Key -> content: what the store should hold."""


def follow(root: str, acts: list[tuple[str, str, str]], *, each: bool = True) -> None:
    """Do the same to a store and to a dictionary; they agree after each act, or at least at the end."""
    held: Held = {}
    seen: set[str] = set()  # folders: a disk keeps those that were emptied, a store does not
    for act, key, other in acts:
        some = sorted(held) and sorted(held)[len(other) % len(held)]  # one that is there
        if act in ("write", "put") and key not in seen and fits(held, key):
            held[key] = uuid.uuid4().bytes
            write(storage.join(root, key), held[key], whole=act == "write")
        elif act == "delete":
            for gone in (key, *([some.rpartition("/")[0] or some] if some else [])):
                storage.delete(storage.join(root, gone))
                held = {k: v for k, v in held.items() if k != gone and not k.startswith(gone + "/")}
                seen = {k for k in seen if k != gone and not k.startswith(gone + "/")}
        elif act == "copy" and some and key not in seen and fits(held, key):
            held[key] = copy(storage.join(root, some), storage.join(root, key))
        seen |= folders_of(held)
        if each:
            agree(root, held, seen, [key, other])
    agree(root, held, seen, [])


def folders_of(held: Held) -> set[str]:
    """Every folder that a key lies in."""
    return {"/".join(key.split("/")[:n]) for key in held for n in range(1, len(key.split("/")))}


def fits(held: Held, key: str) -> bool:
    """Whether a disk can hold the key too: no file is a folder there."""
    parts = key.split("/")
    above = {"/".join(parts[:n]) for n in range(1, len(parts))}
    return not above & held.keys() and not any(k.startswith(key + "/") for k in held)


def write(url: str, data: bytes, *, whole: bool) -> None:
    """By bytes, or from a local file."""
    if whole:
        storage.write_bytes(url, data)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        storage.put_file(file.name, url)


def copy(source: str, target: str) -> bytes:
    """Through a local file; gives what was copied."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x")
        storage.get_file(source, path)
        storage.put_file(path, target)
        with open(path, "rb") as file:
            return file.read()


def agree(root: str, held: Held, seen: set[str], others: list[str]) -> None:
    """The store lists, finds, measures and reads what the dictionary holds, at these keys too."""
    folders = folders_of(held)
    for folder in ["", *folders]:
        inside = f"{folder}/" if folder else ""
        wanted = {key[len(inside) :].split("/")[0] for key in held if key.startswith(inside)}
        found = storage.list_names(storage.join(root, folder) if folder else root)
        assert found == sorted(wanted | {name for name in found if f"{inside}{name}" in seen})
        inner = storage.list_folders(storage.join(root, folder) if folder else root)
        assert inner == [name for name in found if f"{inside}{name}" in folders | seen]
    for key in {*others, *held, *folders} - (seen - folders):
        url = storage.join(root, key)
        assert storage.exists(url) == (key in held or key in folders), url
        assert storage.is_folder(url) == (key in folders), url
    for key, data in held.items():
        assert storage.read_bytes(storage.join(root, key)) == data
        assert storage.size(storage.join(root, key)) == len(data)


def neighbours(root: str) -> dict[str, Any]:
    """Every name of `NAMED` written beside the others, each with a file in a folder of that name plus x."""
    held = {name: name.encode() for name in NAMED} | {f"{name}x/in": b"x" for name in NAMED}
    for key, data in held.items():
        storage.write_bytes(storage.join(root, key), data)
    return held
