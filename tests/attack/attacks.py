"""Each attack: what it sends, for how long, what of it must be seen at the gateway, and what must not happen. Those that
flood run in a process of their own, so that they take the machine's time from the gateway and not from the phones' script."""
import itertools
import multiprocessing
import os
import random
import re
import select
import socket
import time

from lab import CORE_SIDE, GATEWAY4, TLS4, inside, shell
from peers import REALM
from sip import branch, build, token
from names import lies
from village import KINDS, stranger_calls_for_help, tls_phone_registers

SOURCES = [f"10.1.200.{n}" for n in range(1, 201)]  # of strangers; all of them are local in the phones' namespace
PREFIX = [f"fd02::{n:x}" for n in range(1, 201)]    # the same in one /64 of IPv6
SPOOFED_CALLS, LIFETIME = 1100, 3600  # seconds that the home network gives a registration
STATUSES = 700


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


class Attack:
    """`run` floods from a process of its own; `during` is called between the phones' turns; `judge` adds what is wrong.
    `memory`: MiB that the resident size may grow by. `counters`: each must have grown, `statuses`: one of them must have
    been answered, else the attack did not reach what it attacks, or nothing there resists."""

    seconds, memory, newcomers, counters, statuses = 8.0, 48, True, (), ()
    share = 1.0  # of the rates and numbers below

    def __init__(self, village):
        self.village, self.lab = village, village.lab
        self.answers = multiprocessing.get_context("fork").Array("L", STATUSES, lock=False)

    def run(self):
        time.sleep(3600)

    def during(self):
        pass

    def judge(self):
        return []

    def some(self, number):
        """As many of them as this form of the attack has."""
        return max(1, round(number * self.share))

    def note(self, octets):
        """What the attacker was answered."""
        status = octets[8:11] if octets.startswith(b"SIP/2.0 ") else b""
        if status.isdigit() and int(status) < STATUSES:
            self.answers[int(status)] += 1

    def pour(self, made, make, rate):
        """Datagrams at that rate from all of these sockets in turn, until somebody ends this process."""
        begun, sent, rate = time.monotonic(), 0, rate * self.share
        for one, host, port in itertools.cycle(made):
            ahead = sent / rate - (time.monotonic() - begun)
            if ahead > 0:
                time.sleep(ahead)
            try:
                one.send(make(host, port))
                self.note(one.recv(65536))
            except OSError:
                pass  # nothing came, or an ICMP error
            sent += 1

    def count_from(self):
        """What the gateway has counted so far is not this attack's."""
        self.counted = self.lab.gateway.ask("status")["counters"]

    def missing(self):
        """What of the attack's own effect has not been seen yet."""
        now = self.lab.gateway.ask("status")["counters"]
        wanted = [f"{name} did not grow" for name in self.counters if now[name] <= self.counted[name]]
        if self.statuses and not any(self.answers[one] for one in self.statuses):
            told = {status: count for status, count in enumerate(self.answers) if count}
            wanted.append(f"none of {self.statuses} was answered, but {told}")
        return wanted


class MixedFlood(Attack):
    """1,600 datagrams a second in clear from 200 addresses: malformed, INVITEs, REGISTERs without an offer, unknown users"""

    counters, statuses = ("unprotected_rejected", "reject_421"), (403,)

    def run(self):
        kinds = itertools.cycle((
            lambda host, port: b"REGISTER sip:x SIP/2.0\r\nVia: ???\r\nTo: <<>\r\n\r\n",
            lambda host, port: request("INVITE", f"sip:a@{REALM}", host, port),
            lambda host, port: request("REGISTER", f"sip:{REALM}", host, port),
            lambda host, port: register(host, port, "nobody" + token())))
        self.pour(sockets(self.lab, SOURCES), lambda host, port: next(kinds)(host, port), 1600)


class LargeUsernames(Attack):
    """refused REGISTERs with a username of 60 kB, 100 a second"""

    statuses = (513,)

    def run(self):
        self.pour(sockets(self.lab, SOURCES[:8]), lambda host, port: register(host, port, "a" + token(), 60000), 100)


class LargeOnStreams(Attack):
    """the same over TCP, on 16 connections"""

    statuses = (513,)

    def run(self):
        while True:
            for address in SOURCES[:16]:
                try:
                    with inside(self.lab.ue), socket.socket() as one:
                        one.settimeout(1)
                        one.bind((address, 0))
                        one.connect((GATEWAY4, 5060))
                        one.sendall(register(address, one.getsockname()[1], "a" + token(), 60000))
                        self.note(one.recv(65536))
                except OSError:
                    pass
            time.sleep(0.05)


