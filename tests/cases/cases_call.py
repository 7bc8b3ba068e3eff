"""Calls, identities and routes as phones and networks were seen to write them. The reports are named at each case."""
import re

from lab import CORE
from peers import REALM, Phone
from sip import build, branch, is_method, token, uri_of

PEER = f"sip:peer@{REALM}"
PEER_AT_CORE = f"sip:peer@{CORE}:5060"
SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nm=audio 4000 RTP/AVP 0\r\n"
SDP_TYPE = "Content-Type: application/sdp"
PATIENCE_FOR_NOTHING = 1.5  # seconds to look for what must not come


def record_routes(message):
    return [f"Record-Route: {one}" for one in message.all("record-route")]


def route_back(message):
    """The caller's route set of an answer, as one value."""
    return ", ".join(reversed(message.route_set()))


def of_call(call, method):
    return lambda m: m.get("call-id") == call and (m.get("cseq") or "").endswith(method)


def ring(lab, phone, call, via):
    """A call of the core that rings at the phone, which registers for it; returns the INVITE at the phone."""
    phone.register_with(lab.core)
    lab.core.send(lab.core.request("INVITE", phone.uri(), phone.path, call=call, via=via, body=SDP, extra=[SDP_TYPE]))
    invite = phone.receive(is_method("INVITE"))
    phone.answer(invite, 180, "Ringing")
    return invite


def cancel_with_reason(lab):
    """Reason in a CANCEL, both ways: sems#164, asterisk#116, drachtio-srf#150, livekit/sip#846; RFC 3326."""
    reasons = ['SIP;cause=200;text="Call completed elsewhere"', "Q.850;cause=26"]
    core, phone, call = lab.core, Phone(lab, 20), token()
    via = f"Via: SIP/2.0/UDP {CORE}:5060;branch={branch()}"
    invite = ring(lab, phone, call, via)
    lab.check(core.receive(lambda m: m.status == 180), "180 at the core")
    core.send(core.request("CANCEL", phone.uri(), phone.path, call=call, via=via,
                           extra=[f"Reason: {r}" for r in reasons]))
    cancel = phone.receive(is_method("CANCEL"))
    lab.check(cancel and cancel.all("reason") == reasons, "Reason at the phone", cancel and cancel.all("reason"))
    phone.answer(cancel, 200)
    phone.answer(invite, 487, "Request Terminated")
    lab.check(core.receive(lambda m: m.status == 487), "487 at the core")
    what = {"call": token(), "via_branch": branch(), "from_tag": "ff", "has_contact": True}
    phone.send(phone.request("INVITE", extra=[SDP_TYPE], body=SDP, **what))
    invite = core.expect("INVITE")
    core.reply(invite, 180, "Ringing")
    lab.check(phone.receive(lambda m: m.status == 180), "180 at the phone")
    reason = 'SIP;cause=503;text="PS to CS handover"'
    phone.send(phone.request("CANCEL", extra=[f"Reason: {reason}"], **what))
    cancel = core.expect("CANCEL")
    lab.check(cancel and cancel.all("reason") == [reason], "Reason at the core", cancel and cancel.all("reason"))
    core.reply(cancel, 200, "OK")
    core.reply(invite, 487, "Request Terminated")
    lab.check(phone.receive(lambda m: m.status == 487), "487 at the phone")


