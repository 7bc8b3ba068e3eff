"""What a phone can do with its registrations, over UDP, TCP and TLS, with registrars that write the contact in four
ways. After each step a MESSAGE in both directions tells whether there is service, and the SAs of the kernel, the
gateway's table and the registrar's agree.

A step is a generator: it yields where something needs its time (SAs go a few seconds after the last answer), and the
other steps, and the same steps with the other registrars, go on meanwhile."""
import itertools
import traceback

from lab import CORE, TLS4
from peers import REALM, Phone, TlsPhone
from sip import uri_of

ELSEWHERE = '<sip:001010999@10.1.250.250:5060>;+sip.instance="<urn:gsma:imei:99999999-999999-0>";expires=500'
TIME = ";expires=600"
END = ";expires=0"
PATIENCE_FOR_SAS = 20  # seconds


# How a registrar writes Contact of its 200: `contact` is the one that it was asked for, `others` are what else it has.

def as_sent(phone, contact, others):
    return contact


def rewritten(phone, contact, others):
    """The user with an escape, the address in its long form, and where the request came from in parameters of
    the header."""
    host = f"[fd01:0:0:0:0:0:0:{phone.number}]" if ":" in phone.address else phone.host
    written = contact.replace(f"sip:{phone.user}@{phone.host}", f"sip:%30{phone.user[1:]}@{host}")
    return written + f';received="sip:{phone.host}:{phone.port_uc}";rport={phone.port_uc}'


def reordered(phone, contact, others):
    """Another device first, then a former contact of the phone that ends now, then the user's others, and ours last;
    what was ended is not named."""
    former = contact.split(";expires")[0].replace(f":{phone.port_us}", ":1") + END
    return ", ".join([ELSEWHERE, former, *others, *([] if contact.endswith(END) else [contact])])


def omitted(phone, contact, others):
    return ""


def service_route(identity):
    """Each identity has a Service-Route of its own."""
    return f"<sip:orig@{CORE}:5060;lr;of={identity.partition('@')[0].removeprefix('sip:')}>"


class Registrar:
    """Answers REGISTERs in its way of writing, and knows which contacts it holds for whom."""

    def __init__(self, lab, write):
        self.core, self.write, self.held = lab.core, write, {}  # (identity, URI) to phone

    def answer(self, phone):
        def accept(message):
            identity, contact = uri_of(message.get("to")), message.get("contact")
            if contact == "*":
                self.held = {key: one for key, one in self.held.items() if key[0] != identity}
            elif contact and (contact.endswith(END) or message.get("expires") == "0"):
                self.held.pop((identity, phone.uri()), None)
                contact = contact.removesuffix(END) + END
            elif contact:
                self.held[identity, phone.uri()] = phone
            others = [one.contact(TIME) for key, one in self.held.items() if key[0] == identity and one is not phone]
            written = "" if contact == "*" else self.write(phone, contact or phone.contact(TIME), others)
            self.core.accept(message, contact=written, service_route=service_route(identity))
        return accept


