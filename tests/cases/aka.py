"""Milenage (TS 35.206), the AKAv1 digest (RFC 3310) and the ESP keys of TS 33.203 Annexes H and I. Needs nothing but
hashlib, so that the phone of these cases shares no code with the gateway's own peers."""
import base64
import hashlib
import hmac
import os
import struct

import netlink

K = bytes.fromhex("465b5ce8b199b49faa5f0a2ee238a6bc")
OP = bytes.fromhex("cdc202d5123e20f62b6d676ac72cb318")
AMF = bytes.fromhex("b9b9")
SQN = bytes.fromhex("000000000100")


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def times_two(a):
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def make_substitution():
    table = [0] * 256
    p = q = 1
    while True:
        p = p ^ ((p << 1) & 0xFF) ^ (0x1B if p & 0x80 else 0)
        for shift in (1, 2, 4):
            q ^= (q << shift) & 0xFF
        if q & 0x80:
            q ^= 0x09
        x = q
        for turn in range(1, 5):
            x ^= ((q << turn) | (q >> (8 - turn))) & 0xFF
        table[p] = x ^ 0x63
        if p == 1:
            break
    table[0] = 0x63
    return table


SUBSTITUTION = make_substitution()


def expand_key(key):
    """The eleven round keys of AES-128 (FIPS 197 §5.2)."""
    words = [list(key[i:i + 4]) for i in range(0, 16, 4)]
    constant = 1
    for i in range(4, 44):
        word = list(words[i - 1])
        if i % 4 == 0:
            word = [SUBSTITUTION[x] for x in word[1:] + word[:1]]
            word[0] ^= constant
            constant = times_two(constant)
        words.append([a ^ b for a, b in zip(words[i - 4], word)])
    return [sum(words[4 * i:4 * i + 4], []) for i in range(11)]


def mix(column):
    everything = column[0] ^ column[1] ^ column[2] ^ column[3]
    return [column[i] ^ everything ^ times_two(column[i] ^ column[(i + 1) % 4]) for i in range(4)]


def aes(key, block):
    keys = expand_key(key)
    state = list(xor(block, keys[0]))
    for turn in range(1, 11):
        state = [SUBSTITUTION[x] for x in state]
        state = [state[(i + 4 * (i % 4)) % 16] for i in range(16)]
        if turn < 10:
            state = sum((mix(state[4 * c:4 * c + 4]) for c in range(4)), [])
        state = list(xor(state, keys[turn]))
    return bytes(state)


def milenage(rand, sqn, amf):
    """What a USIM and a home network make of K, OP, RAND, SQN and AMF: f1 to f5."""
    opc = xor(aes(K, OP), OP)
    temporary = aes(K, xor(rand, opc))

    def out(turn, constant):
        turned = xor(temporary, opc)
        turned = turned[turn // 8:] + turned[:turn // 8]
        return xor(aes(K, xor(turned, b"\0" * 15 + bytes([constant]))), opc)

    first = xor(sqn + amf + sqn + amf, opc)
    first = xor(aes(K, xor(temporary, first[8:] + first[:8])), opc)
    second = out(0, 1)
    return {"mac": first[:8], "res": second[8:], "ak": second[:6], "ck": out(32, 2), "ik": out(64, 4)}


def make_challenge():
    """A fresh vector and the nonce that carries it (RFC 3310 §3.2)."""
    rand = os.urandom(16)
    vector = milenage(rand, SQN, AMF)
    nonce = base64.b64encode(rand + xor(SQN, vector["ak"]) + AMF + vector["mac"]).decode()
    return vector, nonce


def read_challenge(nonce):
    """The phone's side: the vector of a nonce, after its MAC was checked."""
    raw = base64.b64decode(nonce)
    anonymity = milenage(raw[:16], b"\0" * 6, b"\0\0")["ak"]
    vector = milenage(raw[:16], xor(raw[16:22], anonymity), raw[22:24])
    assert vector["mac"] == raw[24:32], "the MAC of the challenge is wrong"
    return vector


def md5(*parts):
    return hashlib.md5(b":".join(x if isinstance(x, bytes) else x.encode() for x in parts)).hexdigest()


def digest(user, realm, password, method, uri, nonce, nc, cnonce):
    return md5(md5(user, realm, password), nonce, nc, cnonce, "auth", md5(method, uri))


def esp_keys(alg, ealg, ck, ik):
    """What Xfrm.add_sa takes for one pair of algorithms."""

    def salt(function_code, text):
        text = bytes([function_code]) + text + struct.pack(">H", len(text))
        return hmac.new(ck + ik, text, hashlib.sha256).digest()[-4:]

    if ealg == "aes-gcm":
        return [(netlink.AEAD, "rfc4106(gcm(aes))", ck + salt(0x59, b"AES_GCM_SALT"), 128)]
    if alg == "aes-gmac":
        return [(netlink.AEAD, "rfc4543(gcm(aes))", ik + salt(0x58, b"AES_GMAC_SALT"), 128)]
    integrity = {"hmac-sha-1-96": ("hmac(sha1)", ik + bytes(4)), "hmac-md5-96": ("hmac(md5)", ik)}[alg]
    encryption = {"null": ("ecb(cipher_null)", b""), "aes-cbc": ("cbc(aes)", ck),
                  "des-ede3-cbc": ("cbc(des3_ede)", ck + ck[:8])}[ealg]
    return [(netlink.AUTH_TRUNC, *integrity, 96), (netlink.CRYPT, *encryption)]
