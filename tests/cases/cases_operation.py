"""What happens to calls and registrations when gmgated is killed. The reports are named at the case."""
from cases_call import bye_from_phone, in_call_from_core, make_call
from peers import Phone
from sip import token


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


CASES = {"b70-kill-in-call": kill_in_call}
