"""Who stands at the wrong door. Every message belongs to the door that its dialog and its transaction came through: a
stranger in clear, and a phone with SAs of its own, know every tag, branch and Route of somebody's call and get nothing
with it."""
import heapq
import itertools
import time

from cases_call import PEER_AT_CORE, bye_from_phone, in_call_from_core, make_call, of_call, record_routes, route_back
from lab import CORE, CORE_SIDE
from peers import REALM, Phone, TlsPhone
from sip import PATIENCE, answer_to, branch, is_final, is_method, read_all_of, token

STRANGER_AT_CORE = "10.2.0.99"
MARK = "Subject: through the wrong door"
IN_DIALOG = ("ACK", "INFO", "UPDATE", "INVITE", "BYE")


class Stranger(Phone):
    """Whoever sends in clear to the unprotected port, over UDP or TCP, or at the core's port, from no address of the
    core's."""

    def __init__(self, lab, number, kind, v6=False, at_core=False):
        super().__init__(lab, number, v6=v6, tcp=kind == "tcp")
        self.port_ps = 5060
        if not at_core:
            self.open_clear()
            return
        self.clear = lab.socket(lab.home, kind, STRANGER_AT_CORE, 0)
        self.clear.connect((CORE_SIDE, 5060))
        self.watch(self.clear) if kind == "tcp" else self.datagram.append(self.clear)

    def send(self, octets):
        self.clear.sendall(octets)

    def acknowledge(self, message):
        pass  # what it did not ask for


def doors_of_phones(lab, number, v6, tcp):
    """Three ways to the gateway that are not the caller's: in clear, and over the SAs of another registered phone."""
    other = Phone(lab, number, v6=v6, tcp=tcp)
    other.register_with(lab.core)
    return {"clear UDP": Stranger(lab, number + 1, "udp", v6), "clear TCP": Stranger(lab, number + 2, "tcp", v6),
            "another phone's SAs": other}


def is_over(lab, door, what):
    """Whatever came through that door before has been dealt with: the gateway answers a later request to itself."""
    call = token()
    port = door.clear.getsockname()[1] if isinstance(door, Stranger) else door.port_us
    door.send(door.request("OPTIONS", f"sip:{door.gateway_host}:{door.port_ps}", routes=[], call=call, via_port=port))
    lab.check(door.receive(lambda m: m.get("call-id") == call), f"the gateway answers {what}")


def outcome(lab, door, method, cseq):
    """What the core got of what stands at the wrong door, each with its identity and Route; and the final answer."""
    seen, deadline = [], time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lab.core.read_all(0)
        for message in [one for one in lab.core.waiting if MARK in one.raw.decode()]:
            seen.append([message.method, message.get("p-asserted-identity"), *message.all("route")])
            lab.core.reply(message, 481)
        lab.core.waiting.clear()
        answer = door.receive(lambda m: is_final(m) and m.get("cseq") == f"{cseq} {method}", 0.02)
        if answer:
            return seen, answer.status
    return seen, None


def in_dialog(lab, phone, doors, what):
    """Requests of both ends of a call. In clear they get 403; another phone's are its own, outside any dialog: nothing
    of them reaches the phone, and the core sees by whom they are. The call goes on."""
    call, core = token(), lab.core
    invite, answer = make_call(lab, phone, call)
    route_set = [f"Route: {', '.join(invite.route_set())}"]
    as_phone = {"from_tag": "f", "to_tag": "core", "routes": [route_back(answer)], "has_contact": True, "extra": [MARK]}
    as_peer = {"from_tag": "core", "to_tag": "f", "extra": [MARK, *route_set]}
    via = f"Via: SIP/2.0/UDP {CORE}:5060;rport;branch="
    for (name, door), method in itertools.product(doors.items(), IN_DIALOG):
        own = [] if isinstance(door, Stranger) else [[method, f"<{door.impu}>", *door.service_route]]
        of_phone = phone.request(method, PEER_AT_CORE, cseq=7, call=call, **as_phone)
        of_peer = core.request(method, phone.uri(), cseq=9, call=call, via=via + branch(), **as_peer)
        for end, cseq, octets in (("phone", 7, of_phone), ("peer", 9, of_peer)):
            where = f"{method} as of the {end} through {name}, {what}"
            if own:  # that phone writes the Security-Verify that it has agreed on
                octets = octets.replace(phone.security_server.encode(), door.security_server.encode())
            door.send(octets)
            if method == "ACK":
                is_over(lab, door, f"after {where}")
                continue
            seen, status = outcome(lab, door, method, cseq)
            lab.check(seen in ([], own), f"nothing of that call at the core: {where}", seen)
            lab.check(status in ((481,) if seen else (403, 494)), f"the answer to {where}", status)
        lab.check(not [one for one in phone.waiting if one.method], f"nothing at the phone: {where}", phone.waiting)
    in_call_from_core(lab, phone, "UPDATE", call, invite)
    bye_from_phone(lab, phone, call, answer)