def cancel_crosses_answer(lab):
    """The phone answers 200 as the CANCEL comes: kamailio#570."""
    core, phone, call = lab.core, Phone(lab, 20), token()
    via = f"Via: SIP/2.0/UDP {CORE}:5060;branch={branch()}"
    invite = ring(lab, phone, call, via)
    core.receive(lambda m: m.status == 180)
    core.send(core.request("CANCEL", phone.uri(), phone.path, call=call, via=via))
    cancel = phone.receive(is_method("CANCEL"))
    contact = [f"Contact: <{phone.uri()}>"]
    phone.answer(invite, 200, "OK", contact)
    phone.answer(cancel, 481, "Call/Transaction Does Not Exist")
    answer = core.receive(lambda m: m.status == 200 and of_call(call, "INVITE")(m))
    if not lab.check(answer, "the 200 passes"):
        return
    routes = [f"Route: {', '.join(answer.route_set())}"]
    target = uri_of(answer.get("contact"))
    core.send(core.request("ACK", target, call=call, to_tag="ue", extra=routes))
    lab.check(phone.receive(is_method("ACK")), "the ACK passes")
    phone.answer(invite, 200, "OK", contact)
    lab.check(core.receive(lambda m: m.status == 200 and of_call(call, "INVITE")(m)), "a second 200 passes")
    core.send(core.request("BYE", target, cseq=2, call=call, to_tag="ue", extra=routes))
    bye = phone.receive(is_method("BYE"))
    if lab.check(bye, "the BYE passes"):
        phone.answer(bye, 200)
        lab.check(core.receive(lambda m: m.status == 200 and of_call(call, "BYE")(m)), "its 200 passes")


def make_call(lab, phone, call):
    """A call from the phone that is answered; returns the INVITE at the core and the 200 at the phone."""
    phone.send(phone.request("INVITE", call=call, from_tag="f", has_contact=True))
    invite = lab.core.expect("INVITE")
    lab.core.reply(invite, 200, "OK", [f"Contact: <{PEER_AT_CORE}>", *record_routes(invite)])
    answer = phone.receive(lambda m: m.status == 200 and of_call(call, "INVITE")(m))
    phone.send(phone.request("ACK", PEER_AT_CORE, call=call, from_tag="f", to_tag="core", routes=[route_back(answer)]))
    assert lab.core.expect("ACK"), "the ACK did not reach the core"
    return invite, answer


def in_call_from_core(lab, phone, method, call, invite):
    routes = [f"Route: {', '.join(invite.route_set())}"]
    lab.core.send(lab.core.request(method, phone.uri(), cseq=5, call=call, from_tag="core", to_tag="f", extra=routes))
    request = phone.receive(is_method(method))
    if lab.check(request, f"{method} reaches the phone"):
        phone.answer(request, 200)
        lab.check(lab.core.receive(lambda m: m.status == 200 and of_call(call, method)(m)),
                  f"200 to {method} reaches the core")


def bye_from_phone(lab, phone, call, answer):
    phone.send(phone.request("BYE", PEER_AT_CORE, cseq=3, call=call, from_tag="f", to_tag="core",
                             routes=[route_back(answer)]))
    request = lab.core.expect("BYE")
    if lab.check(request, "BYE reaches the core"):
        lab.core.reply(request, 200, "OK")
        lab.check(phone.receive(lambda m: m.status == 200 and of_call(call, "BYE")(m)), "200 to BYE reaches the phone")


def call_over_new_sas(lab):
    """A call outlives a re-registration with new SAs: OpenSIPS#2173, docker_open5gs#651."""
    for number, is_tcp in ((20, False), (21, True)):
        phone, call = Phone(lab, number, tcp=is_tcp), token()
        phone.register_with(lab.core)
        path = phone.path
        invite, answer = make_call(lab, phone, call)
        old_port = phone.port_uc
        phone.spi_uc, phone.spi_us, phone.port_uc = phone.spi_uc + 8, phone.spi_us + 8, old_port + 2
        offer = phone.offer()
        octets = phone.register(port=old_port, credentials=phone.credentials(), offer=offer, is_protected=True)
        phone.send(octets)
        lab.core.challenge(lab.core.expect("REGISTER"))
        phone.take_challenge(phone.receive(lambda m: m.status == 401))
        phone.connection = None
        if not is_tcp:
            phone.client = lab.socket(lab.ue, "udp", phone.address, phone.port_uc)
            phone.datagram.append(phone.client)
        lab.check(phone.finish_with(lab.core).status == 200, "registered anew")
        lab.check(phone.path == path, "the Path of before", phone.path)
        for method in ("UPDATE", "BYE"):
            in_call_from_core(lab, phone, method, call, invite)
        bye_from_phone(lab, phone, call, answer)


