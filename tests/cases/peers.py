"""The two ends of a case: a core that answers what the case says, and phones that write what the case says. Nothing of
the gateway's own peers is in here: their mistakes and these differ."""
import re
import socket
import ssl
import struct
import time

import aka
import netlink
from lab import CORE, CORE_SIDE, GATEWAY4, GATEWAY6, TLS4, inside
from sip import PATIENCE, Message, Peer, ack_of, answer_to, branch, build, is_method, split_stream, token, uri_of

REALM = "ims.test"
CHALLENGE = 'Digest realm="{realm}",nonce="{nonce}",algorithm=AKAv1-MD5,qop="auth",ck="{ck}",ik="{ik}"'


class Core(Peer):
    """Proxy and registrar of the home network on UDP and TCP port 5060."""

    def __init__(self, lab):
        super().__init__()
        self.lab, self.seen = lab, set()
        self.socket = lab.socket(lab.home, "udp", CORE, 5060)
        self.datagram.append(self.socket)
        self.listening.append(lab.socket(lab.home, "tcp", CORE, 5060, listens=True))

    def expect(self, method, patience=None):
        """The next request of that method that is no copy of one already seen."""
        while True:
            message = self.receive(is_method(method), patience)
            if message is None:
                return None
            key = (message.start, message.vias()[0], message.get("cseq"))
            if key not in self.seen:
                self.seen.add(key)
                return message

    def send(self, octets, to=(CORE_SIDE, 5060)):
        self.socket.sendto(octets, to)

    def send_back(self, message, octets):
        if message.source is None:
            message.socket.sendall(octets)
        else:
            self.socket.sendto(octets, message.source)

    def reply(self, message, status, reason="X", extra=(), body=b""):
        self.send_back(message, answer_to(message, status, reason, extra, body, "core"))

    def challenge(self, message, form=CHALLENGE):
        """401 with a fresh vector, written in that form; each line of it is a header. Returns the vector."""
        vector, nonce = aka.make_challenge()
        ck, ik = vector["ck"].hex(), vector["ik"].hex()
        text = form.format(realm=REALM, nonce=nonce, ck=ck, ik=ik, CK=ck.upper(), IK=ik.upper())
        self.reply(message, 401, "Unauthorized", [f"WWW-Authenticate: {one}" for one in re.split(r"(?<!\r)\n", text)])
        return vector

    def accept(self, message, contact=None, extra=(), expires=3600, service_route=f"<sip:orig@{CORE}:5060;lr>"):
        """200 to a REGISTER. `contact`: the Contact of the answer; None: as the request has it; "": none."""
        if contact is None:
            contact = re.sub(r";expires=\d+", "", message.get("contact")) + f";expires={expires}"
        headers = [f"Contact: {contact}"] if contact else []
        headers += [f"Service-Route: {service_route}", *extra]
        if not any(line.startswith("P-Associated-URI") for line in headers):
            headers.append(f"P-Associated-URI: <{uri_of(message.get('to'))}>")
        self.reply(message, 200, "OK", headers)

    def request(self, method, uri, path=None, cseq=1, extra=(), body=b"", call=None, caller=f"<sip:peer@{REALM}>",
                via=None,
                from_tag="c1", to_tag=""):
        headers = [via or f"Via: SIP/2.0/UDP {CORE}:5060;branch={branch()}", "Max-Forwards: 60"]
        headers += [f"Route: <{path}>"] if path else []
        headers += [f"From: {caller};tag={from_tag}", f"To: <{uri.split(';')[0]}>"
                    + (f";tag={to_tag}" if to_tag else ""),
                    f"Call-ID: {call or token()}", f"CSeq: {cseq} {method}", *extra]
        return build(f"{method} {uri} SIP/2.0", headers, body)

    def acknowledge(self, message):
        self.send_back(message, ack_of(message, f"sip:x@{REALM}"))