def cancels_and_acks(lab, phone, doors, what):
    """A CANCEL of a call that rings, and the ACK of its refusal, by the phone's own branch: the first changes nothing,
    and the second does not stop the refusal from being sent again."""
    call, core, refused = token(), lab.core, phone.acknowledge
    same = {"call": call, "via_branch": branch(), "from_tag": "f"}
    phone.send(phone.request("INVITE", has_contact=True, **same))
    invite = core.expect("INVITE")
    core.reply(invite, 180, "Ringing")
    lab.check(phone.receive(lambda m: m.status == 180), f"180 at the phone, {what}")
    for name, door in doors.items():
        door.send(phone.request("CANCEL", **same))
        is_over(lab, door, f"after CANCEL through {name}, {what}")
    lab.check(not [m for m in core.waiting if m.method == "CANCEL"], f"no CANCEL at the core, {what}", core.waiting)
    phone.acknowledge = lambda message: None
    core.reply(invite, 486, "Busy Here")
    busy = phone.receive(lambda m: m.status == 486)
    lab.check(busy, f"486 at the phone, {what}")
    for name, door in doors.items():
        door.send(phone.request("ACK", **same))
        is_over(lab, door, f"after ACK through {name}, {what}")
    for copy in () if phone.is_tcp else ("a", "another"):  # over TCP nothing is sent again
        lab.check(phone.receive(lambda m: m.status == 486), f"{copy} 486 again after ACKs through all doors, {what}")
    phone.acknowledge = refused
    phone.acknowledge(busy)


def at_the_core(lab, phone, what):
    """The same at the core's port, where a request may come from anywhere, but not another's CANCEL and ACK."""
    core, call, acknowledge = lab.core, token(), lab.core.acknowledge
    via = f"Via: SIP/2.0/UDP {CORE}:5060;branch={branch()};rport"
    core.send(core.request("INVITE", phone.uri(), phone.path, call=call, via=via))
    invite = phone.receive(is_method("INVITE"))
    phone.answer(invite, 180, "Ringing")
    doors = [Stranger(lab, 90, kind, at_core=True) for kind in ("udp", "tcp")]
    for door in doors:
        door.send(core.request("CANCEL", phone.uri(), phone.path, call=call, via=via))
        answer = door.receive(of_call(call, "CANCEL"))
        lab.check(answer and answer.status == 481, f"481 to a stranger's CANCEL at the core's port, {what}", answer)
    lab.check(not [m for m in phone.waiting if m.method], f"no CANCEL at the phone, {what}", phone.waiting)
    core.acknowledge = lambda message: None
    phone.answer(invite, 486, "Busy Here")
    busy = core.receive(lambda m: m.status == 486)
    for door in doors:
        door.send(core.request("ACK", phone.uri(), phone.path, call=call, via=via, to_tag="ue"))
    for copy in ("a", "another"):
        again = core.receive(lambda m: m.status == 486)
        lab.check(again, f"{copy} 486 again after strangers' ACKs at the core's port, {what}")
    core.acknowledge = acknowledge
    core.acknowledge(busy)


def late_answers(lab, phone, doors, what):
    """A 2xx of somebody else to a call that rings at the phone. He knows all of it, and writes another branch, so that
    it is an answer to nothing that waits: with his own Record-Route, and with the phone's. The caller hears of none."""
    core, call = lab.core, token()
    via = f"Via: SIP/2.0/UDP {CORE}:5060;branch={branch()};rport"
    core.send(core.request("INVITE", phone.uri(), phone.path, call=call, via=via))
    invite = phone.receive(is_method("INVITE"))
    phone.answer(invite, 180, "Ringing")
    ours = invite.vias()[0].split("branch=")[1].split(";")[0]
    for name, door in doors.items():
        own = [f"Record-Route: <{door.path}>"] if door.path else []
        for route, other in itertools.product((own, []), (branch(), ours[:8] + token(3) + ours[14:])):
            extra = [f"Contact: <{door.uri()}>", *route]
            answer = answer_to(invite, 200, "OK", extra, b"", "wrong", with_record_route=not route)
            door.send(answer.replace(ours.encode(), other.encode()))
            is_over(lab, door, f"after a 200 with another branch through {name}, {what}")
    core.read_all(0)
    astray = [m for m in core.waiting if m.status >= 200 and m.get("call-id") == call]
    lab.check(not astray, f"no answer of another door at the caller, {what}", astray)
    phone.answer(invite, 486, "Busy Here")
    lab.check(core.receive(lambda m: m.status == 486 and m.get("call-id") == call), f"the phone's own answer, {what}")
    lab.check(phone.receive(is_method("ACK")), f"its ACK, {what}")
    phone.waiting.clear()