def prack_over_both(lab):
    """PRACK over TCP and then over UDP in one dialog: Kamailio_IMS_Config#40."""
    core, phone, call = lab.core, Phone(lab, 20, tcp=True), token()
    phone.register_with(core)
    phone.send(phone.request("INVITE", call=call, from_tag="ft", has_contact=True, body=SDP,
                             extra=[SDP_TYPE, "Supported: 100rel"]))
    invite = core.expect("INVITE")
    contact = [f"Contact: <{PEER_AT_CORE}>", *record_routes(invite)]
    core.reply(invite, 183, "Session Progress", ["Require: 100rel", "RSeq: 1", *contact])
    progress = phone.receive(lambda m: m.status == 183)
    what = {"call": call, "from_tag": "ft", "to_tag": "core", "routes": [route_back(progress)], "to": f"<{PEER}>"}
    for cseq, over_udp in ((2, False), (3, True)):
        octets = phone.request("PRACK", PEER_AT_CORE, cseq=cseq, extra=[f"RAck: {cseq - 1} 1 INVITE"], **what)
        if over_udp:
            phone.client.sendto(octets.replace(b"SIP/2.0/TCP", b"SIP/2.0/UDP"), (phone.gateway, phone.port_ps))
        else:
            phone.send(octets)
        prack = core.expect("PRACK")
        if lab.check(prack, f"PRACK {cseq} at the core"):
            core.reply(prack, 200, "OK")
        answer = phone.receive(lambda m, cseq=cseq: m.status == 200 and m.get("cseq") == f"{cseq} PRACK")
        lab.check(answer and (answer.source is not None) == over_udp, f"its 200 comes as PRACK {cseq} went", answer)
    core.reply(invite, 200, "OK", contact)
    lab.check(phone.receive(lambda m: m.status == 200 and of_call(call, "INVITE")(m)), "200 to the INVITE")
    octets = phone.request("ACK", PEER_AT_CORE, **what).replace(b"SIP/2.0/TCP", b"SIP/2.0/UDP")
    phone.client.sendto(octets, (phone.gateway, phone.port_ps))
    lab.check(core.expect("ACK"), "the ACK over UDP at the core")


GOOD_NAMES = ['"THOMPSON,ALICIA" <sip:+1@x.test>', "Dr. J. O'Neil (Office) <sip:+1@x.test>",
              '"" <sip:+1@x.test>;epid=a22e',
              "Müller Straße <sip:+1@x.test>", '"中文字符"<sip:+1@x.test>', "sip:+1@x.test",
              "<tel:+4930123;phone-context=+49>",
              '"a\\"b" <sip:+1@x.test>', "<sip:anonymous@anonymous.invalid>",
              "Anonymous <sip:anonymous@anonymous.invalid>"]
UNQUOTED_NAMES = ["Bond, James <sip:+1@x.test>", "+49 30: 123 <sip:+1@x.test>", "user@corp.test <sip:+1@x.test>",
                  "AT&T/Wireless; Inc. <sip:+1@x.test>", '""unknown"" <sip:+1@x.test>']
BAD_NAMES = ['<sip:+1@x.test;user=phone;x="y">']


def display_names(lab):
    """Display names of PSTN gateways: ersip#26, asterisk#756, doubango#333, nksip#20. What two readers could split
    differently is refused from a phone: an unquoted name with one of , : @ ; and the core's passes as it came."""
    core, phone = lab.core, Phone(lab, 20)
    phone.register_with(core)
    for name in GOOD_NAMES + UNQUOTED_NAMES + BAD_NAMES:
        is_good, call = name not in BAD_NAMES, token()
        core.send(core.request("INVITE", phone.uri(), phone.path, call=call, caller=name,
                               extra=[f"P-Asserted-Identity: {name}"]))
        if is_good:
            invite = phone.receive(of_call(call, "INVITE"))
            lab.check(invite, f"to the phone passes {name}")
            if invite:
                lab.check(invite.get("from").startswith(name), f"to the phone as it came: {name}", invite.get("from"))
                phone.answer(invite, 486, "Busy Here")
        answer = core.receive(lambda m, call=call: m.status >= 200 and of_call(call, "INVITE")(m))
        lab.check(answer and answer.status == (486 if is_good else 400), f"answer for {name}", answer)
        is_good = name in GOOD_NAMES
        phone.send(phone.request("MESSAGE", to=name, call=call, body=b"x", extra=["Content-Type: text/plain"]))
        if is_good:
            message = core.expect("MESSAGE")
            lab.check(message, f"to the core passes {name}")
            if message:
                core.reply(message, 200, "OK")
        answer = phone.receive(lambda m, call=call: m.status >= 200 and of_call(call, "MESSAGE")(m))
        lab.check(answer and answer.status == (200 if is_good else 400), f"answer to the phone for {name}", answer)


