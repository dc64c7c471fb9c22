#!/usr/bin/env python3
"""chaos_proxy.py LISTEN UPSTREAM CONTROL: HTTP between a client and a server, with faults on demand.

Loopback only, standard library only. A POST of JSON to CONTROL sets what goes wrong, any answer from
there tells what has happened so far:

    {"latency": 0.05, "down": false, "seed": 1,
     "rules": [{"fault": "503", "share": 0.3, "match": ".tar", "times": 5}]}

`latency` (seconds) is added to each request; `down` refuses every connection. A rule holds for GETs (or
what `methods` says) whose path contains `match` and not `unless`, a `share` of them, `times` times (-1:
always). Faults:
`503` and `500` (answers), `reset` (half a body, then RST), `early` (half a body, then the end), `short`
(half a body and a length that agrees), `flip` (a bit of the body), `damage` (a bit of what the client sends),
`stall` (never an answer), `lost` (the server does as asked, its answer becomes an RST). `flip` and `damage` take
the bit in the middle; where the rule says `"anywhere": true`, any: no two of them are alike then.
"""

import asyncio
import json
import random
import socket
import struct
import sys

settings = {"latency": 0.0, "down": False, "rules": []}
counts = {"requests": 0, "bytes": 0, "faults": {}}
draw = random.Random(0)


def broken(method, path):
    """The fault of this request, and where in a body it strikes: so much of it lies before, and which bit."""
    for rule in settings["rules"]:
        if method not in rule.get("methods", ["GET"]):
            continue
        if rule.get("unless") and rule["unless"] in path:
            continue
        if rule.get("match", "") in path and rule.get("times", -1) and draw.random() < rule.get("share", 1.0):
            rule["times"] = rule.get("times", -1) - 1
            counts["faults"][rule["fault"]] = counts["faults"].get(rule["fault"], 0) + 1
            return rule["fault"], *((draw.random(), draw.randrange(8)) if rule.get("anywhere") else (0.5, 0))
    return "", 0.0, 0


def reset(writer):
    """Close with RST."""
    raw = writer.get_extra_info("socket")
    if raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_head(reader):
    """First line, headers (lower case) and all bytes of a message's head; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
    return first, headers, head


async def copy(reader, writer, size):
    """Pass on exactly `size` bytes."""
    while size > 0:
        data = await reader.read(min(size, 1 << 18))
        if not data:
            raise ConnectionError("the server closed early")
        size -= len(data)
        counts["bytes"] += len(data)
        writer.write(data)
        await writer.drain()


async def pass_on(reader, writer, size, damaged, share, bit):
    """Pass on what the client sends, whole or with one bit of it flipped."""
    if damaged and size:
        before = int(size * share)
        await copy(reader, writer, before)
        byte = await reader.readexactly(1)
        writer.write(bytes([byte[0] ^ 1 << bit]))
        size -= before + 1
    await copy(reader, writer, size)


async def copy_chunked(reader, writer):
    """Pass on a chunked body."""
    while True:
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        size = int(line.split(b";")[0], 16)
        await copy(reader, writer, size + 2)
        if not size:
            return


async def answer(reader, writer, upstream, method, fault, share, bit):
    """Pass on one answer, or what a fault leaves of it."""
    first, headers, head = await read_head(upstream) or ("", {}, b"")
    if not head:
        raise ConnectionError("the server closed")
    size = int(headers.get("content-length", 0))
    if fault == "lost":
        reset(writer)
        raise ConnectionError("as asked")
    if fault in ("reset", "early", "short") and size:
        if fault == "short":
            old = f"content-length: {size}".encode()
            at = head.lower().index(old)
            head = head[:at] + f"content-length: {size // 2}".encode() + head[at + len(old) :]
        writer.write(head)
        await copy(upstream, writer, size // 2)
        if fault == "reset":
            reset(writer)
        raise ConnectionError("as asked")
    writer.write(head)
    bodyless = method == "HEAD" or first.split()[1] in ("204", "304")
    if fault == "flip" and size:
        body = bytearray(await upstream.readexactly(size))
        body[int(size * share)] ^= 1 << bit
        writer.write(bytes(body))
    elif headers.get("transfer-encoding", "") == "chunked" and not bodyless:
        await copy_chunked(upstream, writer)
    elif not bodyless:
        await copy(upstream, writer, size)
    await writer.drain()


async def serve(reader, writer):
    """One connection of a client, kept over many requests."""
    up_reader = up_writer = None
    try:
        while not settings["down"]:
            request = await read_head(reader)
            if request is None:
                return
            first, headers, head = request
            method, path = first.split()[:2]
            counts["requests"] += 1
            if settings["down"]:
                return reset(writer)
            if settings["latency"]:
                await asyncio.sleep(settings["latency"])
            fault, share, bit = broken(method, path)
            if fault == "stall":
                await asyncio.sleep(3600)
            if fault in ("500", "503"):
                code = {"503": "SlowDown", "500": "InternalError"}[fault]
                body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>asked for</Message></Error>'
                writer.write(
                    f"HTTP/1.1 {fault} {code}\r\nContent-Type: application/xml\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                await writer.drain()
                if method == "GET":
                    continue
                return  # what a PUT would send is not waited for
            if up_writer is None:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", UPSTREAM)
            up_writer.write(head)
            if "100-continue" in headers.get("expect", ""):
                _, _, more = await read_head(up_reader)
                writer.write(more)
            size = int(headers.get("content-length", 0))
            await pass_on(reader, up_writer, size, fault == "damage", share, bit)
            await answer(reader, writer, up_reader, method, fault, share, bit)
        reset(writer)
    except (OSError, asyncio.IncompleteReadError, RuntimeError):
        pass
    finally:
        writer.close()
        if up_writer:
            up_writer.close()


async def control(reader, writer):
    """Take new settings, tell what has happened."""
    request = await read_head(reader)
    size = int(request[1].get("content-length", 0)) if request else 0
    if size:
        new = json.loads(await reader.readexactly(size))
        if "seed" in new:
            draw.seed(new.pop("seed"))
        settings.update(new)
    told = json.dumps({**settings, **counts}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(told) + told)
    await writer.drain()
    writer.close()


async def main():
    """Serve until ended."""
    proxy = await asyncio.start_server(serve, "127.0.0.1", LISTEN, limit=1 << 20)
    controls = await asyncio.start_server(control, "127.0.0.1", CONTROL)
    await asyncio.gather(proxy.serve_forever(), controls.serve_forever())


if __name__ == "__main__":
    LISTEN, UPSTREAM, CONTROL = map(int, sys.argv[1:4])
    asyncio.run(main())
