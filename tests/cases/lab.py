"""A lab of one case: namespaces for phones, gateway and core, joined by veth pairs, and gmgated in the middle.
Several labs live in one guest at a time; their namespaces have names of their own."""
import contextlib
import ctypes
import json
import os
import re
import socket
import subprocess
import tempfile
import time

from netlink import Addresses, Xfrm
from sip import PATIENCE

GATEWAY4, GATEWAY6, TLS4, CORE_SIDE, CORE = "10.1.0.1", "fd01::1", "10.1.0.5", "10.2.0.1", "10.2.0.2"
PHONES = 100  # numbers of phones that a case has, from 20 on
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
CONFIG = """
control-socket = "{folder}/control.sock"
[core]
listen = "10.2.0.1:5060"
next-hop = "10.2.0.2:5060"
visited-network-id = "visited.example"
{core}
[[ims-aka-profile]]
name = "volte"
protected-server-port = [6100, 6101]
start-protected-client-port = 6200
end-protected-client-port = 6203
[[tls-profile]]
name = "t"
end-entity-cert = ["{folder}/ec.pem", "{folder}/rsa.pem"]
private-key = ["{folder}/ec.key", "{folder}/rsa.key"]
[[sip-interface]]
realm-id = "access"
sec-agree-feature = "enabled"
sec-agree-pref = "ipsec3gpp"
[[sip-interface.sip-ports]]
address = "10.1.0.1"
ims-aka-profile = "volte"
[[sip-interface.sip-ports]]
address = "fd01::1"
ims-aka-profile = "volte"
[[sip-interface]]
realm-id = "rcs"
sec-agree-feature = "enabled"
sec-agree-pref = "ipsec3gpp-tls"
[[sip-interface.sip-ports]]
address = "10.1.0.5"
ims-aka-profile = "volte"
[[sip-interface.sip-ports]]
address = "10.1.0.5"
port = 5061
transport-protocol = "TLS"
tls-profile = "t"
{sections}
[store]
file = "{folder}/registrations.db"
[restart]
take-over-socket = "{folder}/take-over.sock"
"""
LIMITS = """[limits]
transactions = 800
loop-lag = 60000
authentications-per-source = 0
authentications-per-impi = 0"""


def shell(command, text=None):
    done = subprocess.run(command, shell=isinstance(command, str), input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr or done.stdout}")
    return done.stdout