def handset_invite(phone, service_route, body):
    context = "ims.mnc002.mcc460.3gppnetwork.org"
    return build(f"INVITE tel:18210000000;phone-context={context} SIP/2.0", [
        "f: <tel:+8615000000000>;tag=1769475601", f"t: <tel:18210000000;phone-context={context}>",
        "CSeq: 695733763 INVITE",
        f"i: 1769475587_2328286360@{phone.address}",
        f"v: SIP/2.0/TCP {phone.host}:{phone.port_us};branch=z9hG4bK3750862093",
        "Max-Forwards: 70", f"m: <sip:+8615000000000@{phone.host}:{phone.port_us};user=phone>;"
        '+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel";video;+g.3gpp.mid-call;+g.3gpp.srvcc-alerting',
        f"Route: {phone.own_route()},{service_route}",
        "P-Access-Network-Info: 3GPP-E-UTRAN-TDD; utran-cell-id-3gpp=46000102D108F00D",
        f"Security-Verify: {phone.security_server}",
        "Proxy-Require: sec-agree", "Require: sec-agree", "P-Preferred-Identity: <tel:+8615000000000>",
        "Allow: INVITE,ACK,CANCEL,BYE,UPDATE,PRACK,MESSAGE,REFER,NOTIFY,INFO", "c: application/sdp",
        "Accept: application/sdp,application/3gpp-ims+xml",
        'a: *;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel"',
        "k: 100rel,replaces,precondition,histinfo", "P-Early-Media: supported"], body)


def handset_shape(lab):
    """INVITE and SUBSCRIBE in a handset's own shape: compact names, tel, IPv6, Expires 423197357;
    linphone-android#1300."""
    core, phone = lab.core, Phone(lab, 20, v6=True, tcp=True)
    route = f"<sip:orig@{CORE}:5060;lr;Dpt=7c04_7f888246;ca=2385;TRC=ffffffff-ffffffff>"
    identities = "P-Associated-URI: <sip:+8615000000000@ims.test>, <tel:+8615000000000>"
    phone.register_with(core, accept=lambda m: core.accept(m, service_route=route, extra=[identities]))
    body = SDP + b"a=rtpmap:107 AMR-WB/16000\r\n" * 18
    phone.send(handset_invite(phone, route, body))
    invite = core.expect("INVITE")
    if lab.check(invite, "the INVITE at the core"):
        lab.check(invite.all("route") == [route], "its Route", invite.all("route"))
        lab.check(invite.get("p-asserted-identity") == "<tel:+8615000000000>", "identity",
                  invite.get("p-asserted-identity"))
        left = [name for name, _ in invite.headers if name.startswith("security")
                or name in ("require", "proxy-require",
                                                                                           "p-preferred-identity")]
        lab.check(invite.body == body and not left, "the body is whole, the access side's headers are gone", left)
        core.reply(invite, 486, "Busy Here")
    lab.check(phone.receive(lambda m: m.status == 486), "486 at the phone")
    phone.send(build("SUBSCRIBE tel:+8615000000000 SIP/2.0", [
        f"v: SIP/2.0/TCP {phone.host}:{phone.port_us};branch=z9hG4bKs5", "f: <tel:+8615000000000>;tag=s1",
        "t: <tel:+8615000000000>", "i: sub5", "CSeq: 5 SUBSCRIBE",
        f"m: <sip:+8615000000000@{phone.host}:{phone.port_us}>",
        f"Route: {phone.own_route()}", f"Route: {route}", "o: reg", "Expires: 423197357",
        f"Security-Verify: {phone.security_server}", "Require: sec-agree", "Proxy-Require: sec-agree"]))
    subscribe = core.expect("SUBSCRIBE")
    if lab.check(subscribe and subscribe.get("event") == "reg" and subscribe.get("expires") == "423197357", "SUBSCRIBE",
                 subscribe):
        core.reply(subscribe, 200, "OK", ["Expires: 600000", f"Contact: <sip:scscf@{CORE}>", *record_routes(subscribe)])
    lab.check(phone.receive(lambda m: m.status == 200), "200 to the SUBSCRIBE")


