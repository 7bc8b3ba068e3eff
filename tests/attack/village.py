"""Who is disturbed: phones that register, refresh, message and call all the time, and a home network that answers at
once. Whatever an attack does, they must not notice."""
import itertools
import re
import time

from lab import CORE, Gateway, inside
from names import NAMES
from peers import REALM, Core, Phone, TlsPhone
from sip import is_final, read_all_of, token

PEER = f"sip:peer@{CORE}:5060"
RETRANSMIT = (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5)  # seconds after the first: Timer E of RFC 3261 with T1 = 500 ms
LOST, LOST_IN_SHORT = 12.0, 32.0  # seconds: an operation that is not done by then is lost
KINDS = ("message", "refresh", "reach", "call")


class DefaultGateway(Gateway):
    """gmgated with its default limits: what an operator has who sets none."""

    log_level, sections = "info", "[timers]\nstranger-connection = 10"
    core = f'name-servers = ["{CORE}"]\n' + "".join(f'[[core.emergency-next-hops]]\nhost = "{one}"\n' for one in NAMES)


class TightGateway(DefaultGateway):
    """The same with limits that a few messages reach: what is tried is whether they hold, not how fast a machine is."""

    sections = """[timers]
stranger-connection = 4
[limits]
loop-lag = 60000
authentications-per-source = 4
challenges-per-address = 16
tls-handshakes-per-address = 10
emergency-calls = 40"""


class Home(Core):
    """Answers each request as it comes. `users`: private identities that it knows, with "aka" or "md5"; all others are
    refused, or left without an answer while it is deaf to them."""

    def __init__(self, lab):
        super().__init__(lab)
        self.users, self.said, self.operations, self.now_asked = {}, {}, {}, None
        self.is_deaf, self.from_strangers, self.requests = False, 0, []

    def send_back(self, message, octets):
        if self.now_asked:
            self.said[self.now_asked] = octets
        try:
            super().send_back(message, octets)
        except OSError:
            pass  # the gateway closed that connection

    def take(self, message):
        if message.status:
            operation = self.operations.get(message.get("call-id"))
            if operation and message.status >= 200:
                operation.answered(message)
            return
        if message.method == "ACK":
            return
        key = (message.start, message.vias()[0])
        if key in self.said:
            super().send_back(message, self.said[key])
            return
        self.now_asked = key
        self.requests.append(message)
        self.answer(message)
        self.now_asked = None

    def answer(self, message):
        if message.method == "REGISTER":
            self.answer_register(message)
        elif message.start.split()[1].startswith("urn:service:sos") and "helpless" not in message.get("from"):
            self.reply(message, 180, "Ringing", [f"Contact: <{PEER}>", *self.routes(message)])
        elif message.method == "INVITE":
            self.reply(message, 200, "OK", [f"Contact: <{PEER}>", *self.routes(message)])
        else:
            self.reply(message, 200, "OK")

    @staticmethod
    def routes(message):
        return [f"Record-Route: {one}" for one in message.all("record-route")]

    def answer_register(self, message):
        credentials = message.get("authorization") or ""
        user = re.search(r'username="([^"]*)"', credentials)
        kind = self.users.get(user.group(1) if user else "")
        if not kind:
            self.from_strangers += 1
            if not self.is_deaf:
                self.reply(message, 403, "Forbidden")
        elif re.search(r'integrity-protected="?(yes|tls-yes)', credentials) or re.search(r'response="[^"]', credentials):
            self.accept(message)
        elif kind == "aka":
            self.challenge(message)
        else:
            self.reply(message, 401, "Unauthorized",
                       [f'WWW-Authenticate: Digest realm="{REALM}",nonce="n{token()}",algorithm=MD5,qop="auth"'])


class Operation:
    """One thing that a phone does, from its first octet to its last answer. `patience`: seconds, then it is lost."""

    patience = LOST

    def __init__(self, kind):
        self.kind, self.begun, self.ended, self.status = kind, time.monotonic(), None, None
        self.again, self.copies = None, list(RETRANSMIT)  # what is sent again until something comes

    def end(self, status):
        if self.ended is None:
            self.ended, self.status, self.again = time.monotonic(), status, None

    def answered(self, message):
        """A final answer that came to the home network."""
        self.end(message.status)

    def turn(self):
        age = time.monotonic() - self.begun
        if self.ended is None and age > self.patience:
            self.end(None)
        elif self.again and self.copies and age > self.copies[0]:
            self.copies.pop(0)
            self.again()

    def is_good(self):
        return self.status is not None and 200 <= self.status < 300

    def took(self):
        return self.ended - self.begun