class DeafCore(Attack):
    """REGISTERs of strangers, 200 a second, to which the home network does not answer"""

    def __init__(self, village):
        super().__init__(village)
        self.reached = village.home.from_strangers

    def run(self):
        self.pour(sockets(self.lab, SOURCES), lambda host, port: register(host, port, "nobody" + token()), 200)

    def during(self):
        self.village.home.is_deaf = True

    def missing(self):
        return [] if self.village.home.from_strangers > self.reached else ["the core was not asked"]

    def judge(self):
        self.village.home.is_deaf = False
        return []


class OnePrefix(Attack):
    """REGISTERs of users that exist, 200 a second, from 200 addresses of one IPv6 /64: each is challenged"""

    counters, statuses = ("core_spared", "challenge_gave_way"), (503,)

    def __init__(self, village):
        super().__init__(village)
        for n in range(2000):
            village.home.users[f"victim{n}@{REALM}"] = "aka"

    def run(self):
        users = itertools.count()
        self.pour(sockets(self.lab, PREFIX, "fd01::1"),
             lambda host, port: register(host, port, f"victim{next(users) % 2000}"), 200)


class NameOfAPhone(Attack):
    """REGISTERs in clear with the identities of four registered phones, 50 a second each, from other addresses"""

    counters, statuses = ("core_spared",), (503,)

    def run(self):
        names = itertools.cycle([one.phone.user for one in self.village.residents[:self.some(4)]])
        self.pour(sockets(self.lab, SOURCES[:self.some(16)]), lambda host, port: register(host, port, next(names)), 200)


class AddressOfAPhone(Attack):
    """64 REGISTERs at once, then 20 a second, of other users with the source address of a phone, which registers meanwhile"""

    newcomers, counters = False, ("challenge_gave_way",)

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
        self.pour(made, lambda host, port: register(host, port, f"other{next(users) % 64}"), 20)

    def during(self):
        if self.victim not in self.village.newcomers and self.age() > 2:
            self.village.newcomers.append(self.victim)
            self.victim.begin("register")

    def age(self):
        return time.monotonic() - self.begun

    def missing(self):
        return super().missing() \
            + ([] if self.victim.is_registered else ["the phone whose address was used does not register"])


class EmergencyFlood(Attack):
    """1,100 emergency INVITEs with 200 source addresses that nobody answers, then a real one"""

    counters = ("emergency_passed", "emergency_evicted")

    def run(self):
        made, sent = sockets(self.lab, SOURCES), itertools.count()

        def call(host, port):
            if next(sent) > self.some(SPOOFED_CALLS):
                time.sleep(3600)
            return request("INVITE", "urn:service:sos", host, port)

        self.pour(made, call, 400)

    def judge(self):
        return [] if stranger_calls_for_help(self.village, "10.1.200.250") else ["a real emergency call is not served"]


class EmergencyDoor(Attack):
    """MESSAGEs to anybody with Call-ID and tags of an emergency call that stands, from elsewhere"""

    statuses = (403, 404, 481)

    def __init__(self, village):
        super().__init__(village)
        self.stands = stranger_calls_for_help(village, "10.1.200.251", "emergency-call")

    def run(self):
        self.pour(sockets(self.lab, SOURCES[:4]), self.message, 50)

    def message(self, host, port):
        return request("MESSAGE", f"sip:victim@{REALM}", host, port, call="emergency-call", to_tag="core",
                       extra=["P-Asserted-Identity: <sip:boss@ims.test>", "Route: <sip:10.2.0.2;lr>"], body=b"in")

    def judge(self):
        passed = [one for one in self.village.home.requests if one.method == "MESSAGE" and one.body == b"in"]
        return ([f"{len(passed)} of them reached the core"] if passed else []) \
            + ([] if self.stands else ["the emergency call was not served"])


class HalfOpenTls(Attack):
    """TLS handshakes that are begun and left, 200 from each of six addresses; others send one octet of it a second"""

    counters = ("tls_gave_way",)

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
            while len(made) > self.some(1200):
                made.pop(0).close()
            time.sleep(0.002)

    def during(self):
        if not hasattr(self, "served") and time.monotonic() - self.begun > 3:
            self.served = sum(tls_phone_registers(self.village) for _ in range(2))

    def missing(self):
        served = getattr(self, "served", 0)
        return super().missing() + ([] if served == 2 else [f"{served} of 2 TLS phones register"])


class SlowStreams(Attack):
    """connections in clear that send a header line now and then, or OPTIONS for ever: 300 from each of four addresses"""

    seconds = 14.0  # longer than [timers] stranger-connection

    def run(self):
        made = []
        for address in itertools.cycle(SOURCES[:4]):
            if len(made) < self.some(1200):
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

    def count_from(self):
        super().count_from()
        self.outlived = self.lab.gateway.ask("status")["connections"]["outlived"]

    def missing(self):
        now = self.lab.gateway.ask("status")["connections"]["outlived"]
        return [] if now > self.outlived else ["no connection of a stranger ended after its time"]