def privacy(lab):
    """Privacy and Proxy-Require: what is asked of a proxy and not given is refused with 420; RFC 3323."""
    core, phone = lab.core, Phone(lab, 20)
    phone.register_with(core)
    identity = "<sip:+49301@x.test>"
    for extra, passes, shown in ((["Privacy: id", "Proxy-Require: privacy"], False, None),
                                 (["Privacy: id;critical"], True, None),
                                 (["Privacy: header;user"], True, identity), (["Privacy: none"], True, identity),
                                 (["Require: 100rel, precondition"], True, identity),
                                 (["Proxy-Require: com.nortelnetworks.firewall"], False, None),
                                 (["Supported: timer, 100rel", "Session-Expires: 1800;refresher=uac", "Min-SE: 90"],
                                  True, identity)):
        call = token()
        core.send(core.request("INVITE", phone.uri(), phone.path, call=call,
                               extra=[*extra, f"P-Asserted-Identity: {identity}"]))
        invite = phone.receive(of_call(call, "INVITE")) if passes else None
        if invite:
            phone.answer(invite, 486, "Busy Here")
            lab.check(invite.get("p-asserted-identity") == shown, f"identity with {extra}",
                      invite.get("p-asserted-identity"))
        answer = core.receive(lambda m, call=call: m.status >= 200 and of_call(call, "INVITE")(m))
        lab.check(answer and answer.status == (486 if passes else 420), f"to the phone with {extra}", answer)
    for extra, passes in ((["Proxy-Require: privacy", "Privacy: id"], False), (["Privacy: id"], True),
                          (["Proxy-Require: gruu"], False)):
        call = token()
        phone.send(phone.request("INVITE", call=call, has_contact=True, extra=extra))
        invite = core.expect("INVITE") if passes else None
        if invite:
            core.reply(invite, 486, "Busy Here")
        answer = phone.receive(lambda m, call=call: m.status >= 200 and of_call(call, "INVITE")(m))
        lab.check(answer and answer.status == (486 if passes else 420), f"to the core with {extra}", answer)


def routes(lab):
    """Route as clients write it; the core gets the Service-Route: webrtc2sip#131, imsdroid#447, imsdroid#80."""
    for number, v6 in ((20, False), (21, True)):
        phone = Phone(lab, number, v6=v6)
        phone.register_with(lab.core)
        us, port, service = phone.gateway_host, phone.port_ps, phone.service_route[0]
        other = f"[FD01:0:0:0:0:0:0:0001]:{port};lr" if v6 else f"{us}:{port};LR"
        for form in ([f"<sip:{us}:{port};lr>, {service}"],
                     [f"<sip:{us}:{port};lr;sipml5-outbound;transport=udp>", service],
                     [f"<sip:{us}:{port};lr=on>,{service.replace(';lr', ';lr=on')}"],
                     [f"<sip:{us}:{port};lr=true;transport=tcp>,{service}"], [service], [f"<sip:{us}:{port};lr>"],
                     [f"<sip:{us}:5060;lr>, {service}"], [f"<sip:{us};lr>, {service}"],
                     [f"<sip:term@{us}:{port};lr>, {service}"],
                     [], [f"<sip:{other}>, {service}"], [f"<sip:{us}:{phone.port_pc};lr>, {service}"],
                     [f'"Prox-CSCF" <sip:{us}:{port};lr>;test=1,"Originating" {service}'],
                     [f"<sip:pcscf.ims.test:{port};lr>, {service}"]):
            phone.send(phone.request("MESSAGE", body=b"x", extra=["Content-Type: text/plain"], routes=form))
            message = lab.core.expect("MESSAGE")
            if lab.check(message, f"a MESSAGE with Route {form} passes"):
                lab.check([uri_of(one) for one in message.all("route")] == [f"sip:orig@{CORE}:5060;lr"],
                          f"Route of {form}",
                          message.all("route"))
                lab.core.reply(message, 200, "OK")
            lab.check(phone.final(), f"200 to {form}")
        phone.send(phone.request("MESSAGE", body=b"x", routes=[f"<sip:{us}:{port};lr=true;transport=udp"]))
        answer = phone.final()
        lab.check(answer and answer.status == 400, "a Route without its > is refused", answer)


