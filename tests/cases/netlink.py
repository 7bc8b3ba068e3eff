"""What a case wants of the kernel: addresses, SAs and policies (rtnetlink, linux/xfrm.h). By netlink itself: a program
that does it takes up to half a second to start in a guest, and a case asks a hundred times."""
import os
import socket
import struct

REQUEST, ACK, DUMP, REPLACE, CREATE = 0x1, 0x4, 0x300, 0x100, 0x400  # NLM_F_…
ERROR, DONE = 2, 3  # NLMSG_…
NEW_ADDRESS, NO_DAD, ADDRESS, LOCAL = 20, 0x02, 1, 2  # RTM_NEWADDR, IFA_F_NODAD, IFA_…
NEW_SA, DELETE_SA, GET_SA, UPDATE_POLICY = 0x10, 0x11, 0x12, 0x19  # XFRM_MSG_…
CRYPT, TEMPLATE, AEAD, AUTH_TRUNC = 2, 5, 18, 20  # XFRMA_…
IN, OUT = 0, 1  # XFRM_POLICY_…
ESP, TCP, UDP = socket.IPPROTO_ESP, socket.IPPROTO_TCP, socket.IPPROTO_UDP
UNLIMITED = struct.pack("=8Q", *[2**64 - 1] * 4, *[0] * 4) + bytes(32)  # xfrm_lifetime_cfg and xfrm_lifetime_cur
REPLAY_WINDOW = 32


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def packed(address):
    """xfrm_address_t"""
    return socket.inet_pton(family_of(address), address).ljust(16, b"\0")


def unpacked(family, octets):
    return socket.inet_ntop(family, octets[:4 if family == socket.AF_INET else 16])


def attribute(kind, payload):
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def algorithm(kind, name, key, icv=None):
    """xfrm_algo, or with the length of an ICV xfrm_algo_auth and xfrm_algo_aead; lengths are bits."""
    lengths = struct.pack("=I", 8 * len(key)) + (b"" if icv is None else struct.pack("=I", icv))
    return attribute(kind, name.encode().ljust(64, b"\0") + lengths + key)


def identity(target, spi):
    """xfrm_id"""
    return packed(target) + struct.pack("!IB3x", spi, ESP)


def selector(source, target, ports=(0, 0), protocol=0):
    """xfrm_selector of whole addresses."""
    bits = 128 if ":" in source else 32
    return (packed(target) + packed(source) + struct.pack("!HHHH", ports[1], 0xFFFF, ports[0], 0xFFFF)
            + struct.pack("=HBBB11x", family_of(source), bits, bits, protocol))


class Netlink:
    """A socket of the namespace in which it is made."""

    def __init__(self, protocol):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)

    def ask(self, kind, flags, payload):
        """Returns what is listed; OSError when the kernel refuses."""
        self.socket.send(struct.pack("=IHHII", 16 + len(payload), kind, REQUEST | ACK | flags, 0, 0) + payload)
        listed = []
        while True:
            octets = self.socket.recv(1 << 20)
            while octets:
                size, kind = struct.unpack_from("=IH", octets)
                if kind == DONE:
                    return listed
                if kind == ERROR:
                    code = -struct.unpack_from("=i", octets, 16)[0]
                    if code:
                        raise OSError(code, "the kernel refuses: " + os.strerror(code))
                    return listed
                listed.append(octets[16:size])
                octets = octets[size + -size % 4:]


class Addresses(Netlink):
    def __init__(self, link):
        super().__init__(socket.NETLINK_ROUTE)
        self.index = socket.if_nametoindex(link)

    def add(self, address, prefix):
        octets = socket.inet_pton(family_of(address), address)
        head = struct.pack("=BBBBI", family_of(address), prefix, NO_DAD, 0, self.index)
        self.ask(NEW_ADDRESS, CREATE | REPLACE, head + b"".join(attribute(kind, octets) for kind in (LOCAL, ADDRESS)))


class Xfrm(Netlink):
    def __init__(self):
        super().__init__(6)  # NETLINK_XFRM

    def add_sa(self, source, target, spi, request, algorithms):
        """An SA of ESP in transport mode with that reqid; `algorithms`: arguments of algorithm()."""
        info = (bytes(40) + struct.pack("=H14x", family_of(source)) + identity(target, spi) + packed(source)
                + UNLIMITED + bytes(12)
                + struct.pack("=IIHBBB7x", 0, request, family_of(source), 0, REPLAY_WINDOW, 0))
        self.ask(NEW_SA, CREATE, info + b"".join(algorithm(*one) for one in algorithms))

    def update_policy(self, source, target, ports, protocol, direction, request):
        """What goes from ports[0] to ports[1] goes over SAs of that reqid."""
        template = (identity(target, 0) + struct.pack("=H2x", family_of(source)) + packed(source)
                    + struct.pack("=IBBBxIII", request, 0, 0, 0, *[2**32 - 1] * 3))
        info = struct.pack("=IIBBBB4x", 0, 0, direction, 0, 0, 0)
        self.ask(UPDATE_POLICY, CREATE | REPLACE,
                 selector(source, target, ports, protocol) + UNLIMITED + info + attribute(TEMPLATE, template))

    def sas(self):
        """(source, target, SPI) of each SA."""
        for one in self.ask(GET_SA, DUMP, bytes(40)):
            family = struct.unpack_from("=H", one, 212)[0]
            yield unpacked(family, one[80:96]), unpacked(family, one[56:72]), struct.unpack_from("!I", one, 72)[0]

    def delete_sas(self, address):
        """All SAs with that end."""
        for source, target, spi in list(self.sas()):
            if address in (source, target):
                self.ask(DELETE_SA, 0, packed(target) + struct.pack("!I", spi)
                         + struct.pack("=HBx", family_of(target), ESP))
