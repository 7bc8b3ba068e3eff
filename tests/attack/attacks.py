"""Each attack: what it sends, for how long, and what must not happen. Those that flood run in a process of their own, so
that they take the machine's time from the gateway and not from the phones' script."""
import itertools
import random
import re
import select
import socket
import time

from lab import CORE_SIDE, GATEWAY4, TLS4, inside, shell
from peers import REALM
from sip import branch, build, token
from village import stranger_calls_for_help, tls_phone_registers

SOURCES = [f"10.1.200.{n}" for n in range(1, 201)]  # of strangers; all of them are local in the phones' namespace
PREFIX = [f"fd02::{n:x}" for n in range(1, 201)]    # the same in one /64 of IPv6
SPOOFED_CALLS = 1100


def prepare(lab):
    """Routes by which the phones' namespace may be anybody there."""
    shell(f"ip -n {lab.ue} route add local 10.1.200.0/24 dev lo")
    shell(f"ip -n {lab.ue} route add 10.2.0.0/24 via {GATEWAY4} dev u0 onlink")
    shell(f"ip -n {lab.gw} route add fd02::/64 via fd01::fffe dev g0")
    lab.set_up(lab.ue, "address add fd01::fffe/64 dev u0 nodad\n"
               + "".join(f"address add {one}/128 dev u0 nodad\n" for one in PREFIX))


def register(host, port, user, length=0):
    """A REGISTER in clear with an offer, of that user."""
    spi = random.randrange(1000, 2**31)
    impi = f"{user}{'x' * length}@{REALM}"
    return build(f"REGISTER sip:{REALM} SIP/2.0",
                 [f"Via: SIP/2.0/UDP {host}:{port};branch={branch()};rport", "Max-Forwards: 70",
                  f"From: <sip:{user}@{REALM}>;tag={token()}", f"To: <sip:{user}@{REALM}>", f"Call-ID: {token()}",
                  "CSeq: 1 REGISTER", f"Contact: <sip:{user}@{host}:5062>;expires=600000", "Require: sec-agree",
                  "Proxy-Require: sec-agree", "Supported: path",
                  f'Authorization: Digest username="{impi}",realm="{REALM}",uri="sip:{REALM}",nonce="",response=""',
                  f"Security-Client: ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c={spi};"
                  f"spi-s={spi + 1};port-c=5061;port-s=5062"])


def request(method, uri, host, port, call=None, to_tag="", extra=(), body=b"", user="nobody"):
    return build(f"{method} {uri} SIP/2.0",
                 [f"Via: SIP/2.0/UDP {host}:{port};branch={branch()};rport", "Max-Forwards: 70",
                  f"From: <sip:{user}@{REALM}>;tag={token()}", f"To: <{uri}>" + (f";tag={to_tag}" if to_tag else ""),
                  f"Call-ID: {call or token()}", f"CSeq: 1 {method}", f"Contact: <sip:{user}@{host}:{port}>", *extra],
                 body)