class Phone(Peer):
    """A phone with ipsec-3gpp. Its numbers follow from `number`; a phone that was switched off and on is another object
    with the same."""

    sas = 4  # that its registration has

    def __init__(self, lab, number, v6=False, tcp=False, has_instance=True, gateway=None, is_emergency=False):
        super().__init__()
        number += lab.first_phone - 20
        self.lab, self.number, self.is_tcp = lab, number, tcp
        self.address = f"fd01::{number}" if v6 else f"10.1.{number // 250}.{number % 250}"
        self.gateway = gateway or (GATEWAY6 if v6 else GATEWAY4)
        self.is_emergency = is_emergency
        self.host, self.gateway_host = (f"[{one}]" if v6 else one for one in (self.address, self.gateway))
        self.transport = "TCP" if tcp else "UDP"
        lab.phones_addresses.add(self.address, 64 if v6 else 16)
        lab.addresses.add(self.address)
        self.user = f"0010100000{number:05d}"
        self.impi = f"{self.user}@{REALM}"
        self.impu = f"sip:{self.impi}"
        self.instance = f'+sip.instance="<urn:gsma:imei:35{number:06d}-000000-0>"' if has_instance else ""
        self.port_uc, self.port_us = 20000 + 10 * number, 20001 + 10 * number
        self.spi_uc, self.spi_us = 0x200000 + 16 * number, 0x200001 + 16 * number
        self.alg, self.ealg = "hmac-sha-1-96", "aes-cbc"
        self.call, self.tag, self.cseq, self.count = token(), token(), 0, 0
        self.clear = self.connection = self.security_server = self.path = None
        self.service_route = []

    # What it writes.

    def offer(self):
        return (f"ipsec-3gpp;alg={self.alg};ealg={self.ealg};prot=esp;mod=trans;spi-c={self.spi_uc};"
                f"spi-s={self.spi_us};port-c={self.port_uc};port-s={self.port_us}")

    def uri(self):
        return f"sip:{self.user}@{self.host}:{self.port_us}" + (";sos" if self.is_emergency else "")

    def seen_at(self):
        """Where it is, in the gateway's words."""
        return f"{self.host}:{self.port_us}"

    def contact(self, parameters=";expires=600000"):
        return f"<{self.uri()}>" + (";" + self.instance if self.instance else "") + parameters

    def sec_agree(self, is_protected):
        lines = ["Require: sec-agree", "Proxy-Require: sec-agree"]
        return lines + ([f"Security-Verify: {self.security_server}"] if is_protected else [])

    def register(self, port=None, credentials=None, offer=None, is_protected=False, contact=None, identity=None):
        """`offer`: Security-Client ("": none); `contact`: its whole value ("": none)."""
        self.cseq += 1
        identity = identity or self.impu
        contact = self.contact() if contact is None else contact
        offer = self.offer() if offer is None else offer
        headers = [f"Via: SIP/2.0/{self.transport} {self.host}:{port or self.port_uc};branch={branch()};rport",
                   "Max-Forwards: 70",
                   f"From: <{identity}>;tag={self.tag}", f"To: <{identity}>", f"Call-ID: {self.call}",
                   f"CSeq: {self.cseq} REGISTER", "Supported: path, gruu", *self.sec_agree(is_protected),
                   "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010019B01",
                   "Authorization: " + (credentials or f'Digest username="{self.impi}",realm="{REALM}",'
                                        f'uri="sip:{REALM}",nonce="",response=""')]
        headers += [f"Contact: {contact}"] if contact else []
        headers += [f"Security-Client: {offer}"] if offer else []
        return build(f"REGISTER sip:{REALM} SIP/2.0", headers)

    def credentials(self):
        """The answer to the challenge, counted on with every use."""
        self.count += 1
        nc, cnonce, uri = f"{self.count:08x}", "0a4f113b", f"sip:{REALM}"
        response = aka.digest(self.impi, REALM, self.vector["res"], "REGISTER", uri, self.nonce, nc, cnonce)
        return (f'Digest username="{self.impi}",realm="{REALM}",uri="{uri}",nonce="{self.nonce}",response="{response}",'
                f'algorithm=AKAv1-MD5,qop=auth,nc={nc},cnonce="{cnonce}"')

    def own_route(self):
        return f"<sip:{self.gateway_host}:{self.port_ps};lr>"

    def request(self, method, uri=f"sip:peer@{REALM}", cseq=1, extra=(), body=b"", call=None, routes=None, to=None,
                to_tag="", from_tag=None, via_branch=None, has_contact=False, via_port=None, identity=None):
        """`routes`: values of Route, one header each; None: own gateway and Service-Route. `identity`: the caller."""
        identity = identity or self.impu
        if routes is None:
            routes = [", ".join([self.own_route(), *self.service_route])]
        via_port, via_branch = via_port or self.port_us, via_branch or branch()
        headers = [f"Via: SIP/2.0/{self.transport} {self.host}:{via_port};branch={via_branch};rport",
                   "Max-Forwards: 70", *[f"Route: {one}" for one in routes],
                   f"From: <{identity}>;tag={from_tag or token()}",
                   f"To: {to or f'<{uri}>'}" + (f";tag={to_tag}" if to_tag else ""), f"Call-ID: {call or token()}",
                   f"CSeq: {cseq} {method}", f"P-Preferred-Identity: <{identity}>"]
        headers += [f"Contact: <{self.uri()}>"] if has_contact else []
        return build(f"{method} {uri} SIP/2.0", headers + self.sec_agree(True) + list(extra), body)

    # What it sends from where.

    def open_clear(self):
        self.clear = self.lab.socket(self.lab.ue, "tcp" if self.is_tcp else "udp", self.address, 0)
        with inside(self.lab.ue):
            self.clear.connect((self.gateway, 5060))
        if self.is_tcp:
            self.watch(self.clear)
        else:
            self.datagram.append(self.clear)

    def send_first(self, contact=None):
        """The unprotected REGISTER."""
        self.open_clear()
        self.clear.sendall(self.register(port=self.clear.getsockname()[1], contact=contact))

    def take_challenge(self, message):
        """Reads a 401 and puts the four SAs into the phone's kernel."""
        form = next(one for one in message.all("www-authenticate") if "AKAV1" in one.upper())
        self.nonce = re.search(r'nonce="?([^",]*)', form).group(1)
        self.vector, self.count = aka.read_challenge(self.nonce), 0
        self.security_server = message.get("security-server")
        said = dict(part.strip().split("=", 1) for part in self.security_server.split(",")[0].split(";")[1:])
        self.port_pc, self.port_ps = int(said["port-c"]), int(said["port-s"])
        self.install(said)

    def install(self, said):
        keys = aka.esp_keys(said["alg"], said.get("ealg", "null"), self.vector["ck"], self.vector["ik"])
        spi_pc, spi_ps, xfrm = int(said["spi-c"]), int(said["spi-s"]), self.lab.phones_xfrm
        for spi, ports in ((spi_ps, (self.port_uc, self.port_ps)), (spi_pc, (self.port_us, self.port_pc))):
            xfrm.add_sa(self.address, self.gateway, spi, spi, keys)
            for protocol in (netlink.UDP, netlink.TCP):
                xfrm.update_policy(self.address, self.gateway, ports, protocol, netlink.OUT, spi)
        for spi, ports in ((self.spi_us, (self.port_pc, self.port_us)), (self.spi_uc, (self.port_ps, self.port_uc))):
            xfrm.add_sa(self.gateway, self.address, spi, spi, keys)
            for protocol in (netlink.UDP, netlink.TCP):
                xfrm.update_policy(self.gateway, self.address, ports, protocol, netlink.IN, spi)

    def open_protected(self):
        self.server = self.lab.socket(self.lab.ue, "udp", self.address, self.port_us)
        self.client = self.lab.socket(self.lab.ue, "udp", self.address, self.port_uc)
        self.datagram += [self.server, self.client]
        self.listening.append(self.lab.socket(self.lab.ue, "tcp", self.address, self.port_us, listens=True))

    def connect(self):
        self.connection = self.lab.socket(self.lab.ue, "tcp", self.address, self.port_uc)
        with inside(self.lab.ue):
            self.connection.connect((self.gateway, self.port_ps))
        self.watch(self.connection)

    def send(self, octets):
        """Over the SAs, port_uc to port_ps."""
        if not self.is_tcp:
            self.client.sendto(octets, (self.gateway, self.port_ps))
            return
        if self.connection not in self.streams:
            self.connect()
        self.connection.sendall(octets)

    def answer(self, message, status, reason="OK", extra=(), body=b""):
        self.answer_raw(message, answer_to(message, status, reason, extra, body, "ue", with_record_route=True))

    def answer_raw(self, message, octets):
        """On the connection of the request, or from port_us to port_pc."""
        if message.source is None:
            message.socket.sendall(octets)
        else:
            self.server.sendto(octets, (self.gateway, self.port_pc))

    def acknowledge(self, message):
        try:
            self.send(ack_of(message, f"sip:x@{REALM}"))
        except OSError:
            pass  # a case may have closed it

    def switch_off(self):
        """Without a word: no SA and no socket is left, and no connection can say that it ends."""
        self.lab.phones_xfrm.delete_sas(self.address)
        for one in [*self.datagram, *self.listening]:
            one.close()
        for one in self.streams:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
        self.datagram, self.listening, self.streams = [], [], {}

    # Whole flows.

    def register_with(self, core, contact=None, accept=None):
        """Both REGISTERs; returns the final answer. `accept(request)` answers the second one instead of a 200."""
        self.send_first(contact)
        first = core.expect("REGISTER")
        assert first, "the first REGISTER did not reach the core"
        core.challenge(first)
        challenged = self.final()
        assert challenged and challenged.status == 401, f"no 401 but {challenged}"
        self.take_challenge(challenged)
        self.open_protected()
        return self.finish_with(core, contact, accept)

    def finish_with(self, core, contact=None, accept=None):
        """The protected REGISTER that answers the challenge."""
        seen, answer = self.refresh_with(core, contact, accept, offer=self.offer())
        assert seen, "the protected REGISTER did not reach the core"
        assert answer, "no final answer to the protected REGISTER"
        self.request_seen, self.path = seen, seen.path()
        self.service_route = answer.all("service-route")
        return answer

    def refresh_with(self, core, contact=None, accept=None, offer="", identity=None):
        """A REGISTER over the established set: what the core saw, and what the phone got."""
        self.send(self.register(credentials=self.credentials(), offer=offer, is_protected=True, contact=contact,
                                identity=identity))
        seen = core.expect("REGISTER")
        if seen:
            (accept or core.accept)(seen)
        return seen, self.final(method="REGISTER")

    def is_reached(self, core, path=None, patience=None):
        """Whether a MESSAGE of the core arrives, and the phone's 200 goes back."""
        core.send(core.request("MESSAGE", self.uri(), path or self.path, body=b"ping",
                               extra=["Content-Type: text/plain"]))
        message = self.receive(is_method("MESSAGE"), patience)
        if message:
            self.answer(message, 200)
        answer = core.final(patience)
        return bool(message and answer and answer.status == 200)

    def reaches(self, core, **what):
        """Whether a MESSAGE of the phone arrives, and the core's 200 goes back."""
        uri = "urn:service:sos" if self.is_emergency else f"sip:peer@{REALM}"
        self.send(self.request("MESSAGE", uri, extra=["Content-Type: text/plain"], body=b"x", **what))
        self.message_seen = message = core.expect("MESSAGE")
        if message:
            core.reply(message, 200, "OK")
        answer = self.final()
        return bool(message and answer and answer.status == 200)


