"""A name server that knows a few names, and lies when it is told to. It runs in a process of its own."""
import itertools
import multiprocessing
import os
import select
import socket
import struct

from lab import CORE, CORE_SIDE, GATEWAY4, inside

NAMES = [f"sos{n}.test" for n in range(8)]
A, CNAME, SRV = 1, 5, 33
RESPONSE, NO_SUCH_NAME, TRUNCATED = 0x8180, 0x8183, 0x8380
COPIES = 20  # of each lie


def encoded(name):
    return b"".join(bytes([len(one)]) + one.encode() for one in name.split(".")) + b"\0"


def record(kind, data, owner=b"\xc0\x0c", ttl=1):
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def address(text):
    return record(A, socket.inet_aton(text))


class Query:
    def __init__(self, octets):
        self.id, at, labels = octets[:2], 12, []
        while octets[at]:
            labels.append(octets[at + 1:at + 1 + octets[at]].decode())
            at += octets[at] + 1
        self.name, self.kind = ".".join(labels), struct.unpack("!H", octets[at + 1:at + 3])[0]
        self.question = octets[12:at + 5]

    def reply(self, *records, flags=RESPONSE, name=None, count=None):
        question = self.question if name is None else encoded(name) + self.question[-4:]
        return self.id + struct.pack("!HHHHH", flags, 1, len(records) if count is None else count, 0, 0) + question \
            + b"".join(records)

    def truth(self):
        if self.name in NAMES and self.kind == A:
            return self.reply(address(CORE))
        return self.reply(flags=NO_SUCH_NAME)


def other_id(query):
    return os.urandom(2) + query.reply(address("10.2.0.66"))[2:]


def lies():
    """Each takes a query and makes one answer."""
    made = [other_id, lambda q: q.reply(address("10.2.0.66"), name="elsewhere.test")]
    for one in ("127.0.0.1", CORE_SIDE, GATEWAY4, "0.0.0.0", "224.0.0.1", "255.255.255.255"):
        made.append(lambda q, one=one: q.reply(address(one)))
        made.append(lambda q, one=one: q.reply(record(SRV, struct.pack("!HHH", 1, 1, 5060) + encoded("localhost")),
                                               address(one)))
    made += [
        lambda q: q.reply(*[address(CORE_SIDE)] * 3000),                                    # 48 kB
        lambda q: q.reply(address("127.0.0.1"), count=65535),
        lambda q: q.reply(flags=TRUNCATED),                                                 # and again over TCP
        lambda q: q.reply(*[record(CNAME, b"\xc0\x0c")] * 200),                             # its own alias
        lambda q: q.reply(*[record(CNAME, encoded(f"a{n + 1}.test"), encoded(f"a{n}.test") if n else b"\xc0\x0c")
                            for n in range(500)]),
        lambda q: q.reply(b"\xc0\xff\xc0\xff" + os.urandom(40)),
        lambda q: q.reply(record(A, b"\x0a\x02")),
        lambda q: b"",
    ]
    return made


class NameServer:
    """At the next hop's address. `lies`: 1, and nothing that it says is true; `told`: how many lies it has told."""

    def __init__(self, lab):
        fork = multiprocessing.get_context("fork")
        self.lies, self.told = fork.Value("i", 0), fork.Value("i", 0)
        with inside(lab.home):
            self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.datagrams.bind((CORE, 53))
            self.streams = socket.socket()
            self.streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.streams.bind((CORE, 53))
            self.streams.listen(16)
        fork.Process(target=self.serve, daemon=True).start()

    def serve(self):
        turns = itertools.cycle(lies())
        while True:
            for ready in select.select([self.datagrams, self.streams], [], [])[0]:
                try:
                    self.answer_stream(turns) if ready is self.streams else self.answer_datagram(turns)
                except OSError:
                    pass  # too long for a datagram, or the gateway closed the connection

    def answer(self, octets, turns):
        query = Query(octets)
        if not self.lies.value:
            return query.truth()
        self.told.value += 1
        return next(turns)(query)

    def answer_datagram(self, turns):
        octets, source = self.datagrams.recvfrom(4096)
        answer = self.answer(octets, turns)
        for _ in range(COPIES if self.lies.value else 1):
            self.datagrams.sendto(answer, source)

    def answer_stream(self, turns):
        with self.streams.accept()[0] as one:
            one.settimeout(1)
            octets = one.recv(4096)
            answer = self.answer(octets[2:], turns)
            one.sendall(struct.pack("!H", len(answer)) + answer)