def wrong_doors(lab):
    """BYE, ACK, CANCEL and their like by somebody who knows all of a call: in clear over UDP and TCP, over another
    phone's SAs, at the core's port; for calls over UDP and TCP, IPv4 and IPv6, of either end."""
    lab.set_up(lab.home, f"address replace {STRANGER_AT_CORE}/24 dev c0\n")
    for number, (v6, tcp) in enumerate(itertools.product((False, True), repeat=2)):
        phone = Phone(lab, 20 + 10 * number, v6=v6, tcp=tcp)
        phone.register_with(lab.core)
        doors, what = doors_of_phones(lab, 21 + 10 * number, v6, tcp), f"{'IPv6' if v6 else 'IPv4'} {phone.transport}"
        in_dialog(lab, phone, doors, what)
        cancels_and_acks(lab, phone, doors, what)
        late_answers(lab, phone, doors, what)
        at_the_core(lab, phone, what)


def register_in_a_call(lab):
    """A call for help over TLS whose caller registers over the very connection while it rings, and another one while it
    stands: the CANCEL and the BYE are still those of a call by nobody, and go where the calls are."""
    core, phone = lab.core, TlsPhone(lab, 20)
    phone.open_tls()
    for ending in ("CANCEL", "BYE"):
        call, same = token(), {"via_branch": branch(), "from_tag": "f"}
        phone.send(phone.request("INVITE", "urn:service:sos", call=call, routes=[], has_contact=True, **same))
        invite = core.expect("INVITE")
        ring = 180 if ending == "CANCEL" else 200
        core.reply(invite, ring, "X", [f"Contact: <{PEER_AT_CORE}>", *record_routes(invite)])
        answer = phone.receive(lambda m: m.status == ring and m.get("call-id") == call)
        lab.check(answer, f"{ring} at the caller")
        phone.register_with(core, is_open=True)
        if ending == "CANCEL":
            phone.send(phone.request("CANCEL", "urn:service:sos", call=call, routes=[], **same))
            seen = core.expect("CANCEL")
            lab.check(seen, "the CANCEL reaches the E-CSCF")
            core.reply(seen, 200, "OK")
            core.reply(invite, 487, "Request Terminated")
            lab.check(phone.receive(lambda m: m.status == 487 and m.get("call-id") == call), "487 at the caller")
            phone.stream.close()
            phone = TlsPhone(lab, 21)
            phone.open_tls()
            continue
        in_call = {"call": call, "from_tag": "f", "to_tag": "core", "routes": [route_back(answer)]}
        for cseq, method in ((1, "ACK"), (2, "BYE")):
            phone.send(phone.request(method, PEER_AT_CORE, cseq=cseq, **in_call))
            seen = core.receive(lambda m, method=method: m.method == method and m.get("call-id") == call)
            lab.check(seen and not seen.get("p-asserted-identity"), f"the {method} reaches the E-CSCF, by nobody", seen)
        core.reply(seen, 200, "OK")
        lab.check(phone.receive(lambda m: m.status == 200 and of_call(call, "BYE")(m)), "200 to the BYE")


SLOW, SLOW_FOR_STRANGERS = 20.0, 30.0  # seconds that the core needs for an answer
PHONES, STRANGERS, RATE = 50, 16, 100  # requests of strangers, a second


class SlowCore:
    """Answers each request once, that long after it came; an INVITE has its 100 at once."""

    def __init__(self, lab):
        self.core, self.seen, self.due, self.is_slow = lab.core, set(), [], True

    def hurry(self):
        """From now on it answers at once, and at last what waits."""
        self.is_slow, self.due = False, [(0, number, message) for _, number, message in self.due]

    def turn(self):
        for message in self.core.waiting:
            key = (message.start, message.vias()[0])
            if message.method and message.method != "ACK" and key not in self.seen:
                self.seen.add(key)
                wait = SLOW_FOR_STRANGERS if message.get("from").startswith("<sip:nobody") else SLOW
                heapq.heappush(self.due, (time.monotonic() + wait * self.is_slow, len(self.seen), message))
                if message.method == "INVITE" and wait == SLOW:
                    self.core.reply(message, 100, "Trying")
        self.core.waiting.clear()
        while self.due and self.due[0][0] < time.monotonic():
            self.answer(heapq.heappop(self.due)[2])

    def answer(self, message):
        if message.get("from").startswith("<sip:nobody"):
            self.core.reply(message, 403, "Forbidden")
        elif message.method == "REGISTER":
            self.core.accept(message)
        elif message.method == "INVITE":
            routes = [f"Record-Route: {one}" for one in message.all("record-route")]
            self.core.reply(message, 200, "OK", [f"Contact: <{PEER_AT_CORE}>", *routes])
        else:
            self.core.reply(message, 200, "OK")


