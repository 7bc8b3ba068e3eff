"""TCP and TLS as clients were seen to use them. The reports are named at each case."""
import socket
import ssl
import time

from lab import shell
from peers import Phone, TlsPhone
from sip import is_method

TEXT = ["Content-Type: text/plain"]


def cut_stream(lab):
    """A message over TCP in two pieces, cut around every CRLF, and then octet by octet: emiago/sipgo#357."""
    phone = Phone(lab, 20, tcp=True)
    phone.register_with(lab.core)

    def arrives(pieces_of, pause):
        octets = phone.request("MESSAGE", body=b"a\r\n\r\nb\r\n", extra=TEXT)
        for piece in pieces_of(octets):
            phone.connection.sendall(piece)
            time.sleep(pause)  # so that the pieces are read apart: nothing tells when the other side has read
        message = lab.core.expect("MESSAGE")
        if message:
            lab.core.reply(message, 200, "OK")
        return bool(message and message.body == b"a\r\n\r\nb\r\n" and phone.final())

    size = phone.request("MESSAGE", body=b"a\r\n\r\nb\r\n", extra=TEXT)
    for at in (i + step for i in range(len(size)) if size[i:i + 2] == b"\r\n" for step in (0, 1, 2)):
        lab.check(arrives(lambda octets, at=at: (octets[:at], octets[at:]), 0.004), f"whole when cut at {at}")
    lab.check(arrives(lambda octets: (octets[i:i + 1] for i in range(len(octets))), 0.0005), "whole octet by octet")


def half_closed(lab):
    """The phone shuts its sending side and waits for the answer: s2n-tls#598 tells it for TLS."""
    for number, v6 in ((20, False), (22, True)):
        phone = Phone(lab, number, v6=v6, tcp=True)
        phone.send_first()
        phone.clear.shutdown(socket.SHUT_WR)
        seen = lab.core.expect("REGISTER")
        lab.core.challenge(seen)
        answer = phone.final()
        lab.check(answer and answer.status == 401 and answer.socket is phone.clear,
                  f"401 on the half-closed connection, {phone.address}", answer)
        other = Phone(lab, number + 1, v6=v6, tcp=True)
        other.register_with(lab.core)
        other.send(other.request("MESSAGE", body=b"x", extra=TEXT))
        message = lab.core.expect("MESSAGE")
        other.connection.shutdown(socket.SHUT_WR)
        lab.core.reply(message, 200, "OK")
        lab.check(other.final(), f"the answer comes over the SAs, {other.address}")
        lab.check(other.is_reached(lab.core), f"service after it, {other.address}")


def content_length(lab):
    """Content-Length missing, compact, with blanks, twice: pjproject#3960; RFC 3261 §18.3."""
    for number, (name, write, passes) in enumerate((
            ("missing", lambda b: b.replace(b"Content-Length: 0\r\n", b""), False),
            ("compact", lambda b: b.replace(b"Content-Length: 0", b"l:0"), True),
            ("with blanks", lambda b: b.replace(b"Content-Length: 0", b"Content-Length \t:  0  "), True),
            ("twice", lambda b: b.replace(b"Content-Length: 0\r\n", b"Content-Length: 0\r\n" * 2), False),
            ("00", lambda b: b.replace(b"Content-Length: 0", b"Content-Length: 00"), True)), 20):
        phone = Phone(lab, number, tcp=True)
        phone.open_clear()
        phone.clear.sendall(write(phone.register(port=phone.clear.getsockname()[1])))
        if passes:
            lab.check(lab.core.expect("REGISTER"), f"passes: {name}")
            continue
        answer = phone.final()
        lab.check(answer and answer.status == 400, f"refused: {name}", answer)
        passed = lab.core.receive(lambda m, call=phone.call: m.get("call-id") == call,
                                  0.2)  # others' are sent again and again
        lab.check(passed is None, f"nothing at the core: {name}", passed)