class TlsPhone(Phone):
    """A phone with mechanism tls and digest. The records go through a memory BIO, so that a case decides how
    they are cut."""

    sas = 0

    def __init__(self, lab, number, version="TLSv1_3", name="pcscf.test", ciphers=None, group=None, is_emergency=False):
        super().__init__(lab, number, tcp=True, gateway=TLS4, is_emergency=is_emergency)
        self.stream = None
        self.transport, self.name, self.session = "TLS", name, None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.minimum_version = self.context.maximum_version = getattr(ssl.TLSVersion, version)
        if ciphers:
            self.context.set_ciphers(ciphers)
        if group:
            self.context.set_ecdh_curve(group)
        self.port_ps, self.plain, self.is_closed = 5061, b"", False

    def sec_agree(self, is_protected):
        return []

    def open_tls(self, cut=65536):
        """The handshake but for the client's last flight, in pieces of at most `cut` octets; `send` sends the
        rest."""
        self.stream = self.lab.socket(self.lab.ue, "tcp", self.address, 0)
        with inside(self.lab.ue):
            self.stream.connect((self.gateway, 5061))
        self.from_peer, self.to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.from_peer, self.to_peer, server_hostname=self.name, session=self.session)
        while True:
            try:
                self.tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                octets = self.to_peer.read()
            for start in range(0, len(octets), cut):
                self.stream.sendall(octets[start:start + cut])
            came = self.stream.recv(65536)
            if not came:
                raise ConnectionError("closed in the handshake")
            self.from_peer.write(came)

    def send(self, octets):
        """What OpenSSL still holds of the handshake goes out in front of it, in one segment."""
        self.tls.write(octets)
        self.stream.sendall(self.to_peer.read())

    def answer_raw(self, message, octets):
        self.send(octets)

    def read_all(self, patience):
        self.stream.settimeout(max(patience, 0.01))
        try:
            came = self.stream.recv(65536)
        except TimeoutError:
            return
        except OSError:
            came = b""
        if not came or self.is_closed:
            self.is_closed = True
            time.sleep(min(patience, 0.05))
            return
        self.from_peer.write(came)
        self.decrypt()

    def decrypt(self):
        try:
            while octets := self.tls.read(65536):
                self.plain += octets
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.is_closed = True
        whole, self.plain = split_stream(self.plain)
        for one in whole:
            self.take(Message(one, None, self.stream))

    def register_with(self, core, contact=None, accept=None, is_open=False):
        if not is_open:
            self.open_tls()
        self.send(self.register(offer="", port=self.port_us, contact=contact))
        first = core.expect("REGISTER")
        assert first, "the first REGISTER did not reach the core"
        core.reply(first, 401, "Unauthorized",
                   [f'WWW-Authenticate: Digest realm="{REALM}",nonce="n{token()}",algorithm=MD5,qop="auth"'])
        challenged = self.final()
        assert challenged and challenged.status == 401, f"no 401 but {challenged}"
        self.nonce = re.search(r'nonce="([^"]*)"', challenged.get("www-authenticate")).group(1)
        self.vector, self.count = {"res": b"secret"}, 0
        return self.finish_with(core, contact, accept)

    def refresh_with(self, core, contact=None, accept=None, offer="", identity=None):
        return super().refresh_with(core, contact, accept, "", identity)

    def credentials(self):
        return super().credentials().replace("AKAv1-MD5", "MD5")

    def share(self, other):
        """Its connection is that of the other contact."""
        self.stream, self.tls, self.from_peer, self.to_peer = other.stream, other.tls, other.from_peer, other.to_peer
        self.waiting = other.waiting

    def seen_at(self):
        return "{}:{}".format(*self.stream.getsockname())

    def has_ended(self):
        """True when the gateway has closed its connection."""
        self.read_all(0)
        return self.is_closed

    def close(self):
        self.stream.close()

    def switch_off(self):
        """Without a word: its connection stays as it is, and nobody is there any more."""
