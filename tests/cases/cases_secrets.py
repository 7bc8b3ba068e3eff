"""What was secret is in no memory of gmgated, its guardian and its worker once it is in the kernel: keys of every
challenge, also of those that were repeated, refused or never answered, and the secrets of TLS sessions."""
import os
import re
import tempfile

from peers import CHALLENGE, Phone, TlsPhone
from sip import build, is_final

REPEATED = 3
REFUSED = (  # answers to a REGISTER that carry keys and from which no set comes
    (401, CHALLENGE.replace(',ik="{ik}"', "")),
    (401, CHALLENGE.replace("{ck}", "{ck}00")),
    (401, CHALLENGE + ',ck="{CK}"'),
    (401, CHALLENGE.replace("AKAv1-MD5", "AKAv9-MD5")),
    (401, CHALLENGE + '\nDigest realm="{realm}",nonce="x",ck="{ck}",ik="{ik}"'),
    (403, CHALLENGE),
    (407, CHALLENGE),
    (500, CHALLENGE),
)


def processes(gateway):
    """gmgated and everything that it has started."""
    found, wanted = [], [gateway.process.pid]
    while wanted:
        pid = wanted.pop()
        found.append(pid)
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            wanted += [int(one) for one in file.read().split()]
    return found


def regions(pid):
    """Memory that the process may have written and that is there, piece by piece."""
    with open(f"/proc/{pid}/smaps", encoding="utf8") as file:
        text = file.read()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, name, size in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw\S* \S+ \S+ \d+ *(.*)\n(?:.*\n){2,4}?"
                                                 r"Rss: +(\d+) kB", text, re.M):
            if size == "0" or name.startswith("[v"):
                continue
            try:
                memory.seek(int(start, 16))
                yield name or "mapped", int(start, 16), memory.read(int(end, 16) - int(start, 16))
            except OSError:
                pass  # it has gone meanwhile


def remains(gateway, secrets):
    """Where which of them stand. `secrets`: names with octets."""
    found, names = [], {octets: name for name, octets in secrets.items()}
    any_of = re.compile(b"|".join(map(re.escape, names)))
    for pid in processes(gateway):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            name = file.read().split(b"\0")[0].rsplit(b"/", 1)[-1].decode()
        for region, start, octets in regions(pid):
            for at, wanted in ((one.start(), one.group()) for one in any_of.finditer(octets)):
                found.append(f"{names[wanted]} in {name} {pid}, {region} at {start + at:#x}: "
                             f"...{octets[max(at - 200, 0):at + 80]}")
    return found


def of_vector(name, vector):
    keys = {}
    for key in ("ck", "ik"):
        text = vector[key].hex()
        keys.update({f"{key} of {name}": vector[key], f"{key} of {name} as text": text.encode(),
                     f"{key} of {name} as upper-case text": text.upper().encode()})
    return keys


def check_none(lab, secrets, what):
    """The last answers may still be on their way through the gateway."""
    found = []

    def none_is_left():
        found[:] = remains(lab.gateway, secrets)
        return not found

    lab.check(lab.becomes(none_is_left, 6), what, "\n      ".join(found[:6]))


def is_found(lab):
    """That the search finds what is there: a private identity is."""
    phone = Phone(lab, 79)
    phone.register_with(lab.core)
    lab.check(remains(lab.gateway, {"its name": phone.impi.encode()}), "the search finds what is in memory")


def ask(lab, phone, octets, answer):
    """Sends a REGISTER in clear to which the core says that; the final answer."""
    phone.clear.sendall(octets)
    answer(lab.core.expect("REGISTER"))
    return phone.receive(is_final)


def challenge_again(lab, phone, secrets):
    """The same REGISTER comes again, and the core says its 401 again, with the keys."""
    octets = phone.register(port=phone.clear.getsockname()[1])

    def answer(message):
        vector = lab.core.challenge(message)
        secrets.update(of_vector(f"challenge {len(secrets)}", vector))
        said = lab.core.last_said
        for _ in range(2):
            lab.core.send_back(message, said)

    return ask(lab, phone, octets, answer)