class Resident:
    """A phone with a registration, or one that is on its way to it."""

    def __init__(self, lab, home, number, v6=False, tcp=False):
        self.phone, self.home = Phone(lab, number, v6, tcp), home
        self.operation, self.done, self.is_registered = None, [], False
        home.users[self.phone.impi] = "aka"

    def begin(self, kind):
        self.operation = Operation(kind)
        getattr(self, kind)()

    def send(self, octets):
        self.phone.send(octets)
        if not self.phone.is_tcp:
            self.operation.again = lambda: self.phone.send(octets)

    # What it does.

    def register(self):
        phone = self.phone
        phone.open_clear()
        octets = phone.register(port=phone.clear.getsockname()[1])
        phone.clear.sendall(octets)
        if not phone.is_tcp:
            self.operation.again = lambda: phone.clear.sendall(octets)

    def answer_challenge(self, message):
        self.phone.take_challenge(message)
        self.phone.open_protected()
        self.operation.copies = [time.monotonic() - self.operation.begun + one for one in RETRANSMIT]
        self.send(self.phone.register(credentials=self.phone.credentials(), offer=self.phone.offer(), is_protected=True))

    def refresh(self):
        self.send(self.phone.register(credentials=self.phone.credentials(), offer="", is_protected=True))

    def message(self):
        self.call = token()
        self.send(self.phone.request("MESSAGE", call=self.call, extra=["Content-Type: text/plain"], body=b"x"))

    def reach(self):
        call = token()
        self.home.operations[call] = self.operation
        octets = self.home.request("MESSAGE", self.phone.uri(), self.phone.path, call=call, body=b"ping",
                                   extra=["Content-Type: text/plain"])
        self.home.send(octets)
        self.operation.again = lambda: self.home.send(octets)

    def call_somebody(self):
        self.call = token()
        self.send(self.phone.request("INVITE", call=self.call, from_tag="f", has_contact=True))

    call = ""

    # What comes.

    def turn(self):
        for message in self.phone.waiting:
            if message.method and message.method != "ACK":
                self.phone.answer(message, 200)
            elif message.status >= 200 and self.operation and self.operation.ended is None:
                self.take(message, (message.get("cseq") or " ").split()[1])
        self.phone.waiting.clear()
        if self.operation:
            self.operation.turn()
            if self.operation.ended is not None:
                self.done.append(self.operation)
                self.operation = None

    def take(self, message, method):
        kind = self.operation.kind
        if method == "REGISTER" and kind in ("register", "refresh"):
            self.take_register(message)
        elif kind == "message" and message.get("call-id") == self.call:
            self.operation.end(message.status)
        elif kind == "call_somebody" and message.get("call-id") == self.call:
            self.take_call(message, method)

    def take_register(self, message):
        if self.operation.kind == "register" and message.status == 401:
            if not self.phone.security_server:
                self.answer_challenge(message)
            return
        if message.get("cseq") != f"{self.phone.cseq} REGISTER":
            return  # a copy of an earlier answer
        if message.status == 200 and self.operation.kind == "register":
            path = next((m.path() for m in reversed(self.home.requests)
                         if m.method == "REGISTER" and m.get("call-id") and self.phone.impu in m.get("to")), None)
            self.phone.path, self.phone.service_route, self.is_registered = path, message.all("service-route"), True
        self.operation.end(message.status)

    def take_call(self, message, method):
        if method == "INVITE" and message.status == 200:
            routes = [", ".join(reversed(message.route_set()))]
            for cseq, what in ((1, "ACK"), (2, "BYE")):
                self.send(self.phone.request(what, PEER, cseq=cseq, call=self.call, from_tag="f", to_tag="core",
                                             routes=routes))
        else:
            self.operation.end(message.status)


