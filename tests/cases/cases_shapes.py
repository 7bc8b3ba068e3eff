"""Messages as handsets and their networks write them, one file each in shapes/: through the gateway both ways, octet
for octet but for what the file names; or refused as the file says, and then the core hears nothing."""
import re

from cases_call import record_routes, route_back
from lab import CORE
from peers import REALM, Phone
from shape_file import differences, shapes
from sip import branch, is_method, token

WAYS = {"udp4": (False, False), "tcp4": (False, True), "udp6": (True, False), "tcp6": (True, True)}
PEER_AT_CORE = f"sip:peer@{CORE}:5060"
SILENCE = 0.3  # seconds to look for what must not come


class ShapedPhone(Phone):
    """Writes its REGISTERs as a file says; `shape` None: as every phone here."""

    shape = None

    def register(self, port=None, credentials=None, offer=None, is_protected=False, contact=None, identity=None):
        if self.shape is None:
            return super().register(port, credentials, offer, is_protected, contact, identity)
        self.cseq += 1
        empty = f'Digest username="{self.impi}",realm="{REALM}",uri="sip:{REALM}",nonce="",response=""'
        self.written = self.shape.render(values_of(self) | {
            "sent_by": f"{self.host}:{port or self.port_us}", "cseq": self.cseq, "call": self.call, "token": self.tag,
            "credentials": credentials or empty, "verify": self.security_server if is_protected else "",
            "two_qops": (credentials or empty + ",qop=auth").replace("qop=auth", "qop=auth,auth-int")})
        return self.written


def values_of(phone):
    """What the placeholders of a message of this phone, or for it, stand for."""
    return {"host": phone.host, "port_us": phone.port_us, "port_uc": phone.port_uc, "spi_uc": phone.spi_uc,
            "spi_us": phone.spi_us, "transport": phone.transport, "user": phone.user, "impu": phone.impu,
            "impi": phone.impi, "uri": phone.uri(), "instance": phone.instance, "realm": REALM,
            "peer": f"sip:peer@{REALM}", "core": f"{CORE}:5060", "path": phone.path, "verify": phone.security_server, "branch": branch(),
            "token": token(), "call": token() + "@call",
            "route": ", ".join([phone.own_route(), *phone.service_route]) if phone.path else ""}


def answered(message):
    """What an answer to it mirrors."""
    to = message.get("to")
    return {"vias": ", ".join(message.vias()), "vias_folded": ",\r\n  ".join(message.vias()),
            "record_route": ", ".join(message.all("record-route")), "from": message.get("from"),
            "to": to if "tag=" in to else to + ";tag=shape", "call": message.get("call-id"),
            "cseq": message.get("cseq")}


def of(octets):
    """Matches what has the Call-ID of these octets."""
    call = re.search(rb"[0-9a-f]+@call", octets).group()
    return lambda m: call in m.raw


