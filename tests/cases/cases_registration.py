"""Registrations and challenges as phones and registrars were seen to write them. The reports are named at each case."""
from peers import CHALLENGE, Phone
from sip import is_final, token

OTHER_DEVICE = '<sip:001010999@10.1.0.250:5060>;+sip.instance="<urn:gsma:imei:99999999-999999-0>";expires=500'
PATIENCE_FOR_NOTHING = 1.5  # seconds to look for what must not come


def query(lab):
    """REGISTER without Contact over the set: sprout#1551, sprout#2130, pjproject#1606; RFC 3261 §10.2.3."""
    phones = [Phone(lab, 20), Phone(lab, 21, has_instance=False)]
    for phone in phones:
        phone.register_with(lab.core)
        _, answer = phone.refresh_with(
            lab.core, contact="",
            accept=lambda m, phone=phone: lab.core.accept(m, contact=phone.contact(";expires=3000")))
        lab.check(answer and answer.status == 200, "the query is answered", answer)
    lab.check(lab.stays(lambda: lab.sas() == 8), "the SAs stay", lab.sas())
    for phone in phones:
        lab.check(phone.is_reached(lab.core), "service after the query, phone", phone.number)
    lab.check(not lab.gateway.lines("register .*de-registered"), "a query is no de-registration")


def other_spelling(lab):
    """Refresh and de-REGISTER that spell instance and reg-id otherwise: pjproject#5159, OpenSIPS#1569, sems#566."""
    gone = Phone(lab, 20)
    gone.register_with(lab.core)
    _, answer = gone.refresh_with(lab.core, contact=f"<{gone.uri()}>;expires=0",
                                  accept=lambda m: lab.core.reply(m, 200, "OK"))
    lab.check(answer and answer.status == 200, "the de-REGISTER without instance is answered", answer)
    lab.check(lab.becomes(lambda: lab.sas() == 0, 15), "its SAs go", lab.sas())
    lab.check(not gone.is_reached(lab.core, patience=3), "no service after it")
    lab.check(not lab.gateway.registrations(), "its registration is gone", lab.gateway.registrations())
    instance = '+sip.instance="<urn:gsma:imei:35000022-000000-0>"'
    for number, first, then in ((21, None, ";expires=600000"), (22, ";expires=600", f";{instance};expires=600"),
                                (23, f";{instance};reg-id=1;expires=600", f";{instance};expires=600"),
                                (24, f";{instance};expires=600", f";{instance.replace('imei', 'IMEI')};expires=600")):
        phone = Phone(lab, number)
        phone.register_with(lab.core, contact=None if first is None else f"<{phone.uri()}>{first}")
        seen, answer = phone.refresh_with(lab.core, contact=f"<{phone.uri()}>{then}")
        lab.check(answer and answer.status == 200, f"refresh {number} is answered", answer)
        lab.check(seen and seen.path() == phone.path, f"refresh {number} has the Path of before")
        lab.check(phone.is_reached(lab.core), f"service after refresh {number}")
    lab.check(len(lab.gateway.registrations()) == 4, "one registration a phone", lab.gateway.registrations())


def rewritten_contact(lab):
    """The 200 has our contact in other words, or beside another one: pjproject#534, JsSIP#660,
    flexisip#186, kamailio#1136."""
    forms = [("the same", lambda p: f"<{p.uri()}>", False, True, ";expires=3000"),
             ("IPv6 in long form", lambda p: f"<sip:{p.user}@[fd01:0:0:0:0:0:0:{p.number}]:{p.port_us}>", True, True,
              ";expires=3000"),
             ("IPv6 in upper case", lambda p: f"<sip:{p.user}@[FD01::{p.number}]:{p.port_us}>", True, True,
              ";expires=3000"),
             ("the port that it came from", lambda p: f"<sip:{p.user}@{p.host}:{p.port_uc}>", False, True,
              ";expires=3000"),
             ("escaped user", lambda p: f"<sip:%30{p.user[1:]}@{p.host}:{p.port_us}>", False, True, ";expires=3000"),
             ("other port, alone", lambda p: f"<sip:{p.user}@{p.host}:{p.port_uc}>", False, False, ";expires=3000"),
             ("quoted expires", lambda p: f"<{p.uri()}>", False, True, ';expires="3000"')]
    phones = []
    for number, (name, write, v6, has_other, expires) in enumerate(forms, 20):
        phone = Phone(lab, number, v6=v6)
        contact = (f"{OTHER_DEVICE}, " if has_other else "") + f"{write(phone)};{phone.instance}{expires}"
        answer = phone.register_with(lab.core, accept=lambda m, text=contact: lab.core.accept(m, contact=text))
        lab.check(answer.status == 200, f"registered, contact written as: {name}", answer)
        phones.append((name, phone))
    lab.check(lab.stays(lambda: lab.sas() == 4 * len(phones)), "the SAs stay", lab.sas())
    for name, phone in phones:
        lab.check(phone.is_reached(lab.core), f"service, contact written as: {name}")


