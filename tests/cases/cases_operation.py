"""What happens to calls and registrations when gmgated is killed. The reports are named at the case, if there are
any."""
from cases_call import bye_from_phone, in_call_from_core, make_call
from peers import REALM, Phone
from sip import token, uri_of


def kill_in_call(lab):
    """kill -9 in a call and in half a message: docker_open5gs#651, kamailio#2011."""
    phone, other, call = Phone(lab, 20, tcp=True), Phone(lab, 21), token()
    phone.register_with(lab.core)
    other.register_with(lab.core)
    invite, answer = make_call(lab, phone, call)
    phone.connection.sendall(phone.request("MESSAGE", body=b"half")[:200])
    lab.gateway.end("kill")
    lab.check(lab.sas() == 8, "the SAs outlive gmgated", lab.sas())
    lab.gateway.start()
    lab.check(lab.sas() == 8, "and are adopted", lab.sas())
    phone.receive(lambda m: False, 0.5)
    lab.check(phone.connection not in phone.streams, "the phone's connection has ended")
    phone.connection.close()
    in_call_from_core(lab, phone, "UPDATE", call, invite)
    bye_from_phone(lab, phone, call, answer)
    for one in (phone, other):
        seen, answer = one.refresh_with(lab.core)
        lab.check(answer and answer.status == 200 and seen.path() == one.path, "refreshed with the Path of before",
                  answer)
        lab.check(one.is_reached(lab.core), "service after it")


def kill_with_two_identities(lab):
    """kill -9 between what a phone does with two public identities on its contact (TS 24.229 §5.2.5.1): each keeps its
    own set and route, either ends alone, and the SAs end with the last."""
    phone = Phone(lab, 20)
    other = f"sip:other-{phone.user}@{REALM}"
    phone.register_with(lab.core)

    def again(contact, identity, what):
        seen, answer = phone.refresh_with(lab.core, contact=phone.contact(contact), identity=identity)
        lab.check(answer and answer.status == 200 and seen.path() == phone.path, what, answer)

    def killed():
        lab.gateway.end("kill")
        lab.gateway.start()
        lab.check(lab.sas() == 4, "the SAs are adopted", lab.sas())

    def served_as(identity, asserted, what):
        lab.check(phone.is_reached(lab.core), f"to the phone {what}")
        lab.check(phone.reaches(lab.core, identity=identity), f"from the phone {what}")
        seen = uri_of(phone.message_seen.get("p-asserted-identity") or "")
        lab.check(seen == asserted, f"as {identity} {what}", seen)

    again(";expires=600", other, "the second identity is registered")
    killed()
    for identity in (phone.impu, other):
        served_as(identity, identity, "after the first restart")
    again(";expires=0", phone.impu, "the first identity's de-REGISTER")
    killed()
    served_as(phone.impu, other, "after the second restart")
    again(";expires=0", other, "the second identity's de-REGISTER")
    lab.check(lab.becomes(lambda: lab.sas() == 0, 20), "the SAs end with the last one", lab.sas())


CASES = {"b70-kill-in-call": kill_in_call, "kill-with-two-identities": kill_with_two_identities}