class Echo:
    """Notes what the core says last, so that it can say it again."""

    def __init__(self, core):
        self.core, self.send_back = core, core.send_back

    def __enter__(self):
        def noting(message, octets):
            self.core.last_said = octets
            self.send_back(message, octets)
        self.core.send_back = noting

    def __exit__(self, *_):
        del self.core.send_back


def other_offer(phone):
    """SPIs and a client port that its live set has not."""
    return (f"ipsec-3gpp;alg={phone.alg};ealg={phone.ealg};prot=esp;mod=trans;spi-c={phone.spi_uc + 4};"
            f"spi-s={phone.spi_us + 4};port-c={phone.port_uc + 5};port-s={phone.port_us}")


def keys_of_challenges(lab):
    """Repeated, unanswered, answered and refused challenges, over UDP and TCP, both families."""
    is_found(lab)
    secrets = {}
    with Echo(lab.core):
        for number, v6, tcp in ((20, False, False), (21, True, True)):
            phone = Phone(lab, number, v6=v6, tcp=tcp)
            phone.open_clear()
            for _ in range(REPEATED):
                answer = challenge_again(lab, phone, secrets)
                lab.check(answer and answer.status == 401, "a challenge", answer)
            phone.take_challenge(answer)
            phone.open_protected()
            answer = phone.finish_with(lab.core)
            lab.check(answer.status == 200, "registered", answer)
            _, answer = phone.refresh_with(lab.core, offer=other_offer(phone), accept=lambda message: secrets.update(
                of_vector(f"re-authentication of {number}", lab.core.challenge(message))))
            lab.check(answer and answer.status == 401, "challenged again over its SAs",
                      answer and (answer, answer.get("warning")))
            lab.check(phone.is_reached(lab.core), "it is served meanwhile")
    check_none(lab, secrets, "keys of challenges are gone")


def keys_of_refusals(lab):
    """Answers of the core with keys that lead to no SAs, and a 401 to a request that is no REGISTER."""
    secrets, core = {}, lab.core
    phone = Phone(lab, 30)
    phone.open_clear()
    for number, (status, form) in enumerate(REFUSED):
        def answer(message, number=number, status=status, form=form):
            said, core.reply = core.reply, lambda m, _, reason, extra=(): said(m, status, reason, extra)
            try:
                secrets.update(of_vector(f"refusal {number}", core.challenge(message, form)))
            finally:
                core.reply = said

        final = ask(lab, phone, phone.register(port=phone.clear.getsockname()[1]), answer)
        lab.check(final and final.status >= 400, f"refusal {number} is passed on or refused", final)
    other = Phone(lab, 31)
    other.register_with(core)
    other.send(other.request("MESSAGE", body=b"x", extra=["Content-Type: text/plain"]))
    secrets.update(of_vector("a MESSAGE's challenge", core.challenge(core.expect("MESSAGE"))))
    other.final()
    # Keys that somebody writes into a request are none of ours, but a stranger's malformed one is no place for any.
    phone.clear.sendall(build("REGISTER sip:x SIP/2.0", ["Via: ???"]))
    check_none(lab, {name: one for name, one in secrets.items() if "MESSAGE" not in name}, "keys of refusals are gone")


def secrets_of_tls(lab):
    """A phone with TLS 1.2 and one with 1.3: neither master nor traffic secrets are left, in use and after it."""
    for number, version in ((40, "TLSv1_2"), (41, "TLSv1_3")):
        phone = TlsPhone(lab, number, version)
        log = tempfile.mktemp(prefix="keys-")
        phone.context.keylog_filename = log
        phone.register_with(lab.core)
        lab.check(phone.is_reached(lab.core), f"{version}: it is served")
        with open(log, encoding="ascii") as file:
            lines = [line.split() for line in file if not line.startswith("#")]
        os.unlink(log)
        secrets = {f"{version} {label}": bytes.fromhex(secret) for label, _, secret in lines}
        lab.check(len(secrets) >= (1 if version == "TLSv1_2" else 4), f"{version}: the phone knows its secrets", secrets)
        check_none(lab, secrets, f"{version}: secrets are gone while it is in use")
        phone.close()
        check_none(lab, secrets, f"{version}: secrets are gone afterwards")


CASES = {"secrets-of-challenges": keys_of_challenges, "secrets-of-refusals": keys_of_refusals,
         "secrets-of-tls": secrets_of_tls}