class TwoCredentials(Attack):
    """a registered phone registers another one: two Authorization headers, duplicated parameters, its own SAs"""

    counters = ("reject_400", "reject_403")

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

    counters = ("unknown_dialog",)

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

    counters = ("core_stranger",)

    def run(self):
        paths = [(one.phone.uri(), one.phone.path) for one in self.village.residents[:8]]
        pick = itertools.cycle(paths)

        def message(host, port):
            uri, path = next(pick)
            return request("MESSAGE", uri, host, port, body=b"forged",
                           extra=[f"Route: <{path}>", "P-Asserted-Identity: <sip:boss@ims.test>"])

        made = sockets(self.lab, SOURCES[:8], CORE_SIDE)
        self.pour(made, message, 100)

    def during(self):
        for one in self.village.everybody():
            if any(message.body == b"forged" for message in one.phone.waiting):
                self.reached = True

    def judge(self):
        return ["one of them reached a phone"] if getattr(self, "reached", False) else []


class ClockSteps(Attack):
    """the machine's clock goes forwards and backwards by forty days while phones register, refresh, message and call"""

    step, steps, seconds = 40 * 86400, 0, 20.0  # seconds: longer than any lifetime here
    ends = ("established_expired", "temporary_expired", "sa_lost", "displaced", "deregistered", "core_unreachable")
    new = ("register", "refresh")  # the kernel looks at the wall clock one second after an SA was made or prolonged
    quiet_since = None

    def during(self):
        if os.environ.get("GMGATE_KERNEL") not in ("uml", "qemu"):
            raise RuntimeError("it would set this machine's own clock: run it in a guest (--on uml)")
        now = time.monotonic()
        if now - getattr(self, "last", now - 2) < 2:
            return
        self.newcomers, self.village.kinds = False, itertools.cycle(("message", "reach", "call"))
        if any(one.operation and one.operation.kind in self.new for one in self.village.everybody()):
            self.quiet_since = None
        elif self.quiet_since is None:
            self.quiet_since = now
        elif now - self.quiet_since > 2.5:
            self.move(-1 if self.steps % 2 else 1)
            self.go_on()

    def go_on(self):
        self.steps, self.last, self.quiet_since = self.steps + 1, time.monotonic(), None
        self.newcomers, self.village.kinds = True, itertools.cycle(KINDS)

    def move(self, direction):
        time.clock_settime(time.CLOCK_REALTIME, time.time() + direction * self.step)

    def missing(self):
        return [] if self.steps >= 2 else ["the clock was not moved often enough"]

    def judge(self):
        if self.steps % 2:
            self.move(-1)
        self.go_on()
        now = self.lab.gateway.ask("status")["counters"]
        faults = [f"{name} grew: something ended" for name in self.ends if now[name] > self.counted[name]]
        for one in self.lab.gateway.ask("registrations")["registrations"]:
            if not LIFETIME - 600 < one["expires_in"] <= LIFETIME:
                faults.append(f"{one['impi']} is registered for {one['expires_in']} s")
        return faults


class LyingNames(Attack):
    """the name server lies: other ids and names, the gateway itself, the loopback, too much, CNAMEs without end"""

    counters, last, calls, unserved, seconds = ("emergency_passed",), 0.0, 0, 0, 20.0

    def __init__(self, village):
        super().__init__(village)
        self.told = village.names.told.value

    def during(self):
        self.village.names.lies.value = 1
        if time.monotonic() - self.last < 1.5:
            return
        self.last = time.monotonic()
        self.calls += 1
        self.unserved += not stranger_calls_for_help(self.village, f"10.1.200.{200 + self.calls % 40}")

    def missing(self):
        told = self.village.names.told.value - self.told
        return super().missing() + ([] if told > len(lies()) else [f"it lied {told} times only"])

    def judge(self):
        self.village.names.lies.value = 0
        faults = [] if self.lab.gateway.lines("dns-answer-refused") else ["no lie was refused"]
        if self.unserved:
            faults.append(f"{self.unserved} of {self.calls} emergency calls were not served meanwhile")
        return faults


ATTACKS = {
    "mixed-flood": MixedFlood, "large-usernames": LargeUsernames, "large-on-streams": LargeOnStreams,
    "deaf-core": DeafCore, "one-prefix": OnePrefix, "name-of-a-phone": NameOfAPhone,
    "address-of-a-phone": AddressOfAPhone, "emergency-flood": EmergencyFlood, "emergency-door": EmergencyDoor,
    "half-open-tls": HalfOpenTls, "slow-streams": SlowStreams, "two-credentials": TwoCredentials,
    "made-up-dialog": MadeUpDialog, "port-of-the-core": PortOfTheCore, "clock-steps": ClockSteps,
    "lying-names": LyingNames,
}