@contextlib.contextmanager
def inside(namespace):
    """Sockets that are made in this block belong to that namespace, wherever they are used."""
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    theirs = os.open("/run/netns/" + namespace, os.O_RDONLY)
    if LIBC.setns(theirs, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    try:
        yield
    finally:
        LIBC.setns(ours, CLONE_NEWNET)
        os.close(ours)
        os.close(theirs)


def make_certificates(folder):
    """One certificate of each kind of key, for the TLS ports of every lab; made once, before the labs."""
    for name, kind in (("ec", "ec -pkeyopt ec_paramgen_curve:P-256"), ("rsa", "rsa:2048")):
        shell(f"openssl req -x509 -newkey {kind} -nodes -days 30 -subj /CN=pcscf.test "
              "-addext subjectAltName=DNS:pcscf.test "
              f"-keyout {folder}/{name}.key -out {folder}/{name}.pem 2>/dev/null")


class Lab:
    """The namespaces; `gateway` and `core` are set by whoever starts them."""

    def __init__(self, name):
        self.ue, self.gw, self.home = (f"{name}-{role}" for role in ("ue", "gw", "core"))
        self.faults, self.addresses, self.first_phone, self.log_before = [], set(), 20 - PHONES, 0
        os.makedirs("/run/netns", exist_ok=True)
        for namespace in (self.ue, self.gw, self.home):
            shell(f"ip netns add {namespace}")
            shell(f"ip netns exec {namespace} sh -c "
                  "'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up'")
        shell(f"ip link add u0 netns {self.ue} type veth peer name g0 netns {self.gw}")
        shell(f"ip link add c0 netns {self.home} type veth peer name g8 netns {self.gw}")
        self.set_up(self.ue, "link set u0 up\n")
        self.set_up(self.gw, "address add 10.1.0.1/16 dev g0\naddress add 10.1.0.5/16 dev g0\n"
                             "address add fd01::1/64 dev g0 nodad\nlink set g0 up\n"
                             "address add 10.2.0.1/24 dev g8\nlink set g8 up\n")
        self.set_up(self.home, "address add 10.2.0.2/24 dev c0\nlink set c0 up\n")
        with inside(self.ue):
            self.phones_addresses, self.phones_xfrm = Addresses("u0"), Xfrm()
        with inside(self.gw):
            self.xfrm = Xfrm()

    @staticmethod
    def set_up(namespace, lines):
        shell(f"ip -n {namespace} -batch -", lines)

    def socket(self, namespace, kind, address, port, listens=False):
        with inside(namespace):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == "udp":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            made.bind((address, port))
            if listens:
                made.listen(16)
            made.settimeout(PATIENCE)
            return made

    def begin(self):
        """A new case in the same lab: phones of its own, and nothing is counted that an earlier one left."""
        self.faults, self.addresses, self.first_phone = [], set(), self.first_phone + PHONES
        self.core.waiting.clear()
        self.log_before = len(self.gateway.text())

    def sas(self, *addresses):
        """SAs in the gateway's kernel that have an end at one of these addresses; none: at any phone of this case."""
        wanted = addresses or self.addresses
        return sum(source in wanted or target in wanted for source, target, _ in self.xfrm.sas())

    def check(self, is_right, what, seen=""):
        """Notes a fault and goes on: one run tells all that is wrong with a case."""
        if not is_right:
            self.faults.append(f"{what}{': ' if seen != '' else ''}{seen}")
        return bool(is_right)

    def becomes(self, condition, patience=PATIENCE):
        """True as soon as the condition holds."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def stays(self, condition, seconds=5.5):
        """True when the condition holds all that time: longer than the gateway waits before it deletes what
        has ended."""
        return not self.becomes(lambda: not condition(), seconds)


class Gateway:
    """gmgated of a build folder, with two interfaces: SAs, and SAs or TLS."""

    # What its file has beside CONFIG; `log_level` stands first in it.
    log_level = "debug"
    core = 'peers = ["10.2.0.99"]\nping-interval = 0'
    sections = LIMITS

    def __init__(self, lab, build, certificates):
        self.lab, self.build = lab, build
        self.folder = tempfile.mkdtemp(prefix="gmgate-case-")
        for name in os.listdir(certificates):
            os.symlink(os.path.join(certificates, name), os.path.join(self.folder, name))
        with open(self.folder + "/gmgate.toml", "w", encoding="utf8") as file:
            file.write(f'log-level = "{self.log_level}"\n'
                       + CONFIG.format(folder=self.folder, core=self.core, sections=self.sections))
        self.log = self.folder + "/log"
        self.start()

    def start(self):
        since = len(self.text())
        with open(self.log, "a", encoding="utf8") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", self.lab.gw, f"{self.build}/daemon/gmgated",
                                             "--config", self.folder + "/gmgate.toml"], stdout=log, stderr=log)
        if not self.lab.becomes(lambda: "gateway-ready" in self.text()[since:], 180):
            raise RuntimeError("gmgated does not start: " + self.text()[-2000:])

    def text(self):
        if not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf8", errors="replace") as file:
            return file.read()

    def lines(self, pattern):
        return re.findall(rf".*{pattern}.*", self.text()[self.lab.log_before:])

    def ask(self, command):
        """What `gmctl --json COMMAND` prints."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(PATIENCE)
            control.connect(self.folder + "/control.sock")
            control.sendall(json.dumps({"command": command, "arguments": {}}).encode() + b"\n")
            with control.makefile() as answers:
                return json.loads(answers.readline())["result"]

    def registrations(self):
        """Those of the phones of this case."""
        first = self.lab.first_phone
        return [one for one in self.ask("registrations")["registrations"]
                if first <= int(one["impi"].split("@")[0][-5:]) < first + PHONES]

    def is_alive(self):
        return self.process.poll() is None

    def end(self, how="terminate"):
        if self.is_alive():
            getattr(self.process, how)()
        self.process.wait(30)