class Step:
    """One cell of the matrix: phones of one transport at one registrar."""

    def __init__(self, lab, transport, way, name, number, v6):
        self.lab, self.transport, self.way, self.name = lab, transport, way, name
        self.registrar, self.phones, self.first_number, self.v6 = Registrar(lab, WAYS[way]), [], number, v6

    def phone(self, number=0, **what):
        """A phone of the cell's transport."""
        number += self.first_number
        if self.transport == "tls":
            return self.add(TlsPhone(self.lab, number, **what))
        return self.add(Phone(self.lab, number, tcp=self.transport == "tcp", v6=self.v6, **what))

    def add(self, phone):
        self.phones.append(phone)
        return phone

    def check(self, is_right, what, seen=""):
        return self.lab.check(is_right, f"{self.name}, contact {self.way}: {what}", seen)

    def register(self, phone, **how):
        answer = phone.register_with(self.lab.core, contact=phone.contact(TIME), accept=self.registrar.answer(phone),
                                     **how)
        self.check(answer.status == 200, "registered", answer)
        return phone

    def again(self, phone, contact, what, identity=None):
        """A REGISTER over what the phone has."""
        seen, answer = phone.refresh_with(self.lab.core, contact=contact, accept=self.registrar.answer(phone),
                                          identity=identity)
        self.check(answer and answer.status == 200, f"{what} is answered", answer)
        self.check(seen and seen.path() == phone.path, f"{what} has the Path of before", seen and seen.path())

    def served(self, what, *phones):
        """These phones have service and no others; kernel, gateway and registrar say so."""
        for phone in phones:
            self.check(phone.is_reached(self.lab.core), f"to the phone after {what}")
            self.check(phone.reaches(self.lab.core), f"from the phone after {what}")
        for phone in self.phones:
            if phone not in phones and phone.path:
                self.has_none(phone, what)
        self.agree(what, phones)
        yield
        self.agree_on_sas(what, phones)

    def has_none(self, phone, what):
        self.lab.core.send(self.lab.core.request("MESSAGE", phone.uri(), phone.path))
        answer = self.lab.core.final()
        self.check(answer and answer.status == 480, f"480 to the core after {what}", answer)

    def agree(self, what, phones):
        """The two tables: the gateway's, and the registrar's."""
        listed = sorted(one["ue"] for one in self.lab.gateway.registrations()
                        if not one["ended"] and int(one["impi"].split("@")[0][-5:]) in {p.number for p in self.phones})
        wanted = sorted(one.seen_at() for one in phones)
        self.check(listed == wanted, f"the gateway's table after {what}", f"{listed}, not {wanted}")
        held = set(self.registrar.held.values())
        self.check(held == set(phones), f"the registrar's table after {what}", [one.uri() for one in held])

    def agree_on_sas(self, what, phones):
        """The kernel's SAs, and the connections."""
        wanted = {one.address: 0 for one in self.phones}
        for phone in phones:
            wanted[phone.address] += phone.sas
        for address, count in wanted.items():
            is_so = self.lab.becomes(lambda address=address, count=count: self.lab.sas(address) == count,
                                     PATIENCE_FOR_SAS)
            self.check(is_so, f"{count} SAs of {address} after {what}", is_so or self.lab.sas(address))
        streams = {one.stream for one in phones if one.sas == 0}
        for phone in self.phones:
            if phone.sas == 0 and phone.stream:
                is_open = phone.stream in streams
                self.check(self.lab.becomes(lambda phone=phone, is_open=is_open: phone.has_ended() != is_open),
                           f"{'no' if is_open else 'the'} connection is closed after {what}")

    def speaks_as(self, phone, identity, asserted, what):
        """A MESSAGE of the phone as that identity reaches the core as the `asserted` one, with its Service-Route."""
        routes = [f"{phone.own_route()}, {service_route(identity)}"]
        if self.check(phone.reaches(self.lab.core, identity=identity, routes=routes), f"from {identity} after {what}"):
            seen = [uri_of(phone.message_seen.get("p-asserted-identity") or ""), *phone.message_seen.all("route")]
            self.check(seen == [asserted, service_route(asserted)], f"as {identity} after {what}", seen)

    def leave(self, *phones):
        for phone in phones:
            self.again(phone, phone.contact(END), "the de-REGISTER")
        yield from self.served("the de-REGISTER")


def life(step):
    """Register, fetch, refresh, de-REGISTER."""
    phone = step.register(step.phone())
    yield from step.served("the registration", phone)
    step.again(phone, "", "the fetch")
    yield from step.served("the fetch", phone)
    step.again(phone, phone.contact(TIME), "the refresh")
    yield from step.served("the refresh", phone)
    yield from step.leave(phone)


def star(step):
    """`Contact: *`, whose REGISTER has Expires: 0."""
    phone = step.register(step.phone())
    step.again(phone, "*\r\nExpires: 0", "the de-REGISTER of all")
    yield from step.served("the de-REGISTER of all")


def come_back(step, change):
    """Switched off without a word and on again, as `change` makes it: registered at once, and the old set, or
    connection, ends when the new one has proved itself."""
    phone = step.register(step.phone())
    yield from step.served("the registration", phone)
    phone.switch_off()
    again = step.phone()
    change(again)
    step.register(again)
    phone.path = None  # nobody is there
    step.registrar.held = {key: one for key, one in step.registrar.held.items() if one is again}
    yield from step.served("the reboot", again)
    yield from step.leave(again)


def reboot_with_same_ports(step):
    def change(phone):
        phone.spi_uc, phone.spi_us = phone.spi_uc + 8, phone.spi_us + 8
    yield from come_back(step, change)


def reboot_with_same_spis(step):
    def change(phone):
        phone.port_uc, phone.port_us = phone.port_uc + 4, phone.port_us + 4
    yield from come_back(step, change)


def reboot_with_all_the_same(step):
    yield from come_back(step, lambda phone: None)


def emergency_beside_normal(step):
    """Two contacts of one user at one address. Each has SAs of its own, or both share one TLS connection; each is ended
    alone, and again registered, and the other has its service all the time."""
    normal, urgent = step.phone(), step.phone(is_emergency=True)
    urgent.port_uc, urgent.port_us = urgent.port_uc + 4, urgent.port_us + 4
    urgent.spi_uc, urgent.spi_us = urgent.spi_uc + 8, urgent.spi_us + 8
    step.register(normal)
    if normal.sas == 0:
        urgent.share(normal)
        step.register(urgent, is_open=True)
    else:
        step.register(urgent)
    yield from step.served("both registrations", normal, urgent)
    for phone in (normal, urgent):
        step.again(phone, phone.contact(TIME), "the refresh")
    yield from step.served("both refreshes", normal, urgent)
    step.again(urgent, urgent.contact(END), "the emergency contact's de-REGISTER")
    yield from step.served("the emergency contact's de-REGISTER", normal)
    yield from step.leave(normal)


