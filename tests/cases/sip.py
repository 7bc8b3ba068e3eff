"""SIP text and the sockets that carry it: messages read leniently, written literally, so that a case can
send what no library would."""
import os
import re
import select
import time

PATIENCE = float(os.environ.get("GMGATE_CASE_PATIENCE", "10"))  # seconds to wait for what must come
COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length", "k": "supported",
           "c": "content-type", "o": "event"}


def build(start, headers, body=b""):
    """A message of its start line, whole header lines and a body; Content-Length is added."""
    lines = [start, *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("utf8", "surrogateescape") + body


def token(octets=6):
    return os.urandom(octets).hex()


def branch():
    return "z9hG4bK" + token()


def uri_of(value):
    found = re.search(r"<([^>]*)>", value)
    return found.group(1) if found else value.split(";")[0].strip()


def is_final(message):
    return message.status >= 200


def is_method(method):
    return lambda message: message.method == method


class Message:
    """One received message: header lines unfolded, names in lower case and in their long form."""

    def __init__(self, raw, source=None, socket=None):
        self.raw, self.source, self.socket = raw, source, socket
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("utf8", "surrogateescape").split("\r\n")
        self.start, self.headers = lines[0], []
        for line in lines[1:]:
            if line[:1] in " \t" and self.headers:
                self.headers[-1][1] += " " + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                self.headers.append([COMPACT.get(name, name), value.strip()])

    def all(self, name):
        return [value for key, value in self.headers if key == name]

    def get(self, name):
        return next(iter(self.all(name)), None)

    @property
    def status(self):
        return int(self.start.split()[1]) if self.start.startswith("SIP/") else 0

    @property
    def method(self):
        return "" if self.status else self.start.split(" ")[0]

    def vias(self):
        return [via.strip() for line in self.all("via") for via in re.split(r",(?=\s*SIP\s*/)", line)]

    def route_set(self):
        """Record-Route in the order of the message."""
        return [one for line in self.all("record-route") for one in re.split(r",\s*(?=<)", line)]

    def path(self):
        return uri_of(self.get("path"))

    def __repr__(self):
        return f"<{self.start}>"


def split_stream(octets):
    """The whole messages at the front of a stream, and the rest; pings are left out."""
    whole = []
    while True:
        octets = octets.lstrip(b"\r\n")
        end = octets.find(b"\r\n\r\n")
        if end < 0:
            return whole, octets
        length = re.search(rb"(?im)^(?:content-length|l)\s*:\s*(\d+)", octets[:end])
        size = end + 4 + (int(length.group(1)) if length else 0)
        if len(octets) < size:
            return whole, octets
        whole.append(octets[:size])
        octets = octets[size:]


class Peer:
    """Whoever has sockets: takes whole messages from all of them, in the order in which they come."""

    def __init__(self):
        self.datagram, self.listening, self.streams, self.waiting = [], [], {}, []
        self.ended = []  # streams that the other side closed

    def watch(self, stream):
        self.streams[stream] = b""
        return stream

    def receive(self, wanted=None, patience=None):
        """The next message that is wanted (any when None); the others stay for later. None when none came in time."""
        deadline = time.monotonic() + (PATIENCE if patience is None else patience)
        while True:
            for message in self.waiting:
                if wanted is None or wanted(message):
                    self.waiting.remove(message)
                    return message
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.read_all(left)

    def final(self, patience=None, method=None):
        """The next final answer, to that method when one is given."""
        return self.receive(lambda m: is_final(m) and (method is None or (m.get("cseq") or "").endswith(method)),
                            patience)

    def sockets(self):
        return [*self.datagram, *self.listening, *self.streams]

    def read_all(self, patience):
        """What is there, or comes first within that time."""
        for socket in select.select(self.sockets(), [], [], patience)[0]:
            self.read(socket)

    def read(self, socket):
        if socket in self.listening:
            self.watch(socket.accept()[0])
        elif socket in self.streams:
            self.read_stream(socket)
        else:
            self.read_datagram(socket)

    def read_datagram(self, socket):
        try:
            octets, source = socket.recvfrom(65536)
        except OSError:
            return
        if b"SIP/2.0" in octets:
            self.take(Message(octets, source, socket))

    def read_stream(self, socket):
        try:
            octets = socket.recv(65536)
        except OSError:
            octets = b""
        if not octets:
            del self.streams[socket]
            self.ended.append(socket)
            return
        whole, self.streams[socket] = split_stream(self.streams[socket] + octets)
        for one in whole:
            self.take(Message(one, None, socket))

    def take(self, message):
        """A refused INVITE gets its ACK at once; everything else waits for whoever asks."""
        if message.status >= 300 and "INVITE" in (message.get("cseq") or ""):
            self.acknowledge(message)
        self.waiting.append(message)

    def acknowledge(self, message):
        raise NotImplementedError


def read_all_of(peers, patience):
    """What is there for any of them, to the last message; the first may take that time to come."""
    while True:
        owners = {socket: peer for peer in peers for socket in peer.sockets()}
        ready = select.select(owners, [], [], patience)[0]
        if not ready:
            return
        for socket in ready:
            owners[socket].read(socket)
        patience = 0


def ack_of(message, uri):
    """The ACK of a final answer that is no 2xx (RFC 3261 §17.1.1.3)."""
    return build(f"ACK {uri} SIP/2.0",
                 [f"Via: {message.vias()[0]}", "Max-Forwards: 60", f"From: {message.get('from')}",
                  f"To: {message.get('to')}",
                  f"Call-ID: {message.get('call-id')}", f"CSeq: {message.get('cseq').split()[0]} ACK"])


def answer_to(message, status, reason, extra, body, tag, with_record_route=False):
    to = message.get("to")
    if "tag=" not in to and status != 100:
        to += f";tag={tag}"
    headers = [f"Via: {via}" for via in message.vias()]
    if with_record_route:
        headers += [f"Record-Route: {one}" for one in message.all("record-route")]
    headers += [f"From: {message.get('from')}", f"To: {to}", f"Call-ID: {message.get('call-id')}",
                f"CSeq: {message.get('cseq')}"]
    return build(f"SIP/2.0 {status} {reason}", headers + list(extra), body)