class Village:
    """All of them. One operation of a resident begins every 1/rate seconds, each kind in turn."""

    def __init__(self, lab, count, rate, names):
        self.lab, self.rate, self.next_number, self.names = lab, rate, 20, names
        self.home = lab.core
        self.residents, self.newcomers = [], []
        self.kinds, self.turns, self.due = itertools.cycle(KINDS), itertools.count(), time.monotonic()
        for n in range(count):
            self.residents.append(self.newcomer(v6=n % 2 == 1, tcp=n % 4 > 1))
        for one in self.residents:
            one.begin("register")
            self.turn(0.01)
        self.until(lambda: all(one.is_registered for one in self.residents), 120)
        lost = [one.phone.impi for one in self.residents if not one.is_registered]
        if lost:
            raise RuntimeError(f"{len(lost)} phones do not register before any attack: {lost[:3]}")
        self.forget()

    def newcomer(self, v6=False, tcp=False):
        self.next_number += 1
        return Resident(self.lab, self.home, self.next_number, v6, tcp)

    def welcome(self, **what):
        """A phone that registers now."""
        one = self.newcomer(**what)
        one.begin("register")
        self.newcomers.append(one)
        return one

    def everybody(self):
        return [*self.residents, *self.newcomers]

    def turn(self, patience=0.02):
        read_all_of([self.home, *(one.phone for one in self.everybody())], patience)
        for one in self.everybody():
            one.turn()

    def work(self):
        """A turn in which residents begin what is due."""
        while time.monotonic() >= self.due:
            self.due = max(self.due + 1 / self.rate, time.monotonic() - 0.5)
            idle = self.residents[next(self.turns) % len(self.residents)]
            if idle.operation is None:
                kind = next(self.kinds)
                idle.begin("call_somebody" if kind == "call" else kind)
        self.turn()

    def until(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self.turn()
        return condition()

    def finish(self):
        """Whatever is under way comes to its end."""
        self.until(lambda: all(one.operation is None for one in self.everybody()), Operation.patience + 3)

    def operations(self):
        return [done for one in self.everybody() for done in one.done]

    def forget(self):
        for one in self.everybody():
            one.done = []
        self.home.requests.clear()
        self.home.operations.clear()
        self.home.said.clear()


def tls_phone_registers(village):
    """A phone with TLS and digest from the first SYN to its 200; True when it is served in time."""
    village.next_number += 1
    phone = TlsPhone(village.lab, village.next_number)
    village.home.users[phone.impi] = "md5"

    def final():
        deadline = time.monotonic() + Operation.patience
        while time.monotonic() < deadline:
            village.work()
            phone.read_all(0.01)
            for message in phone.waiting:
                if is_final(message):
                    phone.waiting.clear()
                    return message
        return None

    try:
        phone.open_tls()
        phone.send(phone.register(offer="", port=phone.port_us))
        challenge = final()
        if not challenge or challenge.status != 401:
            return False
        phone.nonce = re.search(r'nonce="([^"]*)"', challenge.get("www-authenticate")).group(1)
        phone.vector, phone.count = {"res": b"secret"}, 0
        phone.send(phone.register(credentials=phone.credentials(), offer="", port=phone.port_us))
        answer = final()
        return bool(answer and answer.status == 200)
    except OSError:
        return False


def stranger_calls_for_help(village, address, call=None):
    """An emergency call of nobody, in clear; True when it is answered."""
    lab, call = village.lab, call or token()
    caller = Phone(lab, 99, gateway="10.1.0.1")
    with inside(lab.ue):
        caller.clear = lab.socket(lab.ue, "udp", address, 0)
        caller.clear.connect(("10.1.0.1", 5060))
    caller.datagram.append(caller.clear)
    caller.send = caller.clear.sendall
    port = caller.clear.getsockname()[1]
    caller.host = address
    octets = caller.request("INVITE", "urn:service:sos", call=call, routes=[], has_contact=True, via_port=port,
                            identity=f"sip:helpless@{REALM}")
    operation = Operation("help")
    operation.again = lambda: caller.clear.sendall(octets)
    operation.again()
    deadline = time.monotonic() + Operation.patience
    while time.monotonic() < deadline:
        village.work()
        operation.turn()
        caller.read_all(0.01)
        for message in caller.waiting:
            if message.status >= 200 and message.get("call-id") == call:
                return message.status == 200
        caller.waiting.clear()
    return False