def normal_beside_emergency(step):
    """The other way round: the emergency contact is there first, and outlives the normal one."""
    normal, urgent = step.phone(), step.phone(is_emergency=True)
    urgent.port_uc, urgent.port_us = urgent.port_uc + 4, urgent.port_us + 4
    urgent.spi_uc, urgent.spi_us = urgent.spi_uc + 8, urgent.spi_us + 8
    step.register(urgent)
    step.register(normal)
    yield from step.served("both registrations", normal, urgent)
    step.again(normal, normal.contact(END), "the normal contact's de-REGISTER")
    yield from step.served("the normal contact's de-REGISTER", urgent)
    yield from step.leave(urgent)


def two_identities(step):
    """A phone with another public identity on its contact: the phone, and both names."""
    phone = step.register(step.phone())
    first, other = phone.impu, f"sip:other-{phone.user}@{REALM}"
    step.again(phone, phone.contact(TIME), "the second identity's REGISTER", identity=other)
    return phone, first, other


def second_identity(step):
    """Another public identity on the same contact takes nothing from the first one, and ends alone."""
    phone, first, other = two_identities(step)
    for identity in (first, other):
        step.speaks_as(phone, identity, identity, "both registrations")
    yield from step.served("the second identity's REGISTER", phone)
    step.again(phone, phone.contact(END), "the second identity's de-REGISTER", identity=other)
    step.speaks_as(phone, other, first, "the second identity's de-REGISTER")
    yield from step.served("the second identity's de-REGISTER", phone)
    yield from step.leave(phone)


def first_identity_ends(step):
    """The first of two identities is de-registered, refreshed is the second, and the contact ends with that."""
    phone, first, other = two_identities(step)
    step.again(phone, phone.contact(END), "the first identity's de-REGISTER")
    phone.impu, phone.service_route = other, [service_route(other)]
    step.speaks_as(phone, first, other, "the first identity's de-REGISTER")
    yield from step.served("the first identity's de-REGISTER", phone)
    step.again(phone, phone.contact(TIME), "the second identity's refresh")
    yield from step.served("the second identity's refresh", phone)
    yield from step.leave(phone)


def two_devices(step):
    """Two phones of one user; the first one's de-REGISTER leaves the second alone."""
    first, second = step.phone(), step.phone(1)
    second.user, second.impi, second.impu = first.user, first.impi, first.impu
    step.register(first)
    step.register(second)
    yield from step.served("both registrations", first, second)
    step.again(first, first.contact("") + "\r\nExpires: 0", "the first one's de-REGISTER")
    yield from step.served("the first one's de-REGISTER", second)
    yield from step.leave(second)


def tls_instead_of_sas(step):
    """The same contact comes again with the other mechanism: TLS after SAs, and in the column of TLS SAs after TLS."""
    number = step.first_number
    over_sas = Phone(step.lab, number, tcp=step.transport == "tcp", gateway=TLS4)
    first, second = over_sas, TlsPhone(step.lab, number)
    if step.transport == "tls":
        first, second = second, first
    step.register(step.add(first))
    yield from step.served("the registration", first)
    step.register(step.add(second))
    first.path = None  # it is the second one's by now, or nobody's
    yield from step.served("the registration with the other mechanism", second)
    yield from step.leave(second)


WAYS = {"as sent": as_sent, "rewritten": rewritten, "reordered": reordered, "omitted": omitted}
STEPS = [life, star, second_identity, first_identity_ends, reboot_with_same_ports, reboot_with_same_spis,
         reboot_with_all_the_same, emergency_beside_normal, normal_beside_emergency, two_devices, tls_instead_of_sas]
STEPS_OF_TLS = [step for step in STEPS if step not in (reboot_with_same_spis, reboot_with_all_the_same)]


def goes_on(lab, name, rest):
    """One step on to its next yield; false at its end."""
    try:
        next(rest)
        return True
    except StopIteration:
        return False
    except Exception:  # this step cannot go on, the others can
        lab.faults.append(f"{name}: {traceback.format_exc()}")
        return False


def make_case(transport):
    def case(lab):
        cells = itertools.product(enumerate(STEPS_OF_TLS if transport == "tls" else STEPS), enumerate(WAYS))
        running = []
        for number, ((row, run), (column, way)) in enumerate(cells):
            step = Step(lab, transport, way, run.__name__, 20 + 2 * number, v6=(row + column) % 2 == 1)
            running.append((f"{step.name}, contact {way}", run(step)))
        while running:
            running = [one for one in running if goes_on(lab, *one)]
    return case


CASES = {f"matrix-{transport}": make_case(transport) for transport in ("udp", "tcp", "tls")}