class Scene:
    """One lab with a registered phone per way."""

    def __init__(self, lab):
        self.lab, self.core, self.next_number = lab, lab.core, 30
        self.phones = {}
        for number, (way, (v6, tcp)) in enumerate(WAYS.items(), 20):
            phone = self.phones[way] = ShapedPhone(lab, number, v6=v6, tcp=tcp)
            assert phone.register_with(self.core).status == 200

    def new_phone(self, way):
        self.next_number += 1
        return ShapedPhone(self.lab, self.next_number, *WAYS[way])

    def run(self, shape):
        for way in shape.head["over"]:
            name = f"{shape.name} over {way}"
            for fault in self.pass_on(shape, way):
                self.lab.check(False, name, fault)

    def pass_on(self, shape, way):
        sender, answers = shape.head["from"], shape.head["answers"]
        if shape.head["refused"]:
            return self.refused(shape, self.phones[way])
        if shape.text.startswith("REGISTER"):
            return self.registers(shape, self.new_phone(way))
        if answers == "REGISTER":
            return self.registration_answered(shape, self.new_phone(way))
        if answers:
            return (self.answer_of_phone if sender == "phone" else self.answer_of_core)(shape, self.phones[way])
        return (self.request_of_phone if sender == "phone" else self.request_of_core)(shape, self.phones[way])

    # Requests.

    def registers(self, shape, phone):
        phone.shape = shape
        faults = []

        def compare(seen):
            return [f"REGISTER {phone.cseq}: {one}" for one in differences(shape, phone.written, seen.raw)]

        if shape.head["in"] == "refresh":
            phone.shape = None
            phone.register_with(self.core)
            phone.shape = shape
        else:
            phone.send_first()
            seen = self.core.expect("REGISTER")
            if not seen:
                return ["the first REGISTER did not reach the core"]
            faults += compare(seen)
            self.core.challenge(seen)
            challenged = phone.final()
            if not challenged or challenged.status != 401:
                return [*faults, f"no 401 but {challenged}"]
            phone.take_challenge(challenged)
            phone.open_protected()
        phone.send(phone.register(credentials=phone.credentials(), is_protected=True))
        seen = self.core.expect("REGISTER")
        if not seen:
            return [*faults, f"the second REGISTER did not reach the core: {phone.final(SILENCE)}"]
        faults += compare(seen)
        self.core.accept(seen)
        answer = phone.final()
        phone.path = seen.path()
        if not answer or answer.status != 200:
            faults.append(f"no 200 but {answer}")
        elif not phone.is_reached(self.core):
            faults.append("a MESSAGE does not reach it")
        return faults

    def request_of_phone(self, shape, phone):
        values, invite = values_of(phone), None
        if shape.head["in"] == "call":
            invite, progress, call = self.early_call(phone)
            values |= {"call": call, "route": route_back(progress)}
        octets = shape.render(values)
        phone.send(octets)
        seen = self.core.receive(lambda m: of(octets)(m) and m.status == 0 and m.method == shape.text.split()[0])
        if not seen:
            return [f"did not reach the core: {phone.final(SILENCE)}"]
        faults = differences(shape, octets, seen.raw)
        self.core.reply(seen, 486 if seen.method == "INVITE" else 200, "Shape", record_routes(seen))
        answer = phone.receive(lambda m: of(octets)(m) and m.status >= 200)
        if invite:
            self.core.reply(invite, 486, "Over")
            phone.receive(lambda m: m.status == 486)
        return faults if answer else [*faults, "no final answer"]

    def request_of_core(self, shape, phone):
        values = values_of(phone)
        invite = None
        if shape.head["in"] == "call":
            invite, _, call = self.early_call(phone)
            values |= {"call": call, "route": ", ".join(invite.route_set())}
        octets = shape.render(values)
        self.core.send(octets)
        seen = phone.receive(lambda m: of(octets)(m) and m.status == 0)
        if not seen:
            return [f"did not reach the phone: {self.core.final(SILENCE)}"]
        faults = differences(shape, octets, seen.raw)
        phone.answer(seen, 486 if seen.method == "INVITE" else 200)
        answer = self.core.receive(lambda m: of(octets)(m) and m.status >= 200)
        if invite:
            self.core.reply(invite, 486, "Over")
            phone.receive(lambda m: m.status == 486)
        return faults if answer else [*faults, "no final answer"]

    def early_call(self, phone):
        """A call of the phone that has been answered with a reliable 183: INVITE at the core, 183 at the phone,
        Call-ID."""
        call = token() + "@call"
        phone.send(phone.request("INVITE", call=call, from_tag="f", has_contact=True, extra=["Supported: 100rel"]))
        invite = self.core.expect("INVITE")
        self.core.reply(invite, 183, "Session Progress",
                        ["Require: 100rel", "RSeq: 1", f"Contact: <{PEER_AT_CORE}>", *record_routes(invite)])
        return invite, phone.receive(lambda m: m.status == 183), call

    # Answers.

    def answer_of_phone(self, shape, phone):
        call = token() + "@call"
        method = shape.head["answers"]
        self.core.send(self.core.request(method, phone.uri(), phone.path, call=call, extra=[
            "Via: SIP/2.0/UDP as.ims.test;branch=z9hG4bKas", f"Record-Route: <sip:{CORE}:5060;lr;x=1>"]))
        request = phone.receive(is_method(method))
        octets = shape.render(values_of(phone) | answered(request))
        phone.answer_raw(request, octets)
        seen = self.core.receive(lambda m: m.get("call-id") == call and m.status not in (0, 100))
        if not seen:
            return ["did not reach the core"]
        if seen.status < 200:
            phone.answer(request, 486)
            self.core.final()
        return differences(shape, octets, seen.raw)

    def answer_of_core(self, shape, phone):
        call, method = token() + "@call", shape.head["answers"]
        phone.send(phone.request(method, call=call, has_contact=True))
        request = self.core.expect(method)
        octets = shape.render(values_of(phone) | answered(request))
        self.core.send_back(request, octets)
        seen = phone.receive(lambda m: m.get("call-id") == call and m.status not in (0, 100))
        if not seen:
            return ["did not reach the phone"]
        if seen.status < 200:
            self.core.reply(request, 486)
            phone.final()
        return differences(shape, octets, seen.raw)

    def registration_answered(self, shape, phone):
        written = []

        def accept(request):
            written.append(shape.render(values_of(phone) | answered(request)
                                        | {"contact": request.get("contact"), "path": request.get("path")}))
            self.core.send_back(request, written[0])

        answer = phone.register_with(self.core, accept=accept)
        faults = differences(shape, written[0], answer.raw)
        return faults if phone.is_reached(self.core) else [*faults, "a MESSAGE does not reach it"]

    def refused(self, shape, phone):
        """Its own answer, or none, and nothing at the other side."""
        octets = shape.render(values_of(phone))
        wanted = shape.head["refused"]
        sender, other = (phone, self.core) if shape.head["from"] == "phone" else (self.core, phone)
        if shape.head["in"] == "clear":
            phone.open_clear()
            phone.clear.sendall(octets)
        else:
            sender.send(octets)
        answer = sender.receive(lambda m: of(octets)(m) and m.status >= 200, SILENCE if wanted == "silence" else None)
        seen = other.receive(lambda m: of(octets)(m) and m.status == 0, 0.05)
        faults = [f"it passed: {seen}"] if seen else []
        got = answer.start.removeprefix("SIP/2.0 ") if answer else "silence"
        if got != wanted:
            faults.append(f"answered with {got}, not {wanted}")
        return faults


def handset_messages(lab):
    """The whole table; then each of the phones that it was sent through is still served."""
    scene = Scene(lab)
    table = shapes()
    lab.check(len(table) > 40, "the table is there", len(table))
    for shape in table:
        scene.run(shape)
    for way, phone in scene.phones.items():
        lab.check(phone.is_reached(lab.core) and phone.reaches(lab.core), f"service after it all over {way}")


CASES = {"s01-handset-messages": handset_messages}