def handshakes(lab):
    """Kinds of TLS client: haproxy#857, s2n-tls#4229, nghttp2#2892."""
    for number, (name, said, cipher) in enumerate((
            ("no SNI", {"name": None}, "TLS"), ("foreign SNI", {"name": "other.example"}, "TLS"),
            ("RSA", {"version": "TLSv1_2", "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}, "ECDHE-RSA"),
            ("AES-256", {"version": "TLSv1_2", "ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}, "ECDHE-ECDSA"),
            ("ChaCha", {"version": "TLSv1_2", "ciphers": "ECDHE-ECDSA-CHACHA20-POLY1305"}, "ECDHE-ECDSA"),
            ("P-384", {"group": "secp384r1"}, "TLS")), 20):
        phone = TlsPhone(lab, number, **said)
        answer = phone.register_with(lab.core)
        lab.check(answer.status == 200 and phone.tls.cipher()[0].startswith(cipher), f"registered: {name}",
                  phone.tls.cipher())
        lab.check(phone.is_reached(lab.core), f"service: {name}")
    for number, (name, said) in enumerate((("CBC", {"version": "TLSv1_2", "ciphers": "ECDHE-ECDSA-AES128-SHA256"}),
                                           ("P-521", {"group": "secp521r1"})), 30):
        try:
            TlsPhone(lab, number, **said).open_tls()
            lab.check(False, f"a handshake is refused: {name}")
        except ssl.SSLError:
            pass


def handshake_pieces(lab):
    """A handshake octet by octet, data in the segment of Finished, and a session taken up again."""
    slow = TlsPhone(lab, 20)
    slow.open_tls(cut=1)
    lab.check(slow.register_with(lab.core, is_open=True).status == 200, "registered after a handshake octet by octet")
    phone = TlsPhone(lab, 21)
    lab.check(phone.register_with(lab.core).status == 200, "registered with the REGISTER behind Finished")
    phone.session = phone.tls.session
    phone.close()
    again = TlsPhone(lab, 21)
    again.context, again.session = phone.context, phone.session
    again.open_tls()
    lab.check(again.tls.session_reused, "the session is taken up again")
    lab.check(again.register_with(lab.core, is_open=True).status == 200 and again.is_reached(lab.core),
              "service after it")


def packet_sizes(lab):
    """Messages of 1 to 9 kB both ways where packets are small: docker_open5gs#58, drachtio-server#296."""
    number = 20
    for mtu in (1500, 1280):
        shell(f"ip -n {lab.gw} link set g0 mtu {mtu}")
        shell(f"ip -n {lab.ue} link set u0 mtu {mtu}")
        for v6, is_tcp in ((False, False), (False, True), (True, False), (True, True)):
            phone = Phone(lab, number, v6=v6, tcp=is_tcp)
            number += 1
            phone.register_with(lab.core)
            for size in (1100, 2000, 9000):
                what = f"{size} octets, MTU {mtu}, {phone.host} {phone.transport}"
                phone.send(phone.request("MESSAGE", body=b"x" * size, extra=TEXT))
                message = lab.core.expect("MESSAGE")
                if lab.check(message and len(message.body) == size, f"to the core: {what}"):
                    lab.core.reply(message, 200, "OK")
                lab.check(phone.final(), f"200 to the phone: {what}")
                lab.core.send(lab.core.request("MESSAGE", phone.uri(), phone.path, body=b"y" * size, extra=TEXT))
                message = phone.receive(is_method("MESSAGE"))
                if lab.check(message and len(message.body) == size, f"to the phone: {what}"):
                    phone.answer(message, 200, body=b"z" * size, extra=TEXT)
                answer = lab.core.final()
                lab.check(answer and len(answer.body) == size, f"200 to the core: {what}")


CASES = {"b20-cut-stream": cut_stream, "b23-half-closed": half_closed, "b25-content-length": content_length,
         "b54-handshakes": handshakes, "b54-handshake-pieces": handshake_pieces, "b63-packet-sizes": packet_sizes}