def interval_too_brief(lab):
    """423 to the protected REGISTER, and to a refresh: pjproject#4038, JsSIP#105, OpenSIPS#3910; RFC 3261 §10.2.8."""
    def too_brief(message):
        lab.core.reply(message, 423, "Interval Too Brief", ["Min-Expires: 3600"])

    phone = Phone(lab, 20)
    answer = phone.register_with(lab.core, contact=phone.contact(";expires=60"), accept=too_brief)
    lab.check(answer.status == 423 and answer.get("min-expires") == "3600", "423 reaches the phone", answer)
    for attempt in ("first", "second"):
        seen, answer = phone.refresh_with(lab.core, offer=phone.offer(), contact=phone.contact(";expires=3600"))
        lab.check(seen and answer and answer.status == 200, f"{attempt} REGISTER with the longer time", answer)
    _, answer = phone.refresh_with(lab.core, contact=phone.contact(";expires=60"), accept=too_brief)
    lab.check(answer and answer.status == 423, "423 to the refresh", answer)
    _, answer = phone.refresh_with(lab.core, contact=phone.contact(";expires=3600"))
    lab.check(answer and answer.status == 200, "the refresh again", answer)


def contact_parameters(lab):
    """Contacts as handsets write them, unchanged at the core: kamailio#497, JsSIP#11."""
    for number, parameters in enumerate((
            ";reg-id=0;expires=600", ";reg-id=1;expires=600",
            ';q=0;expires=600000;language="en,fr";+g.3gpp.smsip;audio;'
            '+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-application.ims.iari.gsma-vs";+g.3gpp.cs-voice',
            ';methods="INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, MESSAGE, SUBSCRIBE, NOTIFY";expires=600',
            ';+g.x="a\\"b,<c>";expires=600',
            ';+g.3gpp.accesstype="cellular2";video;+g.3gpp.nw-init-ussi;expires=600'), 20):
        phone = Phone(lab, number)
        contact = f'"A, B" <{phone.uri()};ob>;{phone.instance}{parameters}'
        answer = phone.register_with(lab.core, contact=contact)
        lab.check(answer.status == 200, f"registered with {parameters}", answer)
        lab.check(phone.request_seen.get("contact") == contact, "the core sees it unchanged",
                  phone.request_seen.get("contact"))
        lab.check(phone.is_reached(lab.core), f"service with {parameters}")


def late_challenges(lab):
    """401 after another final answer, and 401 twice: kamailio#4670."""
    for number, status, passed in ((20, 408, None), (21, 500, 500)):
        phone = Phone(lab, number)
        phone.send_first()
        seen = lab.core.expect("REGISTER")
        lab.core.reply(seen, status)
        answer = phone.final(PATIENCE_FOR_NOTHING if passed is None else None)
        lab.check((answer and answer.status) == passed, f"{status} to a REGISTER (RFC 4320 keeps 408 back)", answer)
        lab.core.challenge(seen)
        lab.check(phone.final(PATIENCE_FOR_NOTHING) is None and lab.sas() == 0, f"the 401 after {status} is ignored",
                  lab.sas())
    phone = Phone(lab, 22)
    phone.send_first()
    seen = lab.core.expect("REGISTER")
    lab.core.challenge(seen)
    lab.core.challenge(seen)
    answer = phone.final()
    lab.check(phone.final(PATIENCE_FOR_NOTHING) is None and lab.sas() == 4, "one 401 and one set for two of the core",
              lab.sas())
    phone.take_challenge(answer)
    phone.open_protected()
    lab.check(phone.finish_with(lab.core).status == 200, "it goes on with that one")


SPELLINGS = {
    "upper case": 'Digest realm="{realm}",nonce="{nonce}",algorithm=AKAv1-MD5,qop="auth",ck="{CK}",ik="{IK}"',
    "unquoted": 'Digest realm="{realm}",nonce="{nonce}",algorithm=AKAv1-MD5,qop="auth",ck={ck},ik={ik}',
    "with 0x": 'Digest realm="{realm}",nonce="{nonce}",algorithm=AKAv1-MD5,qop="auth",ck="0x{ck}",ik="0x{ik}"',
    "keys first": 'Digest ck="{ck}", ik="{ik}", realm="{realm}", nonce="{nonce}", algorithm=AKAv1-MD5',
    "blanks": 'Digest realm = "{realm}" , nonce = "{nonce}" , algorithm = AKAv1-MD5 , ck = "{ck}" , '
              'ik = "{ik}" , opaque = "x,y"',
    "names in upper case": 'DIGEST REALM="{realm}",NONCE="{nonce}",ALGORITHM=AKAV1-MD5,CK="{ck}",IK="{ik}"',
    "keys in the second": 'Digest realm="{realm}",nonce="abcd",algorithm=MD5,qop="auth"\n' + CHALLENGE,
    "keys in the first": CHALLENGE + '\nDigest realm="{realm}",nonce="abcd",algorithm=SHA-256,qop="auth"',
    "AKAv2 beside it": CHALLENGE.replace("AKAv1-MD5", "AKAv2-SHA-256") + "\n" + CHALLENGE,
    "stale and domain": 'Digest realm="{realm}",domain="sip:{realm}",nonce="{nonce}",opaque="",stale=FALSE,'
                        'algorithm=AKAv1-MD5,ck="{ck}",ik="{ik}"',
    "a comma at the end": 'Digest realm="{realm}",nonce="{nonce}",algorithm=AKAv1-MD5,ck="{ck}",ik="{ik}",',
    "nonce unquoted": 'Digest realm="{realm}",nonce={nonce},algorithm=AKAv1-MD5,qop="auth",ck="{ck}",ik="{ik}"',
    "folded": 'Digest realm="{realm}",\r\n nonce="{nonce}",\r\n\talgorithm=AKAv1-MD5,\r\n ck="{ck}",\r\n ik="{ik}"',
}