class Busy:
    """A phone that refreshes, calls, and hangs up as soon as it is answered."""

    def __init__(self, phone):
        self.phone, self.call, self.answers = phone, token(), []
        phone.send(phone.register(credentials=phone.credentials(), offer="", is_protected=True))
        phone.send(phone.request("INVITE", call=self.call, from_tag="f", has_contact=True))

    def turn(self):
        for message in self.phone.waiting:
            if message.status >= 200:
                self.answers.append(f"{message.status} {message.get('cseq').split()[1]}")
                if self.answers[-1] == "200 INVITE":
                    self.hang_up([route_back(message)])
        self.phone.waiting.clear()

    def hang_up(self, routes):
        for cseq, method in ((1, "ACK"), (2, "BYE")):
            self.phone.send(self.phone.request(method, PEER_AT_CORE, cseq=cseq, call=self.call, from_tag="f",
                                               to_tag="core", routes=routes))

    def is_done(self):
        return len(self.answers) >= 3 or any(not one.startswith("200") for one in self.answers)


class Flood:
    """REGISTERs and calls for help of users whom nobody knows, from several addresses in turn."""

    def __init__(self, strangers):
        self.strangers, self.sent, self.refused, self.begun = strangers, 0, 0, time.monotonic()

    def turn(self):
        late = RATE * (time.monotonic() - self.begun) - self.sent
        for _ in range(min(int(late), 20)):  # the core and the phones have their turn, too, where everything is slow
            one, self.sent = self.strangers[self.sent % len(self.strangers)], self.sent + 1
            one.call, one.impi = token(), f"nobody{self.sent}@{REALM}"
            port, who = one.clear.getsockname()[1], f"sip:{one.impi}"
            method = ("REGISTER", "INVITE", "MESSAGE")[self.sent // len(self.strangers) % 3]
            if method == "REGISTER":
                one.send(one.register(port=port, identity=who))
            else:
                one.send(one.request(method, "urn:service:sos", routes=[], via_port=port, identity=who))
        for one in self.strangers:
            self.refused += sum(message.status == 503 for message in one.waiting)
            one.waiting.clear()


def slow_core(lab):
    """50 phones refresh and call while the core needs 20 s for each answer and strangers send more REGISTERs than
    they may have of the table of transactions, and more calls for help, too: the strangers are told to come later, and no
    phone is."""
    phones = [Phone(lab, 20 + n, v6=n % 2 == 1, tcp=n % 4 > 1) for n in range(PHONES)]
    for phone in phones:
        phone.register_with(lab.core)
    strangers = [Stranger(lab, 20 + PHONES + n, "udp", v6=n % 2 == 1) for n in range(STRANGERS)]
    core, flood, busy, deadline = SlowCore(lab), Flood(strangers), [], time.monotonic() + 180
    while not (busy and all(one.is_done() for one in busy)) and time.monotonic() < deadline:
        flood.turn()
        if not busy and flood.refused:  # the strangers have all that they can get
            busy = [Busy(phone) for phone in phones]
        read_all_of([lab.core, *phones, *strangers], 0.005)
        for one in [core, *busy]:
            one.turn()
    status = lab.gateway.ask("status")
    seen = [status["transactions"], {name: count for name, count in status["counters"].items() if count}, flood.sent]
    lab.check(flood.refused, "strangers are told to come later", seen)
    for one in busy:
        is_served = sorted(one.answers) == ["200 BYE", "200 INVITE", "200 REGISTER"]
        lab.check(is_served, f"phone {one.phone.number}, {one.phone.transport}", f"{one.answers} {seen}")
    core.hurry()  # nothing of it is left to the next case

    def is_over():
        read_all_of([lab.core, *strangers], 0)
        core.turn()
        return lab.gateway.ask("status")["transactions"]["client"] == 0

    lab.check(lab.becomes(is_over, 60), "what waited for the core ends")
    # Answered requests wait for repetitions of theirs for 128 s: the lab's small table has to be the next case's.
    lab.gateway.end()
    lab.gateway.start()


CASES = {"d01-wrong-doors": wrong_doors, "d02-slow-core": slow_core, "d03-register-in-a-call": register_in_a_call}