def odd_answers(lab):
    """Answers of a phone in odd forms; each passes but the one with bare LFs, whose end two readers would see
    differently."""
    core, phone = lab.core, Phone(lab, 20)
    phone.register_with(core)
    ends = {"bare LF": lambda m, vias, text: text(vias).replace(b"\r\n", b"\n"),
            "no To tag": lambda m, vias, text: text(vias, to=m.get("to")),
            "Via joined": lambda m, vias, text: text([", ".join(vias)]),
            "compact": lambda m, vias, text: re.sub(b"(?m)^Via", b"v", text(vias))
            .replace(b"From:", b"f:").replace(b"To:", b"t:")
            .replace(b"Call-ID:", b"i:").replace(b"Content-Length: ", b"l:"),
            "received in our Via": lambda m, vias, text: text([vias[0] + ";received=10.1.0.1;rport=6200", *vias[1:]]),
            "no reason": lambda m, vias, text: text(vias, start="SIP/2.0 486"),
            "reason in UTF-8": lambda m, vias, text: text(vias, start="SIP/2.0 486 Besetzt\tgrüß"),
            "no Content-Length": lambda m, vias, text: text(vias).replace(b"Content-Length: 0\r\n", b""),
            "branch in upper case": lambda m, vias, text: text([vias[0].replace("branch", "Branch"), *vias[1:]]),
            "folded Via": lambda m, vias, text: text([",\r\n ".join(vias)])}
    for name, write in ends.items():
        call = token()
        core.send(core.request("INVITE", phone.uri(), phone.path, call=call,
                               extra=["Via: SIP/2.0/UDP other.x;branch=z9hG4bKo"]))
        invite = phone.receive(of_call(call, "INVITE"))

        def text(vias, start="SIP/2.0 486 Busy", to=invite.get("to") + ";tag=z", invite=invite):
            return build(start, [*[f"Via: {via}" for via in vias], f"From: {invite.get('from')}", f"To: {to}",
                                 f"Call-ID: {invite.get('call-id')}", f"CSeq: {invite.get('cseq')}"])

        phone.answer_raw(invite, write(invite, invite.vias(), text))
        is_good = name != "bare LF"
        answer = core.receive(lambda m, call=call: m.status >= 200 and m.get("call-id") == call,
                              None if is_good else PATIENCE_FOR_NOTHING)
        lab.check((answer is not None and answer.status == 486) == is_good, f"answer with {name}", answer)
        lab.check(not is_good or len(answer.vias()) == 2, f"the core's Vias, answer with {name}",
                  answer and answer.vias())


CASES = {"b26-prack-over-both": prack_over_both, "b30-cancel-with-reason": cancel_with_reason,
         "b31-cancel-crosses-answer": cancel_crosses_answer, "b35-call-over-new-sas": call_over_new_sas,
         "b37-display-names": display_names, "b39-handset-shape": handset_shape, "b42-privacy": privacy,
         "b48-routes": routes,
         "b68-odd-answers": odd_answers}