def challenge_spellings(lab):
    """Thirteen ways to write a challenge; no key ever reaches the phone: doubango#19."""
    for number, (name, form) in enumerate(SPELLINGS.items(), 20):
        phone = Phone(lab, number)
        phone.send_first()
        vector = lab.core.challenge(lab.core.expect("REGISTER"), form)
        answer = phone.final()
        lab.check(answer and answer.status == (504 if "0x" in name else 401), f"challenge {name}", answer)
        text = answer.raw.decode().lower() if answer else ""
        lab.check(vector["ck"].hex() not in text and vector["ik"].hex() not in text, f"no key leaks, challenge {name}",
                  text)


def two_first_registers(lab):
    """Two first REGISTERs at once, answered in either order: linphone-android#1327, pjproject#2653, sprout#1200."""
    for number, step, is_turned in ((20, 0, False), (21, 0, True), (22, 8, False), (23, 8, True)):
        phone = Phone(lab, number)
        phone.open_clear()
        port = phone.clear.getsockname()[1]
        older = phone.register(port=port)
        phone.call = token()
        phone.spi_uc += step
        phone.spi_us += step
        for octets in (older, phone.register(port=port), older):
            phone.clear.sendall(octets)
        seen = [lab.core.expect("REGISTER"), lab.core.expect("REGISTER")]
        for message in reversed(seen) if is_turned else seen:
            lab.core.challenge(message)
        answer = phone.receive(lambda m, call=phone.call: is_final(m) and m.get("call-id") == call)
        lab.check(answer and answer.status == 401, f"the newest REGISTER of {number} has its 401", answer)
        phone.receive(lambda m, call=phone.call: is_final(m) and m.get("call-id") != call, PATIENCE_FOR_NOTHING)
        phone.take_challenge(answer)
        phone.open_protected()
        lab.check(phone.finish_with(lab.core).status == 200, f"{number} goes on with its newest")
        lab.check(phone.is_reached(lab.core), f"service of {number}")


def odd_registrars(lab):
    """No challenge, 407, no keys, and odd times: doubango#19, and cores of laboratories that ask for no credentials."""
    proxy = f'Proxy-Authenticate: Digest realm="x",nonce="y",ck="{"a" * 32}",ik="{"b" * 32}"'
    without_keys = 'WWW-Authenticate: Digest realm="x",nonce="y",algorithm=MD5'
    for number, expected, answer_with in (
            (20, 200, lab.core.accept), (21, 504, lambda m: lab.core.reply(m, 407, "PA", [proxy])),
            (22, 504, lambda m: lab.core.reply(m, 401, "U", [without_keys]))):
        phone = Phone(lab, number)
        phone.send_first()
        seen = lab.core.expect("REGISTER")
        answer_with(seen)
        answer = phone.final()
        lab.check(answer and answer.status == expected and not answer.get("security-server"), f"{expected}", answer)
        lab.core.send(lab.core.request("MESSAGE", phone.uri(), seen.path()))
        answer = lab.core.final()
        lab.check(answer and answer.status == 480, "no service without protection", answer)
    lab.check(lab.sas() == 0, "no SA without keys", lab.sas())
    for number, expires in enumerate(("4294967295", "abc", "99999999999999999999", "31536000"), 30):
        phone = Phone(lab, number)
        answer = phone.register_with(lab.core, accept=lambda m, text=phone.contact(f";expires={expires}"):
                                     lab.core.accept(m, contact=text))
        lab.check(answer.status == 200 and phone.is_reached(lab.core), f"service with expires={expires}", answer)


CASES = {"b01-query": query, "b02-other-spelling": other_spelling, "b03-rewritten-contact": rewritten_contact,
         "b06-interval-too-brief": interval_too_brief, "b08-contact-parameters": contact_parameters,
         "b10-late-challenges": late_challenges, "b13-challenge-spellings": challenge_spellings,
         "b64-two-first-registers": two_first_registers, "b65-odd-registrars": odd_registrars}