def sockets(lab, addresses, gateway=GATEWAY4, port=0):
    """One UDP socket at each address, connected to the unprotected port, and where it is."""
    made = []
    for address in addresses:
        with inside(lab.ue):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            one = socket.socket(family, socket.SOCK_DGRAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((address, port))
            one.connect((gateway, 5060))
            one.setblocking(False)
        made.append((one, f"[{address}]" if ":" in address else address, one.getsockname()[1]))
    return made


def pour(made, make, rate):
    """Datagrams at that rate from all of these sockets in turn, until somebody ends this process."""
    begun, sent = time.monotonic(), 0
    for one, host, port in itertools.cycle(made):
        ahead = sent / rate - (time.monotonic() - begun)
        if ahead > 0:
            time.sleep(ahead)
        try:
            one.send(make(host, port))
            one.recv(65536)
        except OSError:
            pass  # nothing came, or an ICMP error
        sent += 1


class Attack:
    """`run` floods from a process of its own; `during` is called between the phones' turns; `judge` adds what is wrong.
    `memory`: MiB that the resident size may grow by."""

    seconds, memory, newcomers = 8.0, 48, True

    def __init__(self, village):
        self.village, self.lab = village, village.lab

    def run(self):
        time.sleep(3600)

    def during(self):
        pass

    def judge(self):
        return []


class MixedFlood(Attack):
    """1,600 datagrams a second in clear from 200 addresses: malformed, INVITEs, REGISTERs without an offer, unknown users"""

    def run(self):
        kinds = itertools.cycle((
            lambda host, port: b"REGISTER sip:x SIP/2.0\r\nVia: ???\r\nTo: <<>\r\n\r\n",
            lambda host, port: request("INVITE", f"sip:a@{REALM}", host, port),
            lambda host, port: request("REGISTER", f"sip:{REALM}", host, port),
            lambda host, port: register(host, port, "nobody" + token())))
        pour(sockets(self.lab, SOURCES), lambda host, port: next(kinds)(host, port), 1600)


class LargeUsernames(Attack):
    """refused REGISTERs with a username of 60 kB, 100 a second"""

    def run(self):
        pour(sockets(self.lab, SOURCES[:8]), lambda host, port: register(host, port, "a" + token(), 60000), 100)


class LargeOnStreams(Attack):
    """the same over TCP, on 16 connections"""

    def run(self):
        while True:
            for address in SOURCES[:16]:
                try:
                    with inside(self.lab.ue), socket.socket() as one:
                        one.settimeout(1)
                        one.bind((address, 0))
                        one.connect((GATEWAY4, 5060))
                        one.sendall(register(address, one.getsockname()[1], "a" + token(), 60000))
                        one.recv(65536)
                except OSError:
                    pass
            time.sleep(0.05)


class DeafCore(Attack):
    """REGISTERs of strangers, 200 a second, to which the home network does not answer"""

    def run(self):
        pour(sockets(self.lab, SOURCES), lambda host, port: register(host, port, "nobody" + token()), 200)

    def during(self):
        self.village.home.is_deaf = True

    def judge(self):
        self.village.home.is_deaf = False
        return []


class OnePrefix(Attack):
    """REGISTERs of users that exist, 200 a second, from 200 addresses of one IPv6 /64: each is challenged"""

    def __init__(self, village):
        super().__init__(village)
        for n in range(2000):
            village.home.users[f"victim{n}@{REALM}"] = "aka"

    def run(self):
        users = itertools.count()
        pour(sockets(self.lab, PREFIX, "fd01::1"),
             lambda host, port: register(host, port, f"victim{next(users) % 2000}"), 200)


class NameOfAPhone(Attack):
    """REGISTERs in clear with the identities of registered phones, 20 a second each, from other addresses"""

    def run(self):
        names = itertools.cycle([one.phone.user for one in self.village.residents[:10]])
        pour(sockets(self.lab, SOURCES[:50]), lambda host, port: register(host, port, next(names)), 200)


class AddressOfAPhone(Attack):
    """64 REGISTERs at once, then 20 a second, of other users with the source address of a phone, which registers meanwhile"""

    newcomers = False

    def __init__(self, village):
        super().__init__(village)
        self.victim = village.newcomer()
        for n in range(64):
            village.home.users[f"other{n}@{REALM}"] = "aka"

    def run(self):
        users = itertools.count()
        made = sockets(self.lab, [self.victim.phone.address])
        for one, host, port in made * 64:
            one.send(register(host, port, f"other{next(users) % 64}"))
        pour(made, lambda host, port: register(host, port, f"other{next(users) % 64}"), 20)

    def during(self):
        if self.victim not in self.village.newcomers and self.age() > 2:
            self.village.newcomers.append(self.victim)
            self.victim.begin("register")

    def age(self):
        return time.monotonic() - self.begun

    def judge(self):
        return [] if self.victim.is_registered else ["the phone whose address was used does not register"]


class EmergencyFlood(Attack):
    """1,100 emergency INVITEs with 200 source addresses that nobody answers, then a real one"""

    def run(self):
        made, sent = sockets(self.lab, SOURCES), itertools.count()

        def call(host, port):
            if next(sent) > SPOOFED_CALLS:
                time.sleep(3600)
            return request("INVITE", "urn:service:sos", host, port)

        pour(made, call, 400)

    def judge(self):
        return [] if stranger_calls_for_help(self.village, "10.1.200.250") else ["a real emergency call is not served"]


class EmergencyDoor(Attack):
    """MESSAGEs to anybody with Call-ID and tags of an emergency call that stands, from elsewhere"""

    def __init__(self, village):
        super().__init__(village)
        self.stands = stranger_calls_for_help(village, "10.1.200.251", "emergency-call")

    def run(self):
        pour(sockets(self.lab, SOURCES[:4]), self.message, 50)

    def message(self, host, port):
        return request("MESSAGE", f"sip:victim@{REALM}", host, port, call="emergency-call", to_tag="core",
                       extra=["P-Asserted-Identity: <sip:boss@ims.test>", "Route: <sip:10.2.0.2;lr>"], body=b"in")

    def judge(self):
        passed = [one for one in self.village.home.requests if one.method == "MESSAGE" and one.body == b"in"]
        return ([f"{len(passed)} of them reached the core"] if passed else []) \
            + ([] if self.stands else ["the emergency call was not served"])


class HalfOpenTls(Attack):
    """TLS handshakes that are begun and left, 200 from each of six addresses; others send one octet of it a second"""

    def run(self):
        made = []
        while True:
            for address in SOURCES[:6]:
                try:
                    with inside(self.lab.ue):
                        one = socket.socket()
                        one.settimeout(1)
                        one.bind((address, 0))
                        one.connect((TLS4, 5061))
                        one.send(b"\x16\x03\x01\x02")
                        made.append(one)
                except OSError:
                    time.sleep(0.05)
            while len(made) > 1200:
                made.pop(0).close()
            time.sleep(0.002)

    def during(self):
        if not hasattr(self, "served") and time.monotonic() - self.begun > 3:
            self.served = sum(tls_phone_registers(self.village) for _ in range(2))

    def judge(self):
        return [] if getattr(self, "served", 0) == 2 else [f"{getattr(self, 'served', 0)} of 2 TLS phones register"]


class SlowStreams(Attack):
    """connections in clear that send a header line now and then, or OPTIONS for ever: 300 from each of four addresses"""

    seconds = 14.0  # longer than [timers] stranger-connection

    def run(self):
        made = []
        for address in itertools.cycle(SOURCES[:4]):
            if len(made) < 1200:
                try:
                    with inside(self.lab.ue):
                        one = socket.socket()
                        one.settimeout(1)
                        one.bind((address, 0))
                        one.connect((GATEWAY4, 5060))
                        made.append((one, address))
                except OSError:
                    pass
            some, address = random.choice(made) if made else (None, None)
            if not some:
                continue
            try:
                slow = some.fileno() % 2
                some.send(b"X: y\r\n" if slow else request("OPTIONS", f"sip:{GATEWAY4}", address,
                                                             some.getsockname()[1]))
                if select.select([some], [], [], 0)[0] and not some.recv(65536):
                    raise OSError("closed")
            except OSError:
                some.close()
                made.remove((some, address))
            time.sleep(0.001)

    def judge(self):
        count = self.lab.gateway.ask("status")["counters"].get("connections_outlived", 0)
        return [] if count else ["no connection of a stranger ended after its time"]


class TwoCredentials(Attack):
    """a registered phone registers another one: two Authorization headers, duplicated parameters, its own SAs"""

    def during(self):
        attacker, victim = self.village.residents[0], self.village.residents[1].phone
        if attacker.operation or time.monotonic() - getattr(self, "last", 0) < 0.2:
            return
        self.last, phone = time.monotonic(), attacker.phone
        good = phone.credentials()
        bad = f'Digest username="{victim.impi}",realm="{REALM}",uri="sip:{REALM}",nonce="x",response="x"'
        for credentials in (bad + ",@@\r\nAuthorization: " + good, good + "\r\nAuthorization: " + bad,
                            good.replace("Digest ", f'Digest username="{victim.impi}",'),
                            good + f',username="{victim.impi}"', bad):
            octets = phone.register(credentials=credentials, offer="", is_protected=True, identity=victim.impu)
            phone.send(octets)

    def judge(self):
        victim, wrong = self.village.residents[1].phone, []
        for one in self.village.home.requests:
            text = " ".join(one.all("authorization"))
            if one.method == "REGISTER" and victim.user in one.get("to") and re.search("integrity-protected=\"?yes", text) \
                    and self.village.residents[0].phone.user in text + one.get("contact"):
                wrong.append(one.get("authorization"))
        return [f"the core was told that they are integrity-protected: {wrong[0]}"] if wrong else []


class MadeUpDialog(Attack):
    """a registered phone sends requests with a To tag that it made up, Routes of its own and another one's identity"""

    def during(self):
        attacker, victim = self.village.residents[2], self.village.residents[3].phone
        if attacker.operation or time.monotonic() - getattr(self, "last", 0) < 0.1:
            return
        self.last, phone = time.monotonic(), attacker.phone
        for method in ("MESSAGE", "INFO", "UPDATE", "BYE", "REFER"):
            phone.send(phone.request(method, f"sip:somebody@{REALM}", to_tag="made-up", identity=victim.impu,
                                     routes=[phone.own_route(), "<sip:10.2.0.66;lr>"],
                                     extra=[f"P-Asserted-Identity: <{victim.impu}>", "Subject: made up"]))

    def judge(self):
        victim, wrong = self.village.residents[3].phone, []
        for one in self.village.home.requests:
            if one.get("subject") == "made up" and (victim.user in (one.get("p-asserted-identity") or "")
                                                    or any("10.2.0.66" in route for route in one.all("route"))):
                wrong.append(one.start)
        return [f"{len(wrong)} requests passed as another one's, or by their own Route: {wrong[0]}"] if wrong else []


class PortOfTheCore(Attack):
    """strangers speak at the core's port: MESSAGEs to registered phones with forged identities and tokens seen"""

    def run(self):
        paths = [(one.phone.uri(), one.phone.path) for one in self.village.residents[:8]]
        pick = itertools.cycle(paths)

        def message(host, port):
            uri, path = next(pick)
            return request("MESSAGE", uri, host, port, body=b"forged",
                           extra=[f"Route: <{path}>", "P-Asserted-Identity: <sip:boss@ims.test>"])

        made = sockets(self.lab, SOURCES[:8], CORE_SIDE)
        pour(made, message, 100)

    def during(self):
        for one in self.village.everybody():
            if any(message.body == b"forged" for message in one.phone.waiting):
                self.reached = True

    def judge(self):
        return ["one of them reached a phone"] if getattr(self, "reached", False) else []


ATTACKS = {
    "mixed-flood": MixedFlood, "large-usernames": LargeUsernames, "large-on-streams": LargeOnStreams,
    "deaf-core": DeafCore, "one-prefix": OnePrefix, "name-of-a-phone": NameOfAPhone,
    "address-of-a-phone": AddressOfAPhone, "emergency-flood": EmergencyFlood, "emergency-door": EmergencyDoor,
    "half-open-tls": HalfOpenTls, "slow-streams": SlowStreams, "two-credentials": TwoCredentials,
    "made-up-dialog": MadeUpDialog, "port-of-the-core": PortOfTheCore,
}
