"""A file of shapes/: what its head says, the octets that it stands for, and whether they arrived."""
import os
import re

from sip import COMPACT

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shapes")
LISTS = ("over", "changes", "goes", "comes")
WORDS = ("from", "in", "answers", "refused", "body-hex", "unread-by")
PLACEHOLDER = re.compile(r"\{([a-z0-9_]+)(?::(\d+))?\}")
FILLER = "abcdefghijklmnopqrstuvwxyz0123456789"


class Shape:
    """`head`: see README.md; `text`: the message with its placeholders."""

    def __init__(self, path):
        with open(path, encoding="utf8", newline="") as file:
            head, _, self.text = file.read().partition("---\n")
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.head = {key: [] for key in LISTS} | dict.fromkeys(WORDS, "")
        for line in head.splitlines():
            if line.startswith("#") or not line:
                continue
            key, value = line.split(":", 1)
            if key not in LISTS + WORDS:
                raise ValueError(f"{self.name}: nothing is called {key}")
            self.head[key] = value.split() if key in LISTS else value.strip()
        for key in ("changes", "goes", "comes"):
            self.head[key] = {name.lower() for name in self.head[key]}

    def render(self, values):
        """The octets: line ends are CRLF, a header line whose placeholder is empty is left out, {length} is the
        body's, {pad:N} are N octets of filler."""
        head, _, body = self.text.partition("\n\n")
        body = self.fill(body, values).encode().replace(b"\n", b"\r\n")
        if self.head["body-hex"]:
            body = bytes.fromhex(self.head["body-hex"])
        values = values | {"length": len(body)}
        lines = [self.fill(line, values) for line in head.split("\n")
                 if not any(values.get(name) == "" for name, _ in PLACEHOLDER.findall(line))]
        return "\r\n".join([*lines, "", ""]).encode("utf8", "surrogateescape") + body

    @staticmethod
    def fill(line, values):
        def value(found):
            name, size = found.groups()
            if name == "pad":
                return (FILLER * (int(size) // len(FILLER) + 1))[:int(size)]
            return str(values[name])

        return PLACEHOLDER.sub(value, line)


def shapes():
    return [Shape(os.path.join(FOLDER, name)) for name in sorted(os.listdir(FOLDER)) if name.endswith(".sip")]


def split(octets):
    """Start line, (name, whole field as it stands) of each header field, body."""
    head, _, body = octets.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    fields = []
    for line in lines:
        if line[:1] in b" \t" and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\r\n" + line)
        else:
            name = line.split(b":", 1)[0].strip().lower().decode()
            fields.append((COMPACT.get(name, name), line))
    return start, fields, body


def differences(shape, sent, got):
    """What did not arrive as the file says: nothing, or a sentence each."""
    (start, sent_fields, sent_body), (got_start, got_fields, got_body) = split(sent), split(got)
    changes, goes, comes = (shape.head[key] for key in ("changes", "goes", "comes"))
    kept = [whole for name, whole in sent_fields if name not in changes | goes]
    arrived = [whole for name, whole in got_fields if name not in changes | comes]
    there = {name for name, _ in got_fields}
    found = []
    if start != got_start:
        found.append(f"start line {got_start}")
    found += [f"lost {whole[:300]}" for whole in kept if whole not in arrived]
    found += [f"new {whole[:300]}" for whole in arrived if whole not in kept]
    if not found and kept != arrived:
        found.append(f"other order: {[one[:30] for one in arrived]}")
    found += [f"{name} is still there" for name in sorted((goes - comes) & there)]
    found += [f"no {name} came" for name in sorted((comes | changes) - there)]
    if sent_body != got_body:
        found.append(f"body of {len(sent_body)} octets arrived as {len(got_body)}: {got_body[:80]}")
    return found
